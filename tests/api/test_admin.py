"""What operators see and do: queues, lists of tasks, dead letters, cleaning up."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from client import Client, Json, expect, moment, refused
from conftest import Start

STATES = ("ready", "delayed", "inProgress", "dlq")
UNKNOWN = "00000000-0000-4000-8000-000000000000"


def one_of_each(api: Client, command: str) -> dict[str, str]:
    """A task in each state of a queue, and finished ones; answers their ids."""
    dead = api.buried(command)
    done = api.held(command)
    expect(api.complete(done["id"]), 200)
    failed = api.held(command)
    body = {"status": "FAILED", "error": "no ink"}
    expect(api.post(f"/tasks/{failed['id']}/result", body), 200)
    held = api.held(command)
    delayed = api.create(command, delaySeconds=3600)
    ready = api.create(command)
    tasks = (ready, delayed, held, dead, done, failed)
    return {
        name: task["id"] for name, task in zip((*STATES, "completed", "failed"), tasks, strict=True)
    }


def pages(get: Callable[[dict[str, Any]], Json], **query: Any) -> list[list[Json]]:
    """All pages of a list."""
    found = []
    while True:
        page = get(query)
        found.append(page["tasks"])
        if not page.get("nextCursor"):
            return found
        query["cursor"] = page["nextCursor"]
        assert len(found) < 1000


def ids(found: list[list[Json]]) -> list[str]:
    return [task["id"] for page in found for task in page]


class Lists:
    """The lists of a host."""

    def __init__(self, api: Client) -> None:
        self._api = api

    def queue(self, command: str, **query: Any) -> list[list[Json]]:
        """The tasks of a queue in one state."""
        path = f"/admin/queues/{command}/tasks"
        return pages(lambda query: expect(self._api.get(path, params=query), 200), **query)

    def tasks(self, **query: Any) -> list[list[Json]]:
        """The tasks of all queues."""
        return pages(
            lambda query: expect(self._api.get("/admin/tasks", params=query), 200), **query
        )


@pytest.fixture
def lists(api: Client) -> Lists:
    return Lists(api)


def test_the_counts_reconcile_with_the_tasks(api: Client, command: str) -> None:
    one_of_each(api, command)
    assert api.counts(command) == (1, 1, 1, 1)
    api.create(command)
    assert api.counts(command.upper()) == (2, 1, 1, 1)
    stats = expect(api.get(f"/admin/queues/{command.upper()}"), 200)
    assert stats["command"] == command.upper()


def test_every_queue_is_in_the_list_of_queues(api: Client, command: str) -> None:
    one_of_each(api, command)
    queues = expect(api.get("/admin/queues"), 200)["queues"]
    mine = [queue for queue in queues if queue["command"] == command]
    assert mine == [{"command": command, **dict.fromkeys(STATES, 1)}]


def test_a_queue_that_nobody_used_is_empty(api: Client, command: str) -> None:
    assert api.counts(command) == (0, 0, 0, 0)
    for odd in ("a%2Fb", "%F0%9F%9A%80", "a:b:c", "*", "%7Ba%7D"):
        assert api.counts(odd + command) == (0, 0, 0, 0)
    refused(api.get("/admin/queues/%20"), 400)


@pytest.mark.parametrize("state", STATES)
def test_the_tasks_of_a_queue_are_listed_by_state(
    api: Client, lists: Lists, command: str, state: str
) -> None:
    made = one_of_each(api, command)
    found = lists.queue(command.upper(), state=state)
    assert ids(found) == [made[state]]
    listed, task = found[0][0], api.task(made[state])
    assert {name: listed.get(name) for name in task} == task


def test_a_delayed_task_is_listed_with_its_time(api: Client, lists: Lists, command: str) -> None:
    api.create(command, delaySeconds=3600)
    (listed,) = lists.queue(command, state="delayed")[0]
    left = moment(listed["visibleAt"]) - datetime.now(UTC)
    assert timedelta(minutes=59) < left <= timedelta(hours=1)


@pytest.mark.parametrize("limit", [1, 3, 7, 500])
def test_a_list_comes_in_pages_without_gaps(
    api: Client, lists: Lists, command: str, limit: int
) -> None:
    tasks = [{"command": command, "payload": n, "priority": n % 10} for n in range(20)]
    results = expect(api.post("/tasks/batch", {"tasks": tasks}), 200)["results"]
    made = {result["task"]["id"] for result in results}
    for found in (
        lists.queue(command, state="ready", limit=limit),
        lists.tasks(command=command, limit=limit),
        lists.tasks(command=command, status="PENDING", limit=limit),
    ):
        assert all(len(page) <= limit for page in found)
        assert len(ids(found)) == 20
        assert set(ids(found)) == made


def test_a_list_without_a_limit_has_pages_of_100(api: Client, lists: Lists, command: str) -> None:
    tasks = [{"command": command, "payload": 1}] * 60
    for _ in range(2):
        expect(api.post("/tasks/batch", {"tasks": tasks}), 200)
    found = lists.queue(command, state="ready")
    assert len(found[0]) == 100
    assert len(set(ids(found))) == 120


def test_a_page_goes_on_where_the_last_one_ended_though_tasks_go(api: Client, command: str) -> None:
    made = [api.create(command)["id"] for _ in range(6)]
    path = f"/admin/queues/{command}/tasks?state=ready&limit=2"
    first = expect(api.get(path), 200)
    gone = {api.claimed(command)["id"], api.claimed(command)["id"]}
    rest = pages(
        lambda query: expect(api.get(path, params={"state": "ready", "limit": 2, **query}), 200),
        cursor=first["nextCursor"],
    )
    found = {task["id"] for task in first["tasks"]} | set(ids(rest))
    assert set(made) - gone <= found <= set(made)


def test_tasks_are_listed_by_command_status_and_state(
    api: Client, lists: Lists, command: str
) -> None:
    made = one_of_each(api, command)

    def named(**query: str) -> set[str]:
        found = ids(lists.tasks(command=command, **query))
        assert len(found) == len(set(found))
        return {name for name, task_id in made.items() if task_id in found}

    assert named() == set(made)
    assert named(status="PENDING") == {"ready", "delayed"}
    assert named(status="IN_PROGRESS") == {"inProgress"}
    assert named(status="COMPLETED") == {"completed"}
    assert named(status="FAILED") == {"failed", "dlq"}
    assert named(state="dlq") == {"dlq"}
    assert named(state="ready", status="PENDING") == {"ready"}
    assert named(state="ready", status="COMPLETED") == set()
    assert named(status="FAILED", state="dlq") == {"dlq"}


def test_all_tasks_of_the_tenant_are_listed(start: Start) -> None:
    api = start().client()
    made = {api.create(name)["id"] for name in ("one", "two", "three") for _ in range(3)}
    found = ids(Lists(api).tasks(limit=2))
    assert (len(found), set(found)) == (9, made)


@pytest.mark.parametrize(
    "query",
    [
        "state=ready&limit=501",
        "state=ready&limit=-1",
        "state=ready&limit=x",
        "state=ready&limit=1.5",
        "state=nowhere",
        "state=READY",
        "state=ready&cursor=nonsense",
        "state=ready&cursor=%00",
        "state=ready&cursor=" + "A" * 5000,
        "state=ready&state=dlq",
    ],
)
def test_a_list_that_makes_no_sense_is_refused(api: Client, command: str, query: str) -> None:
    refused(api.get(f"/admin/queues/{command}/tasks?{query}"), 400)
    refused(api.get(f"/admin/tasks?command={command}&{query}"), 400)


def test_the_state_of_a_queue_has_to_be_said(api: Client, command: str) -> None:
    refused(api.get(f"/admin/queues/{command}/tasks"), 400)
    refused(api.get("/admin/tasks?status=DONE"), 400)


def test_a_cursor_is_for_its_own_list(api: Client, command: str) -> None:
    for name in (command, command, command + "-other"):
        api.create(name)
    path = f"/admin/queues/{command}/tasks?state=ready&limit=1"
    cursor = expect(api.get(path), 200)["nextCursor"]
    expect(api.get(path, params={"state": "ready", "limit": 1, "cursor": cursor}), 200)
    for other in (f"/admin/queues/{command}-other/tasks", f"/admin/queues/{command}/tasks"):
        state = "ready" if other.endswith("-other/tasks") else "delayed"
        refused(api.get(other, params={"state": state, "cursor": cursor}), 400)


def test_a_dead_letter_gets_a_fresh_start(api: Client, command: str) -> None:
    dead = api.buried(command, maxAttempts=1)
    task = expect(api.post(f"/admin/tasks/{dead['id']}/requeue"), 200)
    assert (task["id"], task["status"]) == (dead["id"], "PENDING")
    assert task.get("attempts", 0) == 0
    assert api.counts(command) == (1, 0, 0, 0)
    held = api.claimed(command)
    assert (held["id"], held["attempts"]) == (dead["id"], 1)
    expect(api.complete(held["id"]), 200)


def test_only_a_dead_letter_gets_a_fresh_start(api: Client, command: str) -> None:
    made = one_of_each(api, command)
    for name, task_id in made.items():
        if name != "dlq":
            refused(api.post(f"/admin/tasks/{task_id}/requeue"), 409, "task_not_in_dlq")
    assert api.counts(command) == (1, 1, 1, 1)
    refused(api.post(f"/admin/tasks/{UNKNOWN}/requeue"), 404)


def test_a_requeued_task_wakes_a_waiting_claim(api: Client, command: str) -> None:
    from test_claims import while_waiting

    dead = api.buried(command)
    task = while_waiting(api, command, lambda: api.post(f"/admin/tasks/{dead['id']}/requeue"))
    assert task["id"] == dead["id"]


@pytest.mark.parametrize("state", ["ready", "delayed", "dlq", "completed", "failed"])
def test_a_task_that_nobody_holds_can_be_removed(api: Client, command: str, state: str) -> None:
    made = one_of_each(api, command)
    assert api.delete(f"/admin/tasks/{made[state]}").status_code == 204
    refused(api.get(f"/tasks/{made[state]}"), 404)
    refused(api.get(f"/tasks/{made[state]}/result"), 404, "task not found")
    refused(api.delete(f"/admin/tasks/{made[state]}"), 404)
    assert sum(api.counts(command)) == (3 if state in STATES else 4)


def test_a_task_that_is_held_cannot_be_removed(api: Client, command: str) -> None:
    task = api.held(command)
    refused(api.delete(f"/admin/tasks/{task['id']}"), 409, "task_in_progress")
    expect(api.complete(task["id"]), 200)


def test_all_dead_letters_of_a_queue_get_a_fresh_start(api: Client, command: str) -> None:
    dead = {api.buried(command)["id"] for _ in range(5)}
    path = f"/admin/queues/{command}/dlq/requeue"
    assert expect(api.post(f"{path}?limit=2"), 200) == {"requeued": 2, "remaining": True}
    assert expect(api.post(path), 200) == {"requeued": 3, "remaining": False}
    assert expect(api.post(path), 200) == {"requeued": 0, "remaining": False}
    assert {api.claimed(command)["id"] for _ in dead} == dead


def test_all_dead_letters_of_a_queue_are_removed(api: Client, command: str) -> None:
    dead = [api.buried(command)["id"] for _ in range(5)]
    api.create(command)
    path = f"/admin/queues/{command}/dlq/purge"
    assert expect(api.post(f"{path}?limit=2"), 200) == {"purged": 2, "remaining": True}
    assert expect(api.post(path), 200) == {"purged": 3, "remaining": False}
    assert api.counts(command) == (1, 0, 0, 0)
    for task_id in dead:
        refused(api.get(f"/tasks/{task_id}"), 404)


@pytest.mark.parametrize("limit", ["-1", "x", "1.5", "1001", "99999999999999999999"])
@pytest.mark.parametrize("action", ["requeue", "purge"])
def test_a_limit_that_makes_no_sense_changes_nothing(
    api: Client, command: str, action: str, limit: str
) -> None:
    api.buried(command)
    refused(api.post(f"/admin/queues/{command}/dlq/{action}?limit={limit}"), 400)
    assert api.counts(command) == (0, 0, 0, 1)


def test_a_cleanup_removes_what_is_past_its_retention(start: Start) -> None:
    api = start().client()
    made = one_of_each(api, "a")
    nothing = expect(api.post("/admin/tasks/cleanup"), 200)
    assert (nothing["deleted"], nothing["limit"]) == (0, 1000)
    assert abs(moment(nothing["before"]) - datetime.now(UTC)) < timedelta(minutes=1)
    later = (datetime.now(UTC) + timedelta(hours=25)).isoformat()
    answer = expect(api.post("/admin/tasks/cleanup", {"before": later, "limit": 2}), 200)
    assert (answer["deleted"], answer["limit"]) == (2, 2)
    assert moment(answer["before"]) - datetime.fromisoformat(later) < timedelta(seconds=1)
    expect(api.post("/admin/tasks/cleanup", {"before": later}), 200)
    refused(api.get(f"/tasks/{made['completed']}"), 404)
    refused(api.get(f"/tasks/{made['dlq']}"), 404)


@pytest.mark.parametrize(
    "body",
    [{"limit": -1}, {"limit": "1"}, {"limit": 1.5}, {"before": "now"}, {"before": 7}],
    ids=str,
)
def test_a_cleanup_that_makes_no_sense_is_refused(api: Client, body: Json) -> None:
    refused(api.post("/admin/tasks/cleanup", body), 400)


def test_a_long_list_is_quick(api: Client, lists: Lists, command: str) -> None:
    tasks = [{"command": command, "payload": "x" * 1000}] * 100
    for _ in range(10):
        expect(api.post("/tasks/batch", {"tasks": tasks}), 200)
    begin = time.monotonic()
    assert len(set(ids(lists.queue(command, state="ready", limit=500)))) == 1000
    assert time.monotonic() - begin < 10
