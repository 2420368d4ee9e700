"""Results that are posted to whoever created the task."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from client import Client, Json, expect, moment, refused
from conftest import Start
from host import QUICK
from receiver import Receiver

SECRET = QUICK["webhookHmacSecret"]


def completed(api: Client, command: str, url: str) -> Json:
    task = api.held(command, webhook=url)
    body = {
        "status": "COMPLETED",
        "result": {"pages": 3},
        "artifacts": [{"name": "a.pdf", "url": "https://example.org/a.pdf"}],
    }
    expect(api.post(f"/tasks/{task['id']}/result", body), 200)
    return task


def failed(api: Client, command: str, url: str) -> Json:
    task = api.held(command, webhook=url)
    body = {"status": "FAILED", "error": "no ink"}
    expect(api.post(f"/tasks/{task['id']}/result", body), 200)
    return task


def completed_in_a_batch(api: Client, command: str, url: str) -> Json:
    task = api.held(command, webhook=url)
    results = [{"taskId": task["id"], "status": "COMPLETED", "result": {"pages": 3}}]
    expect(api.post("/tasks/batch/results", {"results": results}), 200)
    return task


def given_back_for_the_last_time(api: Client, command: str, url: str) -> Json:
    return api.buried(command, webhook=url)


def expired_for_the_last_time(api: Client, command: str, url: str) -> Json:
    task = api.create(command, webhook=url, maxAttempts=1)
    api.claimed(command, leaseSeconds=1)
    return task


@pytest.mark.parametrize(
    ("end", "status", "error"),
    [
        (completed, "COMPLETED", ""),
        (completed_in_a_batch, "COMPLETED", ""),
        (failed, "FAILED", "no ink"),
        (given_back_for_the_last_time, "FAILED", "broken"),
        (expired_for_the_last_time, "FAILED", "LEASE_EXPIRED"),
    ],
)
def test_the_end_of_a_task_is_told_to_its_webhook(
    api: Client,
    command: str,
    receiver: Receiver,
    end: Callable[[Client, str, str], Json],
    status: str,
    error: str,
) -> None:
    begin = datetime.now(UTC)
    task = end(api, command, f"{receiver.url}/hook?a=b")
    call = receiver.next()
    assert (call.method, call.path) == ("POST", "/hook?a=b")
    assert call.headers["content-type"].startswith("application/json")
    assert (call.body["taskId"], call.body["eventType"]) == (task["id"], command)
    assert (call.body["status"], call.body.get("error") or "") == (status, error)
    completed_at = moment(call.body["completedAt"])
    assert begin - timedelta(seconds=1) < completed_at < begin + timedelta(seconds=30)
    if status == "COMPLETED":
        assert call.body["result"] == {"pages": 3}


def test_artifacts_are_told_too(api: Client, command: str, receiver: Receiver) -> None:
    completed(api, command, receiver.url)
    artifacts = [{"name": "a.pdf", "url": "https://example.org/a.pdf"}]
    assert receiver.next().body["artifacts"] == artifacts


def test_a_call_is_signed(api: Client, command: str, receiver: Receiver) -> None:
    completed(api, command, receiver.url)
    call = receiver.next()
    assert call.is_signed_with(SECRET)
    assert not call.is_signed_with(SECRET + "!")
    assert abs(int(call.headers["x-codeq-timestamp"]) - time.time()) < 30


def test_without_a_secret_nothing_is_signed(start: Start, receiver: Receiver) -> None:
    completed(start(webhookHmacSecret="").client(), "a", receiver.url)
    headers = receiver.next().headers
    assert not {"x-codeq-signature", "x-codeq-timestamp"} & set(headers)


def test_a_result_is_told_to_the_letter(api: Client, command: str, receiver: Receiver) -> None:
    task = api.held(command, webhook=receiver.url)
    text = '{"n":123456789012345678901234567890.5,"t":"\\ud83d\\ude80"}'
    body = f'{{"status": "COMPLETED", "result": {text}}}'
    expect(api.post(f"/tasks/{task['id']}/result", content=body.encode()), 200)
    assert text in receiver.next().content.decode()


@pytest.mark.parametrize("status", [500, 503, 404, 429, 301])
def test_a_call_that_fails_is_made_again(
    api: Client, command: str, receiver: Receiver, status: int
) -> None:
    for _ in range(2):
        receiver.answer_next(status, Location=f"{receiver.url}/elsewhere")
    task = completed(api, command, f"{receiver.url}/hook")
    calls = [receiver.next() for _ in range(3)]
    assert {(call.path, call.body["taskId"]) for call in calls} == {("/hook", task["id"])}
    assert all(call.is_signed_with(SECRET) for call in calls)


def test_a_call_that_keeps_failing_is_given_up(start: Start, receiver: Receiver) -> None:
    api = start(resultWebhookMaxAttempts=3).client()
    for _ in range(10):
        receiver.answer_next(500)
    completed(api, "a", f"{receiver.url}/first")
    assert [receiver.next().path for _ in range(3)] == ["/first"] * 3
    # What comes after it shows that there was no fourth.
    api = start(resultWebhookMaxAttempts=1).client()
    completed(api, "b", f"{receiver.url}/second")
    assert receiver.next().path == "/second"


def test_the_waits_between_calls_grow(start: Start, receiver: Receiver) -> None:
    api = start(resultWebhookBaseBackoffSeconds=1, resultWebhookMaxBackoffSeconds=2).client()
    for _ in range(2):
        receiver.answer_next(500)
    completed(api, "a", receiver.url)
    times = []
    for _ in range(3):
        receiver.next()
        times.append(time.monotonic())
    first, second = (after - before for before, after in itertools.pairwise(times))
    assert first > 0.4
    assert second > 0.8


def test_a_task_that_comes_back_tells_nobody(api: Client, command: str, receiver: Receiver) -> None:
    task = api.held(command, webhook=f"{receiver.url}/hook")
    expect(api.post(f"/tasks/{task['id']}/nack", {"reason": "once"}), 200)
    expect(api.post(f"/tasks/{api.claimed(command)['id']}/abandon"), 200)
    held = api.claimed(command)
    expect(api.complete(held["id"]), 200)
    assert receiver.next().body["status"] == "COMPLETED"
    assert receiver.calls.empty()


def test_a_webhook_that_hangs_holds_up_nobody(
    api: Client, command: str, receiver: Receiver
) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        begin = time.monotonic()
        completed(api, command, url)
        assert time.monotonic() - begin < 5
        completed(api, command, receiver.url)
        receiver.next()


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:{port}/",
        "http://localhost:{port}/",
        "http://[::1]:{port}/",
        "http://[::ffff:127.0.0.1]:{port}/",
        "http://0.0.0.0:{port}/",
        "http://2130706433:{port}/",
        "http://10.0.0.1/",
        "http://192.168.1.1/",
        "http://169.254.169.254/latest/meta-data/",
        "http://[fd00::1]/",
        "http://[fe80::1]/",
    ],
)
def test_a_webhook_in_a_private_network_is_refused(
    start: Start, receiver: Receiver, url: str
) -> None:
    api = start(webhookAllowPrivate=False).client()
    url = url.format(port=receiver.url.rpartition(":")[2])
    refused(api.post("/tasks", {"command": "a", "payload": 1, "webhook": url}), 400)
    refused(api.post("/workers/subscriptions", {"callbackUrl": url}), 400)
    assert api.counts("a") == (0, 0, 0, 0)


@pytest.mark.parametrize(
    "url",
    [
        "nowhere",
        "ftp://example.org/",
        "http://",
        "//example.org/",
        "file:///etc/passwd",
        "http://user:password@example.org/",
        "https://example.org/" + "x" * 2048,
    ],
)
def test_a_webhook_that_is_no_url_is_refused(api: Client, command: str, url: str) -> None:
    refused(api.post("/tasks", {"command": command, "payload": 1, "webhook": url}), 400)
    assert api.counts(command) == (0, 0, 0, 0)


def test_a_result_is_still_told_after_the_host_was_stopped(
    start: Start, receiver: Receiver
) -> None:
    host = start()
    completed(host.client(), "a", receiver.url)
    assert host.stop() == 0
    assert receiver.next().body["status"] == "COMPLETED"
