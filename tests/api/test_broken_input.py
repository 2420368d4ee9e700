"""What makes no sense is refused in JSON, with a status that blames the caller; it harms nobody."""

from __future__ import annotations

import pytest

from client import Client, expect, refused
from conftest import Start

#: Routes that need a body, and those that can do without.
WITH_BODY = (
    "/tasks",
    "/tasks/batch",
    "/tasks/claim/batch",
    "/tasks/x/result",
    "/tasks/batch/results",
    "/workers/subscriptions",
)
BODY_OPTIONAL = (
    "/tasks/claim",
    "/tasks/x/heartbeat",
    "/tasks/x/nack",
    "/workers/subscriptions/x/heartbeat",
    "/admin/tasks/cleanup",
)
#: All routes, with the methods that they take.
ROUTES = {
    **dict.fromkeys(WITH_BODY + BODY_OPTIONAL, ("POST",)),
    "/tasks/x/abandon": ("POST",),
    "/tasks/x": ("GET", "HEAD"),
    "/tasks/x/result": ("GET", "HEAD", "POST"),
    "/tasks/x/artifacts/y": ("GET", "HEAD"),
    "/workers/subscriptions/x": ("DELETE",),
    "/admin/queues": ("GET", "HEAD"),
    "/admin/queues/x": ("GET", "HEAD"),
    "/admin/queues/x/tasks": ("GET", "HEAD"),
    "/admin/queues/x/dlq/requeue": ("POST",),
    "/admin/queues/x/dlq/purge": ("POST",),
    "/admin/tasks": ("GET", "HEAD"),
    "/admin/tasks/x/requeue": ("POST",),
    "/admin/tasks/x": ("DELETE",),
    "/healthz": ("GET", "HEAD"),
    "/readyz": ("GET", "HEAD"),
    "/metrics": ("GET", "HEAD"),
    "/openapi.json": ("GET", "HEAD"),
}
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "TRACE", "PROPFIND")


@pytest.mark.parametrize("path", ROUTES)
def test_a_method_that_a_route_does_not_take_is_refused(api: Client, path: str) -> None:
    for method in METHODS:
        if method not in ROUTES[path] and method != "HEAD":
            answer = api.send(method, path)
            assert answer.status_code == 405, f"{method}: {answer.status_code}"
            allowed = {name.strip() for name in answer.headers["Allow"].split(",")}
            assert allowed - {"HEAD"} == set(ROUTES[path]) - {"HEAD"}


@pytest.mark.parametrize(
    "path",
    [
        "/v1/",
        "/v1/codeq",
        "/v1/codeq/",
        "/v1/codeq/nothing",
        "/v1/codeq/tasks/",
        "/v1/codeq/tasks/x/",
        "/v1/codeq/tasks/x/nothing",
        "/v1/codeq/tasks/x/result/",
        "/v1/codeq/admin",
        "/v1/codeq//tasks",
        "/v2/codeq/tasks",
        "/v1/other",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_an_unknown_route_is_answered_in_json(api: Client, method: str, path: str) -> None:
    answer = api.send(method, path if path.startswith("/v1/") else f"/v1/../{path}")
    if path == "/v1/codeq/tasks/" and method == "GET":
        assert answer.status_code in (400, 404)
    else:
        refused(answer, 404)


#: Bodies by what is wrong with them.
BROKEN = {
    "cut off": b"{",
    "closed only": b"}",
    "mixed brackets": b"{]",
    "null": b"null",
    "true": b"true",
    "number": b"7",
    "text": b'"text"',
    "list": b"[]",
    "two objects": b"{}{}",
    "trailing": b"{} trailing",
    "no value": b'{"command":}',
    "single quotes": b"{'command': 'a'}",
    "trailing comma": b'{"command": "a",}',
    "byte order mark": b"\xef\xbb\xbf{}",
    "nul": b"\0",
    "xml": b"<xml/>",
    "form": b"command=a&payload=1",
    "utf-16": '{"command": "a"}'.encode("utf-16"),
    "comment": b"{/* */}",
}


@pytest.mark.parametrize("path", WITH_BODY + BODY_OPTIONAL)
def test_a_body_that_is_no_json_object_is_refused(api: Client, path: str) -> None:
    for content in BROKEN.values():
        refused(api.post(path, content=content), 400, "invalid body")


@pytest.mark.parametrize("path", WITH_BODY)
def test_a_body_that_is_missing_is_refused_where_one_is_needed(api: Client, path: str) -> None:
    refused(api.post(path), 400, "invalid body")
    refused(api.post(path, content=b" \r\n"), 400, "invalid body")


@pytest.mark.parametrize(
    "broken", [b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xc0\x80", b"\xf4\x90\x80\x80", b"\\ud800"]
)
def test_text_that_is_no_utf8_is_refused(api: Client, broken: bytes) -> None:
    refused(api.post("/tasks", content=b'{"payload":1,"command":"%s"}' % broken), 400)
    refused(api.post("/tasks/x/nack", content=b'{"reason":"%s"}' % broken), 400)
    refused(api.post("/tasks/claim", content=b'{"commands":["%s"]}' % broken), 400)
    if not broken.startswith(b"\\"):
        refused(api.post("/tasks", content=b'{"command":"a","payload":"%s"}' % broken), 400)
        refused(api.post("/tasks", content=b'{"command":"a","payload":1,"%s":1}' % broken), 400)


def test_a_name_that_comes_twice_is_refused(api: Client, command: str) -> None:
    twice = f'{{"command": "{command}", "command": "{command}", "payload": 1}}'
    refused(api.post("/tasks", content=twice.encode()), 400, "invalid body")
    assert api.counts(command) == (0, 0, 0, 0)


def test_names_that_nobody_knows_are_passed_over(api: Client, command: str) -> None:
    task = api.create(command, whatever={"a": [1]}, status="COMPLETED", tenantId="other")
    assert (task["status"], task["tenantId"]) == ("PENDING", "default")
    assert "whatever" not in task


@pytest.mark.parametrize(
    "number", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999", "0x10", "01", "+1", "1.", ".5"]
)
def test_a_number_that_is_none_is_refused(api: Client, number: str) -> None:
    for field in ("priority", "maxAttempts", "delaySeconds"):
        body = f'{{"command": "a", "payload": 1, "{field}": {number}}}'
        refused(api.post("/tasks", content=body.encode()), 400)
    for field in ("leaseSeconds", "waitSeconds"):
        refused(api.post("/tasks/claim", content=f'{{"{field}": {number}}}'.encode()), 400)


@pytest.mark.parametrize("number", [2**63, -(2**63) - 1, 10**30])
def test_a_number_out_of_range_is_refused(api: Client, number: int) -> None:
    for field in ("priority", "maxAttempts"):
        refused(api.post("/tasks", {"command": "a", "payload": 1, field: number}), 400)
    refused(api.post("/tasks/claim", {"leaseSeconds": number}), 400)
    refused(api.post("/admin/tasks/cleanup", {"limit": number}), 400)


@pytest.mark.parametrize("number", [2**63 - 1, -(2**63), 2**32, -1, 0])
def test_a_number_beyond_all_measure_is_brought_within_it(
    api: Client, command: str, number: int
) -> None:
    task = api.create(command, priority=number, maxAttempts=number)
    held = api.claimed(command, leaseSeconds=number)
    assert held["id"] == task["id"]
    expect(api.post(f"/tasks/{held['id']}/heartbeat", {"extendSeconds": number}), 200)
    assert api.task(held["id"])["status"] == "IN_PROGRESS"
    expect(api.complete(held["id"]), 200)


def deep(levels: int) -> str:
    """Something nested this deeply."""
    return "[" * levels + "]" * levels


@pytest.mark.parametrize("levels", [100, 1_000, 100_000])
def test_deep_nesting_does_no_harm(api: Client, command: str, levels: int) -> None:
    body = f'{{"command": "{command}", "payload": {deep(levels)}}}'
    answer = api.post("/tasks", content=body.encode())
    if answer.status_code != 400:
        assert expect(answer, 202)["payload"] == deep(levels)
        assert api.claimed(command)["payload"] == deep(levels)
    task = api.held(command)
    body = f'{{"status": "COMPLETED", "result": {{"deep": {deep(levels)}}}}}'
    if api.post(f"/tasks/{task['id']}/result", content=body.encode()).status_code != 400:
        assert deep(levels) in api.get(f"/tasks/{task['id']}/result").text


@pytest.mark.parametrize("path", WITH_BODY + BODY_OPTIONAL)
def test_deep_nesting_where_none_belongs_is_refused(api: Client, path: str) -> None:
    refused(api.post(path, content=deep(100_000).encode()), 400)


def test_a_field_that_is_nested_deeply_is_refused(api: Client) -> None:
    for field in ("command", "priority", "webhook"):
        body = f'{{"payload": 1, "command": "a", "{field}": {deep(100_000)}}}'
        refused(api.post("/tasks", content=body.encode()), 400)


def test_a_body_over_the_limit_is_too_large(start: Start) -> None:
    api = start(maxBodyBytes=4096).client()
    rest = len(b'{"command": "a", "payload": ""}')

    def body(length: int) -> bytes:
        return b'{"command": "a", "payload": "%s"}' % (b"x" * (length - rest))

    expect(api.post("/tasks", content=body(4096)), 202)
    for path in WITH_BODY + BODY_OPTIONAL:
        for length in (4097, 3_000_000):
            refused(api.post(path, content=body(length)), 413)
            refused(api.post(path, content=iter([body(length)])), 413)
    assert api.counts("a") == (1, 0, 0, 0)


@pytest.mark.parametrize(
    "content_type", ["application/json; charset=utf-8", "text/plain", "nonsense", "", None]
)
def test_a_body_is_json_whatever_its_type_says(
    api: Client, command: str, content_type: str | None
) -> None:
    headers = {} if content_type is None else {"Content-Type": content_type}
    body = b'{"command": "%s", "payload": 1}' % command.encode()
    expect(api.post("/tasks", content=body, headers=headers), 202)
    form = "application/x-www-form-urlencoded"
    expect(api.post("/tasks", content=body, headers={"Content-Type": form}), 202)


@pytest.mark.parametrize("broken", ["%FF", "%C3", "a%ED%A0%80"])
def test_a_path_that_is_no_utf8_is_refused(api: Client, broken: str) -> None:
    refused(api.get(f"/tasks/{broken}"), 400)
    refused(api.get(f"/tasks/{broken}/result"), 400)
    refused(api.get(f"/admin/queues/{broken}"), 400)
    for action in ("heartbeat", "abandon", "nack", "result"):
        refused(api.post(f"/tasks/{broken}/{action}", {"status": "COMPLETED", "result": {}}), 400)


@pytest.mark.parametrize(
    "query", ["", "waitSeconds=", "other=1", "%FF=%FF", "&&&=", "a=%zz", "?", "=" * 2000]
)
def test_a_query_that_nobody_knows_does_no_harm(api: Client, command: str, query: str) -> None:
    task = api.create(command)
    answer = api.get(f"/tasks/{task['id']}/result?{query}")
    assert answer.status_code in (400, 404)


def test_texts_of_any_length_and_kind_are_kept(api: Client, command: str) -> None:
    text = '\0\1"\\/\x7f\u2028汉字🚀 ' * 5_000
    task = api.held(command, payload=text, maxAttempts=1)
    expect(api.post(f"/tasks/{task['id']}/nack", {"reason": text}), 200)
    assert api.task(task["id"])["error"].strip() == text.strip()


def test_a_payload_of_megabytes_is_kept(api: Client, command: str) -> None:
    payload = '"' + "x" * (8 << 20) + '"'
    body = f'{{"command": "{command}", "payload": {payload}}}'
    task = expect(api.post("/tasks", content=body.encode()), 202)
    assert api.claimed(command)["payload"] == payload
    expect(api.complete(task["id"]), 200)
