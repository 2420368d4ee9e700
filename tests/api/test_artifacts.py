"""Files that belong to results."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from client import Client, Json, expect, refused
from conftest import Start
from host import Host
from test_static_tokens import OTHER, PRODUCER, WORKER, config, entry


def encoded(content: bytes) -> str:
    return base64.b64encode(content).decode()


def handed_in(api: Client, task: Json, *artifacts: Any) -> httpx.Response:
    body = {"status": "COMPLETED", "result": {"ok": True}, "artifacts": list(artifacts)}
    return api.post(f"/tasks/{task['id']}/result", body)


def test_an_artifact_that_is_elsewhere_keeps_its_url(api: Client, command: str) -> None:
    task = api.held(command)
    artifact = {"name": "page.pdf", "url": "https://example.org/page.pdf"}
    record = expect(handed_in(api, task, artifact), 200)
    assert record["artifacts"] == [artifact]
    kept = expect(api.get(f"/tasks/{task['id']}/result"), 200)["result"]
    assert kept["artifacts"] == [artifact]


def test_the_contents_of_an_artifact_are_kept(api: Client, command: str) -> None:
    task = api.held(command)
    content = bytes(range(256)) * 100
    artifact = {"name": "page.pdf", "contentBase64": encoded(content)}
    record = expect(handed_in(api, task, {**artifact, "contentType": "application/pdf"}), 200)
    (kept,) = record["artifacts"]
    assert kept["name"] == "page.pdf"
    assert kept["url"].startswith(f"/v1/codeq/tasks/{task['id']}/artifacts/page.pdf")
    assert api.get(kept["url"]).content == content
    answer = api.get(f"/tasks/{task['id']}/artifacts/page.pdf")
    assert (answer.status_code, answer.content) == (200, content)
    assert answer.headers["Content-Type"] == "application/pdf"
    assert answer.headers["Content-Length"] == str(len(content))


def test_several_artifacts_are_kept_in_order(api: Client, command: str) -> None:
    task = api.held(command)
    names = [f"part-{n}.txt" for n in range(12)]
    artifacts = [{"name": name, "contentBase64": encoded(name.encode())} for name in names]
    artifacts.insert(6, {"name": "elsewhere", "url": "https://example.org/"})
    record = expect(handed_in(api, task, *artifacts), 200)
    assert [kept["name"] for kept in record["artifacts"]] == [a["name"] for a in artifacts]
    for name in names:
        assert api.get(f"/tasks/{task['id']}/artifacts/{name}").text == name


def test_a_batch_of_results_has_artifacts_too(api: Client, command: str) -> None:
    tasks = [api.held(command) for _ in range(3)]
    results = [
        {
            "taskId": task["id"],
            "status": "COMPLETED",
            "result": {},
            "artifacts": [{"name": "a.txt", "contentBase64": encoded(task["id"].encode())}],
        }
        for task in tasks
    ]
    results[1]["artifacts"][0]["contentBase64"] = "!"
    answers = expect(api.post("/tasks/batch/results", {"results": results}), 200)["results"]
    assert ["result" in answer for answer in answers] == [True, False, True]
    assert api.get(f"/tasks/{tasks[2]['id']}/artifacts/a.txt").text == tasks[2]["id"]
    assert api.task(tasks[1]["id"])["status"] == "IN_PROGRESS"


def test_a_failed_task_may_have_artifacts(api: Client, command: str) -> None:
    task = api.held(command)
    artifacts = [{"name": "log.txt", "contentBase64": encoded(b"it broke")}]
    body = {"status": "FAILED", "error": "broken", "artifacts": artifacts}
    expect(api.post(f"/tasks/{task['id']}/result", body), 200)
    assert api.get(f"/tasks/{task['id']}/artifacts/log.txt").text == "it broke"


def test_missing_padding_is_forgiven(api: Client, command: str) -> None:
    task = api.held(command)
    expect(handed_in(api, task, {"name": "a", "contentBase64": "aGVsbG8"}), 200)
    assert api.get(f"/tasks/{task['id']}/artifacts/a").text == "hello"


def test_an_empty_artifact_is_kept(api: Client, command: str) -> None:
    task = api.held(command)
    expect(handed_in(api, task, {"name": "empty", "contentBase64": ""}), 200)
    assert api.get(f"/tasks/{task['id']}/artifacts/empty").content == b""


@pytest.mark.parametrize(
    "artifact",
    [
        {},
        7,
        {"name": "", "url": "https://example.org/"},
        {"name": " ", "contentBase64": "aGVsbG8="},
        {"name": "a"},
        {"name": 7, "contentBase64": "aGVsbG8="},
        {"name": "a", "url": 7},
        {"name": "a", "contentBase64": "!!!"},
        {"name": "a", "contentBase64": "aGVsbG8=="},
        {"name": "a", "contentBase64": 7},
        {"name": "..", "contentBase64": "aGVsbG8="},
        {"name": ".", "contentBase64": "aGVsbG8="},
        {"name": "a\0b", "contentBase64": "aGVsbG8="},
        {"name": "x" * 256, "contentBase64": "aGVsbG8="},
        {"name": "a", "contentBase64": "aGVsbG8=", "contentType": "text/plain\r\nX-Evil: 1"},
    ],
    ids=lambda artifact: str(artifact)[:60],
)
def test_an_artifact_that_makes_no_sense_is_refused_and_the_task_goes_on(
    api: Client, command: str, artifact: Any
) -> None:
    task = api.held(command)
    refused(handed_in(api, task, artifact), 400)
    assert api.task(task["id"]) == task


NAMES = ["a b.txt", "ü.txt", "汉字", "100%", "a+b&c=d", ".hidden", "a?b#c", "x" * 255]
#: Names that would lead out of the directory, were they taken for paths.
TRAPS = ["../a", "../../../../tmp/a", "/etc/passwd", "a/../../b", "a\\..\\b", "C:\\a", "...", "~"]


@pytest.mark.parametrize("name", NAMES + TRAPS)
def test_an_artifact_may_have_any_name(host: Host, command: str, name: str) -> None:
    api = host.client()
    task = api.held(command)
    record = expect(handed_in(api, task, {"name": name, "contentBase64": "aGVsbG8="}), 200)
    (kept,) = record["artifacts"]
    assert kept["name"] == name
    assert api.get(kept["url"]).text == "hello"
    assert api.get(f"/tasks/{task['id']}/artifacts/{quote(name, safe='')}").text == "hello"


def test_artifacts_of_one_name_are_refused(api: Client, command: str) -> None:
    task = api.held(command)
    artifact = {"name": "a", "contentBase64": "aGVsbG8="}
    refused(handed_in(api, task, artifact, artifact), 400)
    refused(handed_in(api, task, *[{**artifact, "name": str(n)} for n in range(101)]), 400)
    assert api.task(task["id"]) == task


def test_contents_over_the_limit_are_refused(start: Start) -> None:
    api = start(maxArtifactBytes=1000).client()
    task = api.held("a")
    fits = {"name": "a", "contentBase64": encoded(b"x" * 1000)}
    too_large = {"name": "b", "contentBase64": encoded(b"x" * 1001)}
    refused(handed_in(api, task, fits, too_large), 413)
    assert api.task(task["id"])["status"] == "IN_PROGRESS"
    expect(handed_in(api, task, fits), 200)


def test_an_artifact_that_is_not_there_is_not_found(api: Client, command: str) -> None:
    task = api.held(command)
    refused(api.get(f"/tasks/{task['id']}/artifacts/a"), 404)
    expect(handed_in(api, task, {"name": "a", "contentBase64": "aGVsbG8="}), 200)
    for name in ("b", "A", "%2e%2e", "..%2F..%2Fetc%2Fpasswd", "a%2Fb", "%00", "a" * 5000):
        refused(api.get(f"/tasks/{task['id']}/artifacts/{name}"), 404)
    refused(api.get("/tasks/nothing/artifacts/a"), 404)
    refused(api.get("/tasks/%2e%2e/artifacts/a"), 404)


def test_who_may_not_complete_a_task_leaves_no_artifact(api: Client, command: str) -> None:
    task = api.create(command)
    refused(handed_in(api, task, {"name": "a", "contentBase64": "aGVsbG8="}), 409)
    refused(api.get(f"/tasks/{task['id']}/artifacts/a"), 404)


def test_a_second_completion_does_not_change_an_artifact(api: Client, command: str) -> None:
    task = api.held(command)
    expect(handed_in(api, task, {"name": "a", "contentBase64": encoded(b"first")}), 200)
    refused(handed_in(api, task, {"name": "a", "contentBase64": encoded(b"second")}), 409)
    assert api.get(f"/tasks/{task['id']}/artifacts/a").text == "first"


def test_an_artifact_runs_nowhere(api: Client, command: str) -> None:
    task = api.held(command)
    page = {"name": "a.html", "contentBase64": encoded(b"<script>"), "contentType": "text/html"}
    expect(handed_in(api, task, page), 200)
    headers = api.get(f"/tasks/{task['id']}/artifacts/a.html").headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    is_download = headers.get("Content-Disposition", "").startswith("attachment")
    assert is_download or "sandbox" in headers.get("Content-Security-Policy", "")


def test_artifacts_are_of_their_tenant(start: Start) -> None:
    producers = [entry(PRODUCER, "ann"), entry(OTHER, "eve", raw={"tid": "other"})]
    host = start(**config(producers, entry(WORKER, "bob")))
    producer, worker = host.client(PRODUCER), host.client(WORKER)
    task = producer.create("a")
    worker.claimed("a")
    expect(handed_in(worker, task, {"name": "a", "contentBase64": encoded(b"mine")}), 200)
    path = f"/tasks/{task['id']}/artifacts/a"
    assert producer.get(path).text == worker.get(path).text == "mine"
    refused(host.client(OTHER).get(path), 404)
    refused(host.client().get(path), 401)


def test_contents_are_in_the_directory_of_artifacts(start: Start, tmp_path: Path) -> None:
    directory = tmp_path / "artifacts"
    api = start(localArtifactsDir=str(directory)).client()
    task = api.held("a")
    expect(handed_in(api, task, {"name": "a.txt", "contentBase64": encoded(b"here")}), 200)
    found = [file.read_bytes() for file in directory.rglob("*") if file.is_file()]
    assert b"here" in found


def test_nothing_is_written_outside_the_directory_of_artifacts(
    start: Start, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    api = start(localArtifactsDir=str(home / "deep" / "artifacts")).client()
    before = {path for path in tmp_path.rglob("*") if "home" not in path.parts}
    for name in TRAPS:
        task = api.held("a")
        expect(handed_in(api, task, {"name": name, "contentBase64": "aGVsbG8="}), 200)
    written = {path for path in tmp_path.rglob("*") if "home" not in path.parts} - before
    assert not [path for path in written if path.is_file() and path.read_bytes() == b"hello"]
    assert [path.name for path in home.iterdir()] == ["deep"]
    assert [path.name for path in (home / "deep").iterdir()] == ["artifacts"]


def test_the_url_of_an_artifact_is_where_callers_reach_the_host(start: Start) -> None:
    api = start(publicUrl="https://queue.example.org/").client()
    task = api.held("a")
    record = expect(handed_in(api, task, {"name": "a", "contentBase64": "aGVsbG8="}), 200)
    url = f"https://queue.example.org/v1/codeq/tasks/{task['id']}/artifacts/a"
    (kept,) = record["artifacts"]
    assert kept["url"].startswith(url)


def test_an_artifact_goes_with_its_task(api: Client, command: str) -> None:
    task = api.held(command)
    expect(handed_in(api, task, {"name": "a", "contentBase64": "aGVsbG8="}), 200)
    assert api.delete(f"/admin/tasks/{task['id']}").status_code == 204
    refused(api.get(f"/tasks/{task['id']}/artifacts/a"), 404)
