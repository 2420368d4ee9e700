"""Figures for Prometheus."""

from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from client import Client, expect, refused, until
from conftest import Start
from host import Host
from receiver import Receiver
from test_static_tokens import PLAIN


class Figures:
    """What a host counts at one moment."""

    def __init__(self, api: Client) -> None:
        answer = api.get("/metrics")
        assert answer.status_code == 200
        assert answer.headers["Content-Type"].startswith("text/plain")
        self.families = {
            family.name: family for family in text_string_to_metric_families(answer.text)
        }

    def samples(self, name: str) -> list[Sample]:
        """All figures of a name."""
        families = self.families.values()
        return [one for family in families for one in family.samples if one.name == name]

    def value(self, name: str, **labels: str) -> float:
        """The figure with these labels; 0 if it is not there."""
        samples = [one for one in self.samples(name) if labels.items() <= one.labels.items()]
        return sum(sample.value for sample in samples)


def test_created_claimed_and_completed_tasks_are_counted(api: Client, command: str) -> None:
    for _ in range(3):
        api.create(command)
    expect(api.complete(api.claimed(command)["id"]), 200)
    failed = {"status": "FAILED", "error": "no ink"}
    expect(api.post(f"/tasks/{api.claimed(command)['id']}/result", failed), 200)
    figures = Figures(api)
    assert figures.value("codeq_task_created_total", command=command) == 3
    assert figures.value("codeq_task_claimed_total", command=command) == 2
    for status in ("COMPLETED", "FAILED"):
        labels = {"command": command, "status": status}
        assert figures.value("codeq_task_completed_total", **labels) == 1
        assert figures.value("codeq_task_processing_latency_seconds_count", **labels) == 1


def test_batches_are_counted_by_task(api: Client, command: str) -> None:
    tasks = [{"command": command, "payload": 1}] * 4 + [{"command": command}]
    expect(api.post("/tasks/batch", {"tasks": tasks}), 200)
    claim = {"commands": [command], "count": 4}
    claimed = expect(api.post("/tasks/claim/batch", claim), 200)["tasks"]
    results = [{"taskId": task["id"], "status": "COMPLETED", "result": {}} for task in claimed]
    expect(api.post("/tasks/batch/results", {"results": results + results[:1]}), 200)
    figures = Figures(api)
    assert figures.value("codeq_task_created_total", command=command) == 4
    assert figures.value("codeq_task_claimed_total", command=command) == 4
    assert figures.value("codeq_task_completed_total", command=command) == 4


def test_a_task_that_was_there_already_is_not_counted_again(api: Client, command: str) -> None:
    for _ in range(3):
        api.create(command, idempotencyKey=command)
    assert Figures(api).value("codeq_task_created_total", command=command) == 1


def test_leases_that_ran_out_are_counted(api: Client, command: str) -> None:
    api.create(command)
    api.claimed(command, leaseSeconds=1)
    api.claimed(command)
    assert Figures(api).value("codeq_lease_expired_total", command=command) == 1


def test_queues_have_their_depths(api: Client, command: str) -> None:
    api.buried(command)
    api.held(command)
    api.create(command, delaySeconds=3600)
    for _ in range(3):
        api.create(command)
    expected = {"ready": 3, "delayed": 1, "in_progress": 1, "dlq": 1}

    def depths() -> dict[str, float]:
        return {
            sample.labels["queue"]: sample.value
            for sample in Figures(api).samples("codeq_queue_depth")
            if sample.labels["command"] == command
        }

    # The backend is asked at most once a second.
    until(lambda: depths() == expected)
    assert Figures(api).value("codeq_dlq_depth", command=command) == 1


def test_subscriptions_are_counted(api: Client, command: str, receiver: Receiver) -> None:
    body = {"callbackUrl": receiver.url, "eventTypes": [command]}
    for _ in range(2):
        expect(api.post("/workers/subscriptions", body), 200)
    until(lambda: Figures(api).value("codeq_subscriptions_active", command=command) == 2)


def test_webhooks_are_counted_by_what_became_of_them(
    api: Client, command: str, receiver: Receiver
) -> None:
    receiver.answer_next(500)
    task = api.held(command, webhook=receiver.url)
    expect(api.complete(task["id"]), 200)

    def calls(outcome: str, kind: str = "task_result") -> float:
        labels = {"kind": kind, "command": command, "outcome": outcome}
        return Figures(api).value("codeq_webhook_deliveries_total", **labels)

    until(lambda: (calls("success"), calls("failure")) == (1, 1))
    expect(api.post("/workers/subscriptions", {"callbackUrl": receiver.url}), 200)
    api.create(command)
    until(lambda: calls("success", "queue_ready") == 1)


def test_calls_of_the_plugin_are_counted(api: Client, command: str, provider: str) -> None:
    before = Figures(api).value("codeq_plugin_calls_total", plugin=provider, operation="enqueue")
    api.create(command)
    figures = Figures(api)
    labels = {"plugin": provider, "operation": "enqueue"}
    assert figures.value("codeq_plugin_calls_total", **labels) == before + 1
    assert figures.value("codeq_plugin_call_duration_seconds_count", **labels) == before + 1


def test_requests_are_counted_by_route(api: Client, command: str) -> None:
    route = {"method": "GET", "route": "/v1/codeq/tasks/:id", "status": "404"}
    before = Figures(api).value("codeq_http_requests_total", **route)
    for n in range(3):
        refused(api.get(f"/tasks/{command}-{n}"), 404)
    assert Figures(api).value("codeq_http_requests_total", **route) == before + 3


def test_a_backend_that_answers_is_up(api: Client) -> None:
    assert Figures(api).value("codeq_backend_up") == 1


@pytest.mark.parametrize("name", ['quote"', "back\\slash", "汉字", "🚀", "curly{}", "a,b=c"])
def test_odd_commands_break_nothing(api: Client, command: str, name: str) -> None:
    api.create(name + command)
    labels = {"command": (name + command).lower()}
    assert Figures(api).value("codeq_task_created_total", **labels) == 1


def test_commands_in_any_case_are_one(api: Client, command: str) -> None:
    api.create(command)
    api.create(command.upper())
    assert Figures(api).value("codeq_task_created_total", command=command) == 2


def test_callers_cannot_make_figures_without_end(start: Start) -> None:
    api = start().client()
    for n in range(0, 1500, 100):
        tasks = [{"command": f"command-{m}", "payload": 1} for m in range(n, n + 100)]
        expect(api.post("/tasks/batch", {"tasks": tasks}), 200)
    figures = Figures(api)
    assert len(figures.samples("codeq_task_created_total")) <= 1001
    assert figures.value("codeq_task_created_total") == 1500
    for n in range(100):
        api.get(f"/nothing/{n}")
        api.send("GET", f"/v1/nothing/{n}")
    assert len(Figures(api).samples("codeq_http_requests_total")) < 100


def test_figures_are_for_everybody_who_reaches_the_host(start: Start) -> None:
    host: Host = start(**PLAIN)
    Figures(host.client())
    refused(host.client().get("/tasks/x"), 401)
