"""Handing in results, reading them, and waiting for them."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from client import Client, Json, expect, moment, refused

#: In seconds: by when a reader waits, how long he may have to, and how soon he has his answer once
#: there is one.
SETTLED, WAIT, SOON = 0.3, 20, 5.0


def test_a_completed_task_has_its_result(api: Client, command: str) -> None:
    task = api.held(command)
    record = expect(api.complete(task["id"], {"url": "https://example.org/7.pdf"}), 200)
    assert (record["taskId"], record["status"]) == (task["id"], "COMPLETED")
    assert record["result"] == {"url": "https://example.org/7.pdf"}
    assert abs(moment(record["completedAt"]) - datetime.now(UTC)) < timedelta(seconds=60)
    both = expect(api.get(f"/tasks/{task['id']}/result"), 200)
    assert both["result"] == record
    assert both["task"] == api.task(task["id"])
    assert (both["task"]["status"], both["task"]["lastKnownLocation"]) == ("COMPLETED", "NONE")
    assert "leaseUntil" not in both["task"]
    assert api.counts(command) == (0, 0, 0, 0)


def test_a_failed_task_has_its_error(api: Client, command: str) -> None:
    task = api.held(command)
    body = {"status": "FAILED", "error": "no ink", "result": {"pages": 3}}
    record = expect(api.post(f"/tasks/{task['id']}/result", body), 200)
    assert (record["status"], record["error"]) == ("FAILED", "no ink")
    assert record["result"] == {"pages": 3}
    kept = api.task(task["id"])
    assert (kept["status"], kept["lastKnownLocation"], kept["error"]) == (
        "FAILED",
        "NONE",
        "no ink",
    )
    assert api.counts(command) == (0, 0, 0, 0)


def test_a_result_is_kept_to_the_letter(api: Client, command: str) -> None:
    task = api.held(command)
    text = '{"z": 1.50, "a": 123456789012345678901234567890.5, "t": "\\ud83d\\ude80", "e": 1e400}'
    body = f'{{"status": "COMPLETED", "result": {text}}}'.encode()
    assert text in api.post(f"/tasks/{task['id']}/result", content=body).text
    assert text in api.get(f"/tasks/{task['id']}/result").text


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"status": ""},
        {"status": "completed", "result": {}},
        {"status": "PENDING", "result": {}},
        {"status": "IN_PROGRESS", "result": {}},
        {"status": 7, "result": {}},
        {"status": "COMPLETED"},
        {"status": "COMPLETED", "result": None},
        {"status": "COMPLETED", "result": []},
        {"status": "COMPLETED", "result": "{}"},
        {"status": "COMPLETED", "result": 7},
        {"status": "FAILED"},
        {"status": "FAILED", "error": ""},
        {"status": "FAILED", "error": " \n"},
        {"status": "FAILED", "error": 7},
    ],
    ids=str,
)
def test_a_result_that_makes_no_sense_is_refused(api: Client, command: str, body: Json) -> None:
    task = api.held(command)
    refused(api.post(f"/tasks/{task['id']}/result", body), 400)
    assert api.task(task["id"]) == task


def test_a_second_completion_changes_nothing(api: Client, command: str) -> None:
    task = api.held(command)
    expect(api.complete(task["id"], {"first": True}), 200)
    refused(api.complete(task["id"], {"second": True}), 409, "not-in-progress")
    kept = expect(api.get(f"/tasks/{task['id']}/result"), 200)["result"]
    assert kept["result"] == {"first": True}


def test_of_many_completions_at_once_one_counts(api: Client, command: str) -> None:
    task = api.held(command)
    with ThreadPoolExecutor(10) as workers:
        racing = [workers.submit(api.complete, task["id"], {"n": n}) for n in range(10)]
        codes = sorted(racer.result().status_code for racer in racing)
    assert codes == [200] + [409] * 9


def test_a_task_that_is_not_there_has_no_result(api: Client) -> None:
    refused(api.get("/tasks/nothing/result"), 404, "task not found")
    refused(api.get("/tasks/nothing/result?waitSeconds=60"), 404, "task not found")


def test_a_task_that_is_not_done_has_no_result(api: Client, command: str) -> None:
    for task in (api.create(command), api.held(command + "-held"), api.buried(command + "-dead")):
        refused(api.get(f"/tasks/{task['id']}/result"), 404, "result not found")


def test_a_reader_who_waits_has_the_result_when_it_is_there(api: Client, command: str) -> None:
    task = api.held(command)
    with ThreadPoolExecutor(3) as readers:
        path = f"/tasks/{task['id']}/result?waitSeconds={WAIT}"
        waiting = [readers.submit(api.get, path) for _ in range(3)]
        time.sleep(SETTLED)
        record = expect(api.complete(task["id"]), 200)
        begin = time.monotonic()
        assert [expect(reader.result(), 200)["result"] for reader in waiting] == [record] * 3
    assert time.monotonic() - begin < SOON


def test_a_reader_is_told_after_the_wait_that_there_is_no_result(api: Client, command: str) -> None:
    task = api.create(command)
    begin = time.monotonic()
    refused(api.get(f"/tasks/{task['id']}/result?waitSeconds=1"), 404, "result not found")
    assert 0.9 < time.monotonic() - begin < 1 + SOON


@pytest.mark.parametrize(
    "query",
    ["waitSeconds=soon", "waitSeconds=1.5", "waitSeconds=1&waitSeconds=2", "waitSeconds=9e9"],
)
def test_a_wait_that_makes_no_sense_is_refused(api: Client, command: str, query: str) -> None:
    task = api.create(command)
    refused(api.get(f"/tasks/{task['id']}/result?{query}"), 400)


def test_a_wait_out_of_range_is_brought_within_it(api: Client, command: str) -> None:
    task = api.held(command)
    refused(api.get(f"/tasks/{task['id']}/result?waitSeconds=-5"), 404, "result not found")
    expect(api.complete(task["id"]), 200)
    expect(api.get(f"/tasks/{task['id']}/result?waitSeconds=100000"), 200)
