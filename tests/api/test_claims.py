"""Claims, and claims that wait."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from client import Client, Json, expect, moment, refused
from conftest import Start
from host import Host

#: By then, in seconds, a claim waits. Nothing outside a host tells when it does; a test whose claim
#: comes later than that still passes.
SETTLED = 0.3
#: How long, in seconds, a wait may be, and how soon it has to be over once there is a task.
WAIT, SOON = 20, 5.0


def while_waiting(api: Client, command: str, act: Callable[[], object]) -> Json:
    """Does something while a claim waits; answers what the claim got soon after."""
    with ThreadPoolExecutor(1) as waiter:
        waiting = waiter.submit(api.claim, command, waitSeconds=WAIT)
        time.sleep(SETTLED)
        act()
        begin = time.monotonic()
        task = waiting.result()
    assert task, "the claim got nothing"
    assert time.monotonic() - begin < SOON
    return task


def test_a_claimed_task_is_in_progress_under_a_lease(api: Client, command: str) -> None:
    task = api.create(command)
    begin = datetime.now(UTC)
    held = expect(api.post("/tasks/claim", {"commands": [command], "leaseSeconds": 60}), 200)
    assert (held["id"], held["status"]) == (task["id"], "IN_PROGRESS")
    assert (held["lastKnownLocation"], held["attempts"]) == ("INPROG_SET", 1)
    assert held["workerId"]
    left = moment(held["leaseUntil"]) - begin
    assert timedelta(seconds=59) <= left <= timedelta(seconds=70)
    assert api.task(task["id"]) == held
    assert api.counts(command) == (0, 0, 1, 0)


@pytest.mark.parametrize("lease", [{}, {"leaseSeconds": 0}, {"leaseSeconds": -3}])
def test_a_lease_that_is_not_said_is_300_seconds(api: Client, command: str, lease: Json) -> None:
    api.create(command)
    left = moment(api.claimed(command, **lease)["leaseUntil"]) - datetime.now(UTC)
    assert timedelta(seconds=280) < left < timedelta(seconds=310)


def test_a_queue_without_tasks_answers_204(api: Client, command: str) -> None:
    assert api.post("/tasks/claim", {"commands": [command]}).status_code == 204
    batch = {"commands": [command], "count": 3}
    assert api.post("/tasks/claim/batch", batch).status_code == 204


def test_one_task_is_claimed_once(api: Client, command: str) -> None:
    api.create(command)
    with ThreadPoolExecutor(10) as workers:
        claims = [workers.submit(api.claim, command) for _ in range(10)]
        assert sum(claim.result() is not None for claim in claims) == 1


def test_the_highest_priority_comes_first_and_then_the_first_that_came(
    api: Client, command: str
) -> None:
    made = [(n, api.create(command, priority=p)["id"]) for n, p in enumerate([0, 5, 9, 5, 0, 9])]
    order = [api.claimed(command)["id"] for _ in made]
    assert order == [dict(made)[n] for n in (2, 5, 1, 3, 0, 4)]


def test_commands_are_taken_in_the_order_given(api: Client, command: str) -> None:
    first, second = command + "-a", command + "-b"
    api.create(second, priority=9)
    api.create(first)
    claim = {"commands": [first, second]}
    assert expect(api.post("/tasks/claim", claim), 200)["command"] == first
    assert expect(api.post("/tasks/claim", claim), 200)["command"] == second


def test_commands_are_the_same_in_any_case(api: Client, command: str) -> None:
    task = api.create(command.upper())
    assert task["command"] == command.upper()
    assert api.claimed(command.title())["id"] == task["id"]


@pytest.mark.parametrize(
    "content", [b"", b"{}", b" \n", b'{"commands": []}', b'{"commands": null}']
)
def test_a_claim_that_names_no_command_takes_any(start: Start, content: bytes) -> None:
    api = start().client()
    assert api.post("/tasks/claim", content=content).status_code == 204
    ids = {api.create(name)["id"] for name in ("one", "two", "three")}
    claimed = {expect(api.post("/tasks/claim", content=content), 200)["id"] for _ in ids}
    assert claimed == ids


def test_a_batch_takes_up_to_its_count(api: Client, command: str) -> None:
    made = [api.create(command)["id"] for _ in range(12)]
    claim = {"commands": [command], "leaseSeconds": 60}
    first = expect(api.post("/tasks/claim/batch", {**claim, "count": 10}), 200)["tasks"]
    rest = expect(api.post("/tasks/claim/batch", {**claim, "count": 10}), 200)["tasks"]
    assert [task["id"] for task in first + rest] == made
    assert (len(first), len(rest)) == (10, 2)


@pytest.mark.parametrize("count", [None, 0, -1, 11, 2**32 + 1, "1", 1.5, []])
def test_a_count_is_1_to_10(api: Client, command: str, count: Any) -> None:
    refused(api.post("/tasks/claim/batch", {"commands": [command], "count": count}), 400)


@pytest.mark.parametrize(
    "body",
    [
        {"commands": "a"},
        {"commands": [7]},
        {"commands": [None]},
        {"leaseSeconds": "1"},
        {"leaseSeconds": 1.5},
        {"waitSeconds": "1"},
        {"waitSeconds": []},
    ],
    ids=str,
)
def test_a_claim_that_makes_no_sense_is_refused(api: Client, body: Json) -> None:
    refused(api.post("/tasks/claim", body), 400)
    refused(api.post("/tasks/claim/batch", {"count": 1, **body}), 400)


def test_a_task_that_arrives_wakes_a_waiting_claim(api: Client, command: str) -> None:
    while_waiting(api, command, lambda: api.create(command))


def test_a_batch_that_arrives_wakes_a_waiting_claim(api: Client, command: str) -> None:
    batch = {"tasks": [{"command": command, "payload": 1}]}
    while_waiting(api, command, lambda: api.post("/tasks/batch", batch))


def test_a_task_that_comes_due_wakes_a_waiting_claim(api: Client, command: str) -> None:
    while_waiting(api, command, lambda: api.create(command, delaySeconds=0.5))


def test_a_task_that_is_abandoned_wakes_a_waiting_claim(api: Client, command: str) -> None:
    task = api.held(command)
    again = while_waiting(api, command, lambda: api.post(f"/tasks/{task['id']}/abandon"))
    assert (again["id"], again["attempts"]) == (task["id"], 1)


def test_a_task_that_is_given_back_wakes_a_waiting_claim(api: Client, command: str) -> None:
    task = api.held(command)
    again = while_waiting(api, command, lambda: api.post(f"/tasks/{task['id']}/nack", {}))
    assert (again["id"], again["attempts"]) == (task["id"], 2)


def test_a_lease_that_runs_out_wakes_a_waiting_claim(api: Client, command: str) -> None:
    task = api.create(command)
    api.claimed(command, leaseSeconds=1)
    again = while_waiting(api, command, lambda: None)
    assert (again["id"], again["attempts"]) == (task["id"], 2)


def test_a_waiting_batch_is_woken_too(api: Client, command: str) -> None:
    claim = {"commands": [command], "count": 10, "waitSeconds": WAIT}
    with ThreadPoolExecutor(1) as waiter:
        waiting = waiter.submit(api.post, "/tasks/claim/batch", claim)
        time.sleep(SETTLED)
        task = api.create(command)
        tasks = expect(waiting.result(), 200)["tasks"]
    assert [task["id"] for task in tasks] == [task["id"]]


def test_a_claim_of_any_command_is_woken_too(start: Start) -> None:
    api = start().client()
    with ThreadPoolExecutor(1) as waiter:
        waiting = waiter.submit(api.post, "/tasks/claim", {"waitSeconds": WAIT})
        time.sleep(SETTLED)
        task = api.create("whatever")
        assert expect(waiting.result(), 200)["id"] == task["id"]


def test_many_waiting_claims_get_one_task_each(api: Client, command: str) -> None:
    with ThreadPoolExecutor(8) as waiters:
        waiting = [waiters.submit(api.claimed, command) for _ in range(8)]
        made = {api.create(command)["id"] for _ in range(8)}
        assert {claim.result()["id"] for claim in waiting} == made


def test_a_claim_waits_as_long_as_it_was_told(api: Client, command: str) -> None:
    begin = time.monotonic()
    assert api.claim(command, waitSeconds=1) is None
    assert 0.9 < time.monotonic() - begin < 1 + SOON


@pytest.mark.parametrize("wait", [0, -5, None])
def test_a_claim_that_is_not_told_to_wait_does_not(
    api: Client, command: str, wait: int | None
) -> None:
    begin = time.monotonic()
    assert api.claim(command, waitSeconds=wait) is None
    assert time.monotonic() - begin < SOON


def test_a_wait_beyond_30_seconds_is_taken_for_30(api: Client, command: str) -> None:
    task = api.create(command)
    claimed = api.claim(command, waitSeconds=10**9)
    assert claimed
    assert claimed["id"] == task["id"]


def test_a_task_for_a_worker_who_hung_up_goes_to_another(
    host: Host, api: Client, command: str
) -> None:
    body = f'{{"commands": ["{command}"], "waitSeconds": 30}}'
    head = f"POST /v1/codeq/tasks/claim HTTP/1.1\r\nHost: t\r\nContent-Length: {len(body)}\r\n\r\n"
    for _ in range(5):
        with host.connect() as connection:
            connection.sendall((head + body).encode())
            time.sleep(0.05)
    task = api.create(command)
    held = api.claimed(command)
    assert (held["id"], held["attempts"]) == (task["id"], 1)


def test_a_waiting_claim_is_answered_when_the_host_stops(start: Start) -> None:
    host = start()
    with ThreadPoolExecutor(1) as waiter:
        waiting = waiter.submit(host.client().claim, "never", waitSeconds=30)
        time.sleep(SETTLED)
        begin = time.monotonic()
        host._process.terminate()
        assert waiting.result() is None
    assert time.monotonic() - begin < SOON
