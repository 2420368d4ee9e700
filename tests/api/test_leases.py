"""Leases: heartbeats, giving back, running out."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from client import Client, Json, expect, moment, refused

#: What a worker may do with a task that it holds.
ACTIONS = ("heartbeat", "abandon", "nack", "result")
RESULT = {"status": "COMPLETED", "result": {}}


def left(task: Json) -> timedelta:
    return moment(task["leaseUntil"]) - datetime.now(UTC)


def test_a_heartbeat_moves_the_end_of_the_lease(api: Client, command: str) -> None:
    task = api.held(command)
    answer = api.post(f"/tasks/{task['id']}/heartbeat", {"extendSeconds": 1000})
    assert expect(answer, 200) == {"ok": True}
    assert timedelta(seconds=980) < left(api.task(task["id"])) < timedelta(seconds=1010)


@pytest.mark.parametrize("content", [b"", b"{}", b'{"extendSeconds": 0}', b'{"extendSeconds": -1}'])
def test_a_heartbeat_that_does_not_say_extends_by_the_usual_lease(
    api: Client, command: str, content: bytes
) -> None:
    api.create(command)
    task = api.claimed(command, leaseSeconds=30)
    expect(api.post(f"/tasks/{task['id']}/heartbeat", content=content), 200)
    assert timedelta(seconds=280) < left(api.task(task["id"])) < timedelta(seconds=310)


def test_heartbeats_keep_a_task(api: Client, command: str) -> None:
    api.create(command)
    task = api.claimed(command, leaseSeconds=1)
    expect(api.post(f"/tasks/{task['id']}/heartbeat", {"extendSeconds": 60}), 200)
    assert api.claim(command, waitSeconds=2) is None
    expect(api.complete(task["id"]), 200)


def test_an_abandoned_task_is_claimable_at_once_and_its_delivery_does_not_count(
    api: Client, command: str
) -> None:
    task = api.held(command, maxAttempts=1)
    for _ in range(3):
        assert expect(api.post(f"/tasks/{task['id']}/abandon"), 200) == {"status": "requeued"}
        assert api.counts(command) == (1, 0, 0, 0)
        again = api.claimed(command)
        assert (again["id"], again["attempts"]) == (task["id"], 1)


def test_a_task_may_be_abandoned_with_a_body_or_without(api: Client, command: str) -> None:
    for options in ({}, {"json": {}}, {"content": b"{}"}):
        task = api.held(command)
        expect(api.post(f"/tasks/{task['id']}/abandon", **options), 200)
        expect(api.complete(api.claimed(command)["id"]), 200)


def test_a_lease_that_runs_out_brings_the_task_back(api: Client, command: str) -> None:
    task = api.create(command)
    first = api.claimed(command, leaseSeconds=1)
    second = api.claimed(command)
    assert (second["id"], second["attempts"]) == (task["id"], 2)
    assert datetime.now(UTC) >= moment(first["leaseUntil"])


def test_a_lease_that_runs_out_on_the_last_attempt_is_a_dead_letter(
    api: Client, command: str
) -> None:
    task = api.create(command, maxAttempts=1)
    api.claimed(command, leaseSeconds=1)
    assert api.claim(command, waitSeconds=3) is None
    dead = api.task(task["id"])
    assert (dead["status"], dead["lastKnownLocation"]) == ("FAILED", "DLQ_SET")
    assert dead["error"] == "LEASE_EXPIRED"
    assert api.counts(command) == (0, 0, 0, 1)


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("task_id", ["00000000-0000-4000-8000-000000000000", "x", "a%2Fb", "%00"])
def test_a_task_that_is_not_there_is_not_found(api: Client, action: str, task_id: str) -> None:
    refused(api.post(f"/tasks/{task_id}/{action}", RESULT), 404)


@pytest.mark.parametrize("action", ACTIONS)
def test_a_task_that_nobody_holds_cannot_be_touched(api: Client, command: str, action: str) -> None:
    task = api.create(command)
    refused(api.post(f"/tasks/{task['id']}/{action}", RESULT), 409, "not-in-progress")
    assert api.task(task["id"]) == task


@pytest.mark.parametrize("action", ACTIONS)
def test_a_task_that_is_done_cannot_be_touched(api: Client, command: str, action: str) -> None:
    task = api.held(command)
    expect(api.complete(task["id"]), 200)
    done = api.task(task["id"])
    refused(api.post(f"/tasks/{task['id']}/{action}", RESULT), 409, "not-in-progress")
    assert api.task(task["id"]) == done


@pytest.mark.parametrize("action", ACTIONS)
def test_a_dead_letter_cannot_be_touched(api: Client, command: str, action: str) -> None:
    dead = api.buried(command)
    refused(api.post(f"/tasks/{dead['id']}/{action}", RESULT), 409, "not-in-progress")
    assert api.counts(command) == (0, 0, 0, 1)


@pytest.mark.parametrize("extend", ["1", [], 1.5, True])
def test_an_extension_that_makes_no_sense_is_refused(
    api: Client, command: str, extend: object
) -> None:
    task = api.held(command)
    refused(api.post(f"/tasks/{task['id']}/heartbeat", {"extendSeconds": extend}), 400)
    assert api.task(task["id"])["leaseUntil"] == task["leaseUntil"]
