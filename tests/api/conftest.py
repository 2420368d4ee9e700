"""The black-box suite: real hosts, called over HTTP by a client that shares no code with them.

`make test-api` builds what is needed and runs everything. By hand, from the repository's root:

    target/test-api/bin/pytest tests/api/test_claims.py -k "redis and wakes"

Every test that takes `host`, `api` or `start` runs on each provider. `host` is shared by all tests
of a provider, so each test has a `command` of its own; a test that needs other settings, or all
queues to itself, starts a host with `start`. After each test the log must be free of errors.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from client import Client
from document import Document
from host import PROVIDERS, QUICK, Host, Redis, plugin_directory
from receiver import Receiver

Start = Callable[..., Host]


@pytest.fixture(scope="session")
def plugins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where hosts find their plugins."""
    return plugin_directory(tmp_path_factory.mktemp("plugins") / "plugins")


@pytest.fixture(scope="session", params=PROVIDERS)
def provider(request: pytest.FixtureRequest) -> str:
    """The provider of this round."""
    return request.param


class Stage:
    """Starts hosts, each with a directory of its own, and ends them."""

    def __init__(self, directory: Path, plugins: Path, running: ExitStack) -> None:
        self._directory = directory
        self._plugins = plugins
        self._running = running
        self._numbers = itertools.count(1)

    def start(self, provider: str, variables: dict[str, str] | None = None, **config: Any) -> Host:
        """Starts a host that serves."""
        directory = self._directory / f"host-{next(self._numbers)}"
        settings = {"pluginDirs": [str(self._plugins)], "persistenceProvider": provider, **QUICK}
        if provider == "redis":
            redis = Redis()
            self._running.callback(redis.stop)
            settings["persistenceConfig"] = {"socket": redis.socket}
        host = Host(directory, {**settings, **config}, variables)
        self._running.enter_context(host)
        if Client.document is None and host.url.startswith("http:"):
            # The same for all hosts; that it is there at all is a test of its own.
            answer = host.client().get("/openapi.json")
            Client.document = Document(answer.json()) if answer.status_code == 200 else None
        return host


@pytest.fixture(scope="session")
def shared(
    provider: str, plugins: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Host]:
    """The host that the tests of a provider share."""
    with ExitStack() as running:
        stage = Stage(tmp_path_factory.mktemp(f"shared-{provider}"), plugins, running)
        yield stage.start(provider)


@pytest.fixture(autouse=True)
def _answers_are_as_described() -> Iterator[None]:
    """Holds all answers of a test to the API's description of itself."""
    yield
    breaches = Client.document.breaches if Client.document else set()
    found = sorted(breaches)
    breaches.clear()
    assert found == []


@pytest.fixture
def host(shared: Host) -> Iterator[Host]:
    """A host without tokens, which blames itself for nothing that a test does."""
    shared.complaints()
    yield shared
    assert shared.complaints() == []


@pytest.fixture
def api(host: Host) -> Iterator[Client]:
    """A caller of the shared host."""
    client = Client(host.url)
    yield client
    client.close()


@pytest.fixture
def stage(tmp_path: Path, plugins: Path) -> Iterator[Stage]:
    """Starts hosts on any provider, for one test."""
    with ExitStack() as running:
        yield Stage(tmp_path, plugins, running)


@pytest.fixture
def start(stage: Stage, provider: str) -> Start:
    """Starts hosts of the test's own, with settings on top of the usual ones."""

    def start(**config: Any) -> Host:
        return stage.start(provider, **config)

    return start


_commands = itertools.count(1)


@pytest.fixture
def command() -> str:
    """A command that no other test uses."""
    return f"command-{next(_commands)}"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A server that takes webhooks."""
    with Receiver() as receiver:
        yield receiver
