"""What a machine makes up from the API's description: schemathesis, against a running host."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from client import Client, expect
from conftest import Stage
from host import Host
from receiver import Receiver
from test_static_tokens import PRODUCER, SCOPES, config, entry

#: How long, in seconds, each run is.
BUDGET = int(os.environ.get("FUZZ_SECONDS", "35"))
#: The same input each time, unless somebody wants other.
SEED = int(os.environ.get("FUZZ_SEED", "20260101"))
#: The document, if the host's own is not the one to test.
DOCUMENT = os.environ.get("FUZZ_DOCUMENT")

#: A new task has no result yet, which schemathesis takes for a resource that got lost.
UNFIT = "ensure_resource_availability"

#: One token for everything: schemathesis sends the same with each request.
ALMIGHTY: dict[str, Any] = config(
    entry(PRODUCER, "ann", [*SCOPES, "admin"]), "a-worker", allowProducerAsWorker=True
)


def fuzzed(
    host: Host, receiver: Receiver, directory: Path, *options: str, unfit: tuple[str, ...] = ()
) -> None:
    """Runs schemathesis; fails with its report, which has a curl for each failure."""
    print(f"seed {SEED}")
    command = [
        *(sys.executable, "-m", "schemathesis.cli"),
        *("--config-file", str(Path(__file__).with_name("schemathesis.toml")), "run"),
        *((DOCUMENT, "--url", host.url) if DOCUMENT else (f"{host.url}/openapi.json",)),
        *("--checks", "all", "--exclude-checks", ",".join((UNFIT, *unfit))),
        *("--max-time", str(BUDGET)),
        *("--seed", str(SEED)),
        *("--request-timeout", "20"),
        *("--generation-database", "none"),
        *("--output-truncate", "false", "--output-sanitize", "false", "--no-color"),
        *("--warnings", "off"),
        *("--suppress-health-check", "all"),
        *options,
    ]
    variables = {
        **os.environ,
        "SCHEMATHESIS_HOOKS": "fuzzing",
        "PYTHONPATH": str(Path(__file__).parent),
        "FUZZ_RECEIVER": receiver.url,
    }
    done = subprocess.run(
        command,
        cwd=directory,
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=BUDGET * 3 + 60,
        check=False,
    )
    print(done.stdout)
    assert done.returncode == 0, f"schemathesis found something, with the seed {SEED}"
    assert re.search(r"[1-9]\d* (test cases )?(generated|passed)", done.stdout), "nothing was tried"


def is_well(api: Client) -> None:
    """Whether a host works after all that."""
    expect(api.get("/readyz"), 200)
    task = api.held("still-well")
    expect(api.complete(task["id"]), 200)


@pytest.mark.xdist_group("fuzz")
def test_a_host_without_tokens_keeps_to_its_description(
    stage: Stage, receiver: Receiver, tmp_path: Path
) -> None:
    host = stage.start("memory")
    anybody = ("--generation-with-security-parameters", "false")
    fuzzed(host, receiver, tmp_path, *anybody, unfit=("ignored_auth",))
    is_well(host.client())


@pytest.mark.xdist_group("fuzz")
def test_a_host_with_tokens_keeps_to_its_description(
    stage: Stage, receiver: Receiver, tmp_path: Path
) -> None:
    host = stage.start("memory", **ALMIGHTY)
    fuzzed(host, receiver, tmp_path, "--header", f"Authorization: Bearer {PRODUCER}")
    is_well(host.client(PRODUCER))
