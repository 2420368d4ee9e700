"""Tasks and results by the hundred, each on its own."""

from __future__ import annotations

from typing import Any

import pytest

from client import Client, Json, expect, refused


def created(api: Client, tasks: list[Any]) -> list[Json]:
    return expect(api.post("/tasks/batch", {"tasks": tasks}), 200)["results"]


def handed_in(api: Client, results: list[Any]) -> list[Json]:
    return expect(api.post("/tasks/batch/results", {"results": results}), 200)["results"]


def done(task_id: str) -> Json:
    return {"taskId": task_id, "status": "COMPLETED", "result": {"ok": True}}


def test_each_task_of_a_batch_is_created_on_its_own(api: Client, command: str) -> None:
    good = {"command": command, "payload": {"n": 1}}
    answers = created(
        api, [good, {"payload": 1}, {**good, "priority": 9}, "no task", {**good, "runAt": "soon"}]
    )
    assert ["task" in answer for answer in answers] == [True, False, True, False, False]
    assert all(isinstance(answer["error"], str) for answer in answers if "task" not in answer)
    assert all(len(answer) == 1 for answer in answers)
    assert answers[2]["task"]["priority"] == 9
    assert api.task(answers[0]["task"]["id"]) == answers[0]["task"]
    assert api.counts(command) == (2, 0, 0, 0)


def test_a_batch_may_have_100_tasks_and_answers_in_order(api: Client, command: str) -> None:
    tasks = [{"command": command, "payload": n} for n in range(100)]
    answers = created(api, tasks)
    assert [answer["task"]["payload"] for answer in answers] == [str(n) for n in range(100)]
    assert api.counts(command) == (100, 0, 0, 0)


def test_one_idempotency_key_in_a_batch_is_one_task(api: Client, command: str) -> None:
    task = {"command": command, "payload": 1, "idempotencyKey": command}
    answers = created(api, [task, task, {**task, "idempotencyKey": command + "!"}])
    first, second, third = (answer["task"]["id"] for answer in answers)
    assert first == second != third
    assert api.counts(command) == (2, 0, 0, 0)


@pytest.mark.parametrize(
    "tasks", [[], None, {}, "tasks", 7, [{"command": "a", "payload": 1}] * 101]
)
def test_a_batch_has_1_to_100_tasks(api: Client, tasks: Any) -> None:
    refused(api.post("/tasks/batch", {"tasks": tasks}), 400)


def test_each_result_of_a_batch_is_taken_in_on_its_own(api: Client, command: str) -> None:
    first, second, third = (api.held(command)["id"] for _ in range(3))
    pending = api.create(command)["id"]
    answers = handed_in(
        api,
        [
            done(first),
            done(first),
            {"taskId": second, "status": "FAILED", "error": "no ink"},
            {"taskId": third, "status": "DONE"},
            {"taskId": third, "status": "COMPLETED"},
            {"taskId": third, "status": "FAILED", "error": " "},
            done(pending),
            done("nothing"),
            {"status": "COMPLETED", "result": {}},
            7,
        ],
    )
    ids = [first, first, second, third, third, third, pending, "nothing", "", ""]
    assert [answer["taskId"] for answer in answers] == ids
    assert ["result" in answer for answer in answers] == [True, False, True] + [False] * 7
    assert all(isinstance(answer["error"], str) for answer in answers if "result" not in answer)
    assert answers[1]["error"] == answers[6]["error"] == "not-in-progress"
    assert answers[2]["result"]["error"] == "no ink"
    assert [api.task(task)["status"] for task in (first, second, third, pending)] == [
        "COMPLETED",
        "FAILED",
        "IN_PROGRESS",
        "PENDING",
    ]


@pytest.mark.parametrize("results", [[], None, {}, "results", 7, [done("a")] * 101])
def test_a_batch_has_1_to_100_results(api: Client, results: Any) -> None:
    refused(api.post("/tasks/batch/results", {"results": results}), 400)


def test_a_hundred_tasks_are_claimed_and_finished_in_batches(api: Client, command: str) -> None:
    created(api, [{"command": command, "payload": n} for n in range(100)])
    finished: set[str] = set()
    while len(finished) < 100:
        claim = {"commands": [command], "count": 10}
        tasks = expect(api.post("/tasks/claim/batch", claim), 200)["tasks"]
        answers = handed_in(api, [done(task["id"]) for task in tasks])
        finished |= {answer["result"]["taskId"] for answer in answers}
    assert api.counts(command) == (0, 0, 0, 0)
