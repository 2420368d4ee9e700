"""Creating tasks, and reading them."""

from __future__ import annotations

import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from client import Client, expect, moment, refused

#: The id of no task.
UNKNOWN = "00000000-0000-4000-8000-000000000000"


def test_a_new_task_is_pending_and_says_so(api: Client, command: str) -> None:
    before = datetime.now(UTC) - timedelta(seconds=1)
    task = api.create(command, {"page": 7})
    assert uuid.UUID(task["id"]).version == 4
    assert task["command"] == command
    assert (task["status"], task["lastKnownLocation"]) == ("PENDING", "PENDING_LIST")
    assert (task["tenantId"], task["maxAttempts"]) == ("default", 5)
    assert before < moment(task["createdAt"]) == moment(task["updatedAt"])
    assert not {"workerId", "leaseUntil", "error", "webhook", "attempts", "priority"} & set(task)


def test_a_task_is_read_as_it_was_created(api: Client, command: str) -> None:
    task = api.create(command, {"page": 7}, priority=3, maxAttempts=2)
    assert api.task(task["id"]) == task


def test_a_task_keeps_what_its_producer_said(api: Client, command: str) -> None:
    task = api.create(command, priority=4, maxAttempts=9, webhook="http://127.0.0.1:1/hook")
    assert (task["priority"], task["maxAttempts"]) == (4, 9)
    assert task["webhook"] == "http://127.0.0.1:1/hook"


@pytest.mark.parametrize(
    "payload",
    ['{"a": [1, 2.50, null], "z": "ü\\u0000🚀"}', "[]", "false", "0", '""', "1e400", '"text"'],
)
def test_a_payload_is_kept_to_the_letter(api: Client, command: str, payload: str) -> None:
    body = f'{{"command": "{command}", "payload": {payload}}}'.encode()
    task = expect(api.post("/tasks", content=body), 202)
    assert task["payload"] == payload
    assert api.claimed(command)["payload"] == payload


@pytest.mark.parametrize(("asked", "kept"), [(-5, None), (0, None), (9, 9), (10, 9), (2**40, 9)])
def test_a_priority_is_brought_within_0_to_9(
    api: Client, command: str, asked: int, kept: int | None
) -> None:
    assert api.create(command, priority=asked).get("priority") == kept


@pytest.mark.parametrize("attempts", [0, -1, None])
def test_attempts_that_are_not_said_are_the_configured_ones(
    api: Client, command: str, attempts: int | None
) -> None:
    assert api.create(command, maxAttempts=attempts)["maxAttempts"] == 5


@pytest.mark.parametrize(
    "body",
    [
        {"payload": 1},
        {"command": "", "payload": 1},
        {"command": "  ", "payload": 1},
        {"command": "a\nb", "payload": 1},
        {"command": "a" * 257, "payload": 1},
        {"command": 7, "payload": 1},
        {"command": "a"},
        {"command": "a", "payload": None},
        {"command": "a", "payload": 1, "priority": "high"},
        {"command": "a", "payload": 1, "priority": 1.5},
        {"command": "a", "payload": 1, "maxAttempts": "many"},
        {"command": "a", "payload": 1, "delaySeconds": -1},
        {"command": "a", "payload": 1, "delaySeconds": "1"},
        {"command": "a", "payload": 1, "runAt": "tomorrow"},
        {"command": "a", "payload": 1, "runAt": 7},
        {"command": "a", "payload": 1, "webhook": "nowhere"},
        {"command": "a", "payload": 1, "webhook": "ftp://example.org/"},
        {"command": "a", "payload": 1, "webhook": "http://"},
        {"command": "a", "payload": 1, "idempotencyKey": 7},
        {"command": "a", "payload": 1, "idempotencyKey": "a\0b"},
    ],
    ids=str,
)
def test_a_task_that_makes_no_sense_is_refused(api: Client, body: dict[str, Any]) -> None:
    refused(api.post("/tasks", body), 400)


@pytest.mark.parametrize(
    "name", ["a:b", "{a}", "*", "a b", "汉字", "🚀", "%s", "../..", 'a"b', "a\\b", "a" * 256]
)
def test_a_command_may_have_any_name(api: Client, command: str, name: str) -> None:
    name = (name + command)[-256:]
    task = api.create(name)
    held = api.claimed(name)
    assert (held["id"], held["command"]) == (task["id"], name)


def test_a_task_in_the_future_is_delayed(api: Client, command: str) -> None:
    task = api.create(command, delaySeconds=3600)
    assert (task["status"], task["lastKnownLocation"]) == ("PENDING", "DELAYED_ZSET")
    assert api.claim(command) is None
    assert api.counts(command) == (0, 1, 0, 0)


def test_a_delayed_task_is_claimable_when_its_time_has_come(api: Client, command: str) -> None:
    begin = datetime.now(UTC)
    task = api.create(command, delaySeconds=1.2)
    assert api.claimed(command)["id"] == task["id"]
    assert datetime.now(UTC) - begin >= timedelta(seconds=1.2)


def test_run_at_wins_over_a_delay(api: Client, command: str) -> None:
    run_at = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    api.create(command, runAt=run_at, delaySeconds=0)
    assert api.counts(command) == (0, 1, 0, 0)
    api.create(command, runAt="2001-01-01T00:00:00+02:00", delaySeconds=3600)
    assert api.counts(command) == (1, 1, 0, 0)


def test_run_at_in_the_past_means_now(api: Client, command: str) -> None:
    for past in ("1999-12-31T23:59:59Z", "0000-01-01T00:00:00Z", "2020-02-29T12:00:00.5+05:30"):
        assert api.create(command, runAt=past)["lastKnownLocation"] == "PENDING_LIST"
    assert api.counts(command) == (3, 0, 0, 0)


def test_a_delay_beyond_all_measure_is_kept(api: Client, command: str) -> None:
    for delay in (1e18, 1e308, 2**63 - 1):
        task = api.create(command, delaySeconds=delay)
        assert api.task(task["id"])["lastKnownLocation"] == "DELAYED_ZSET"


def test_tasks_with_one_idempotency_key_are_one_task(api: Client, command: str) -> None:
    first = api.create(command, "first", idempotencyKey=command)
    second = api.create(command, "second", idempotencyKey=command)
    assert (second["id"], second["payload"]) == (first["id"], '"first"')
    assert api.counts(command) == (1, 0, 0, 0)
    assert api.create(command, idempotencyKey=command + "!")["id"] != first["id"]


def test_an_idempotency_key_outlives_the_end_of_its_task(api: Client, command: str) -> None:
    task = api.create(command, idempotencyKey=command)
    api.complete(api.claimed(command)["id"]).raise_for_status()
    again = api.create(command, idempotencyKey=command)
    assert (again["id"], again["status"]) == (task["id"], "COMPLETED")


def test_many_that_race_with_one_idempotency_key_get_one_task(api: Client, command: str) -> None:
    with ThreadPoolExecutor(20) as racers:
        racing = [racers.submit(api.create, command, idempotencyKey=command) for _ in range(20)]
        assert len({racer.result()["id"] for racer in racing}) == 1
    assert api.counts(command) == (1, 0, 0, 0)


def test_a_blank_idempotency_key_is_none(api: Client, command: str) -> None:
    ids = {api.create(command, idempotencyKey=key)["id"] for key in ("", " ", None, None)}
    assert len(ids) == 4


@pytest.mark.parametrize("task_id", [UNKNOWN, "x", "%20", "a%2Fb", "%00", "x" * 8000])
def test_a_task_that_is_not_there_is_not_found(api: Client, task_id: str) -> None:
    refused(api.get(f"/tasks/{task_id}"), 404)


def test_the_trace_of_the_producer_stays_with_the_task(api: Client, command: str) -> None:
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    headers = {"traceparent": parent, "tracestate": "vendor=value"}
    body = {"command": command, "payload": 1}
    task = expect(api.post("/tasks", body, headers=headers), 202)
    assert task["traceParent"].split("-")[1] == parent.split("-")[1]
    assert task["traceState"] == "vendor=value"
