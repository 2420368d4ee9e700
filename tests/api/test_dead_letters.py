"""Tasks that are given back as failed: they come back after a while, or are dead letters."""

from __future__ import annotations

import pytest

from client import Client, Json, expect, refused
from conftest import Start


def nack(api: Client, task: Json, **body: object) -> Json:
    return expect(api.post(f"/tasks/{task['id']}/nack", body), 200)


def test_a_nack_without_a_body_brings_the_task_back_after_the_backoff(
    api: Client, command: str
) -> None:
    task = api.held(command)
    answer = expect(api.post(f"/tasks/{task['id']}/nack"), 200)
    assert answer == {"status": "requeued", "delaySeconds": 0}
    again = api.claimed(command)
    assert (again["id"], again["attempts"]) == (task["id"], 2)


def test_a_nack_that_names_a_delay_brings_the_task_back_after_it(api: Client, command: str) -> None:
    task = api.held(command)
    assert nack(api, task, delaySeconds=1) == {"status": "requeued", "delaySeconds": 1}
    assert api.counts(command) == (0, 1, 0, 0)
    assert api.claim(command) is None
    assert api.claimed(command)["id"] == task["id"]


def test_the_reason_stays_with_the_task(api: Client, command: str) -> None:
    task = api.held(command)
    nack(api, task, reason="printer on fire", delaySeconds=600)
    kept = api.task(task["id"])
    assert (kept["status"], kept["error"]) == ("PENDING", "printer on fire")
    assert kept["lastKnownLocation"] == "DELAYED_ZSET"


def test_a_delay_is_no_longer_than_the_longest_backoff(api: Client, command: str) -> None:
    assert nack(api, api.held(command), delaySeconds=1e6)["delaySeconds"] == 900


@pytest.mark.parametrize(
    "body",
    [{"delaySeconds": -1}, {"delaySeconds": "1"}, {"reason": 7}, {"reason": []}],
    ids=str,
)
def test_a_nack_that_makes_no_sense_is_refused(api: Client, command: str, body: Json) -> None:
    task = api.held(command)
    refused(api.post(f"/tasks/{task['id']}/nack", body), 400)
    assert api.task(task["id"]) == task


def test_a_nack_of_the_last_attempt_is_a_dead_letter(api: Client, command: str) -> None:
    task = api.create(command, maxAttempts=2)
    assert nack(api, api.claimed(command), reason="first")["status"] == "requeued"
    assert nack(api, api.claimed(command), reason="second") == {"status": "dlq", "delaySeconds": 0}
    dead = api.task(task["id"])
    assert (dead["status"], dead["lastKnownLocation"]) == ("FAILED", "DLQ_SET")
    assert (dead["error"], dead["attempts"]) == ("second", 2)
    assert api.claim(command) is None
    assert api.counts(command) == (0, 0, 0, 1)


def test_a_dead_letter_without_a_reason_says_why(api: Client, command: str) -> None:
    task = api.held(command, maxAttempts=1)
    nack(api, task)
    assert api.task(task["id"])["error"] == "MAX_ATTEMPTS"


def test_a_task_is_delivered_as_often_as_it_may_be(api: Client, command: str) -> None:
    api.create(command, maxAttempts=4)
    for attempt in range(1, 5):
        task = api.claimed(command)
        assert task["attempts"] == attempt
        nack(api, task)
    assert api.counts(command) == (0, 0, 0, 1)


@pytest.mark.parametrize(
    ("policy", "delays"),
    [
        ("fixed", [(2, 2), (2, 2), (2, 2)]),
        ("linear", [(2, 2), (4, 4), (5, 5)]),
        ("exponential", [(4, 4), (5, 5), (5, 5)]),
        ("exp_equal_jitter", [(2, 4), (3, 5), (3, 5)]),
        ("exp_full_jitter", [(0, 4), (0, 5), (0, 5)]),
    ],
)
def test_the_backoff_follows_its_policy(
    start: Start, policy: str, delays: list[tuple[int, int]]
) -> None:
    api = start(backoffPolicy=policy, backoffBaseSeconds=2, backoffMaxSeconds=5).client()
    for tries, (least, most) in enumerate(delays):
        task = api.held("retried")
        for _ in range(tries):
            nack(api, task, delaySeconds=0)
            task = api.claimed("retried")
        assert least <= nack(api, task)["delaySeconds"] <= most
