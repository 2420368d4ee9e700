"""How often callers may call."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from client import Client, Json, expect, refused
from conftest import Start
from test_static_tokens import OTHER, PRODUCER, WORKER, config, entry

TASK = {"command": "a", "payload": 1}
#: So rarely that no turn comes while a test runs.
RARELY = {"requestsPerMinute": 1, "burstSize": 2}


def limited(start: Start, **limits: Any) -> Any:
    producers = [entry(PRODUCER, "ann", ["admin"]), entry(OTHER, "eve", ["admin"])]
    workers = [entry(WORKER, "bob"), entry("other-worker", "cay")]
    return start(**config(producers, workers, rateLimit=limits))


def is_exceeded(answer: httpx.Response, scope: str, operation: str | None = None) -> None:
    """Whether an answer says that its caller calls too often, and when he may call again."""
    body = refused(answer, 429, "rate limit exceeded")
    assert body["scope"] == scope
    assert operation is None or body["operation"] == operation
    assert 1 <= body["retryAfterSeconds"] <= 60
    assert answer.headers["Retry-After"] == str(body["retryAfterSeconds"])


def test_a_producer_has_his_burst_and_then_waits_for_his_turn(start: Start) -> None:
    host = limited(start, producer=RARELY)
    producer, other = host.client(PRODUCER), host.client(OTHER)
    for _ in range(2):
        expect(producer.post("/tasks", TASK), 202)
    is_exceeded(producer.post("/tasks", TASK), "producer", "create_task")
    is_exceeded(producer.post("/tasks/batch", {"tasks": [TASK]}), "producer", "create_task")
    expect(other.post("/tasks", TASK), 202)
    assert producer.counts("a") == (3, 0, 0, 0)


def test_a_batch_counts_as_one_call(start: Start) -> None:
    producer = limited(start, producer=RARELY).client(PRODUCER)
    for _ in range(2):
        expect(producer.post("/tasks/batch", {"tasks": [TASK] * 50}), 200)
    is_exceeded(producer.post("/tasks/batch", {"tasks": [TASK]}), "producer")


def test_a_worker_has_his_burst_and_then_waits_for_his_turn(start: Start) -> None:
    host = limited(start, worker=RARELY)
    producer, worker = host.client(PRODUCER), host.client(WORKER)
    for _ in range(3):
        producer.create("a")
    held = worker.claimed("a")
    expect(worker.post("/tasks/claim/batch", {"count": 1}), 200)
    is_exceeded(worker.post("/tasks/claim", {}), "worker", "claim")
    is_exceeded(worker.post("/tasks/claim/batch", {"count": 1}), "worker", "claim")
    # Who holds a task may go on with it.
    expect(worker.post(f"/tasks/{held['id']}/heartbeat"), 200)
    expect(worker.complete(held["id"]), 200)
    expect(host.client("other-worker").post("/tasks/claim", {}), 200)


def test_an_admin_has_his_burst_and_then_waits_for_his_turn(start: Start) -> None:
    host = limited(start, admin=RARELY)
    for _ in range(2):
        expect(host.client(PRODUCER).post("/admin/tasks/cleanup"), 200)
    is_exceeded(host.client(PRODUCER).post("/admin/tasks/cleanup"), "admin", "cleanup")
    expect(host.client(OTHER).post("/admin/tasks/cleanup"), 200)


def test_who_is_refused_otherwise_spends_nothing(start: Start) -> None:
    host = limited(start, producer=RARELY, worker=RARELY, admin=RARELY)
    for _ in range(5):
        refused(host.client("wrong").post("/tasks", TASK), 401)
        refused(host.client(WORKER).post("/tasks", TASK), 401)
        refused(host.client(WORKER).get("/admin/queues"), 403)
    expect(host.client(PRODUCER).post("/tasks", TASK), 202)
    expect(host.client(WORKER).post("/tasks/claim", {}), 200)


def test_a_turn_comes_again(start: Start) -> None:
    often = {"requestsPerMinute": 600, "burstSize": 1}
    producer: Client = limited(start, producer=often).client(PRODUCER)
    made = 0
    for _ in range(1000):
        made += producer.post("/tasks", TASK).status_code == 202
        if made == 3:
            return
    raise AssertionError("no turn came")


@pytest.mark.parametrize(
    "off", [{}, {"requestsPerMinute": 0, "burstSize": 5}, {"requestsPerMinute": 5, "burstSize": 0}]
)
def test_a_limit_of_nothing_is_none(start: Start, off: Json) -> None:
    producer = limited(start, producer=off).client(PRODUCER)
    for _ in range(20):
        expect(producer.post("/tasks", TASK), 202)


def test_refused_calls_are_counted(start: Start) -> None:
    host = limited(start, producer=RARELY)
    producer = host.client(PRODUCER)
    refusals = [producer.post("/tasks", TASK).status_code for _ in range(6)].count(429)
    assert refusals == 4
    labels = 'scope="producer"', 'operation="create_task"'
    lines = host.client(PRODUCER).get("/metrics").text.splitlines()
    hits = [line for line in lines if line.startswith("codeq_rate_limit_hits_total{")]
    hits = [line for line in hits if all(label in line for label in labels)]
    assert [float(line.split()[-1]) for line in hits] == [4]
