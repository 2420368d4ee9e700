"""Workers who are told that there is something to do."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from client import Client, Json, expect, moment, refused
from conftest import Start
from host import QUICK
from receiver import Receiver
from test_static_tokens import OTHER, PRODUCER, WORKER, config, entry

SECRET = QUICK["webhookHmacSecret"]


def subscribed(api: Client, receiver: Receiver, *commands: str, **fields: Any) -> Json:
    body = {
        "callbackUrl": f"{receiver.url}/{fields.pop('path', 'ready')}",
        "eventTypes": list(commands),
        "minIntervalSeconds": 1,
        **fields,
    }
    return expect(api.post("/workers/subscriptions", body), 200)


def test_a_subscription_has_an_id_and_an_end(api: Client, command: str, receiver: Receiver) -> None:
    subscription = subscribed(api, receiver, command)
    assert set(subscription) == {"subscriptionId", "expiresAt"}
    left = moment(subscription["expiresAt"]) - datetime.now(UTC)
    assert timedelta(seconds=280) < left < timedelta(seconds=310)


def created(api: Client, command: str) -> None:
    api.create(command)


def created_in_a_batch(api: Client, command: str) -> None:
    tasks = [{"command": command, "payload": 1}] * 3
    expect(api.post("/tasks/batch", {"tasks": tasks}), 200)


def come_due(api: Client, command: str) -> None:
    api.create(command, delaySeconds=0.5)


def abandoned(api: Client, task: Json) -> None:
    expect(api.post(f"/tasks/{task['id']}/abandon"), 200)


def given_back(api: Client, task: Json) -> None:
    expect(api.post(f"/tasks/{task['id']}/nack", {"delaySeconds": 0}), 200)


def given_back_for_a_while(api: Client, task: Json) -> None:
    expect(api.post(f"/tasks/{task['id']}/nack", {"delaySeconds": 1}), 200)


def expired(api: Client, task: Json) -> None:
    expect(api.post(f"/tasks/{task['id']}/heartbeat", {"extendSeconds": 1}), 200)


def requeued(api: Client, task: Json) -> None:
    expect(api.post(f"/tasks/{task['id']}/nack", {}), 200)
    expect(api.post(f"/admin/tasks/{task['id']}/requeue"), 200)


@pytest.mark.parametrize("arrive", [created, created_in_a_batch, come_due])
def test_a_subscriber_is_told_of_new_tasks(
    api: Client, command: str, receiver: Receiver, arrive: Callable[[Client, str], None]
) -> None:
    subscribed(api, receiver, command.upper())
    begin = datetime.now(UTC)
    arrive(api, command)
    call = receiver.next()
    assert (call.method, call.path) == ("POST", "/ready")
    body = call.body
    assert (body["eventType"].lower(), body["available"]) == (command, True)
    assert body["queueDepth"] >= 1
    assert body["claimUrl"].endswith("/v1/codeq/tasks/claim")
    assert body["notificationId"]
    assert abs(moment(body["sentAt"]) - begin) < timedelta(seconds=30)
    assert call.is_signed_with(SECRET)


@pytest.mark.parametrize(
    "come_back", [abandoned, given_back, given_back_for_a_while, expired, requeued]
)
def test_a_subscriber_is_told_of_tasks_that_come_back(
    api: Client, command: str, receiver: Receiver, come_back: Callable[[Client, Json], None]
) -> None:
    task = api.held(command, maxAttempts=1 if come_back is requeued else 5)
    subscribed(api, receiver, command)
    come_back(api, task)
    assert receiver.next().body["eventType"] == command


def test_each_notice_has_a_name_of_its_own(api: Client, command: str, receiver: Receiver) -> None:
    subscribed(api, receiver, command)
    subscribed(api, receiver, command)
    api.create(command)
    names = {receiver.next().body["notificationId"] for _ in range(2)}
    assert len(names) == 2


def test_a_subscriber_of_another_command_is_not_told(
    api: Client, command: str, receiver: Receiver
) -> None:
    subscribed(api, receiver, command + "-other", path="other")
    subscribed(api, receiver, command, path="mine")
    api.create(command)
    assert receiver.next().path == "/mine"
    assert receiver.calls.empty()


def test_a_subscription_may_be_of_several_commands(
    api: Client, command: str, receiver: Receiver
) -> None:
    first, second = command + "-a", command + "-b"
    subscribed(api, receiver, first, second)
    api.create(first)
    assert receiver.next().body["eventType"] == first
    time.sleep(1.2)
    api.create(second)
    assert receiver.next().body["eventType"] == second


def test_all_subscribers_are_told_in_fanout(api: Client, command: str, receiver: Receiver) -> None:
    for path in ("one", "two", "three"):
        subscribed(api, receiver, command, path=path, deliveryMode="fanout")
    api.create(command)
    assert {receiver.next().path for _ in range(3)} == {"/one", "/two", "/three"}


def test_one_of_a_group_is_told_in_turn(api: Client, command: str, receiver: Receiver) -> None:
    for path in ("one", "two"):
        subscribed(api, receiver, command, path=path, deliveryMode="group", groupId=command)
    told = []
    for _ in range(2):
        api.create(command)
        told.append(receiver.next().path)
        api.complete(api.claimed(command)["id"]).raise_for_status()
    assert sorted(told) == ["/one", "/two"]
    assert receiver.calls.empty()


def test_a_subscriber_is_not_told_more_often_than_he_wants(
    api: Client, command: str, receiver: Receiver
) -> None:
    subscribed(api, receiver, command, path="rarely", minIntervalSeconds=3600)
    api.create(command)
    assert receiver.next().path == "/rarely"
    for _ in range(2):
        api.complete(api.claimed(command)["id"]).raise_for_status()
        api.create(command)
    api.complete(api.claimed(command)["id"]).raise_for_status()
    subscribed(api, receiver, command, path="later")
    api.create(command)
    assert receiver.next().path == "/later"
    assert receiver.calls.empty()


def test_a_subscription_can_be_renewed(api: Client, command: str, receiver: Receiver) -> None:
    subscription = subscribed(api, receiver, command, ttlSeconds=60)
    path = f"/workers/subscriptions/{subscription['subscriptionId']}/heartbeat"
    renewed = expect(api.post(path, {"ttlSeconds": 1000}), 200)
    assert renewed["subscriptionId"] == subscription["subscriptionId"]
    left = moment(renewed["expiresAt"]) - datetime.now(UTC)
    assert timedelta(seconds=980) < left < timedelta(seconds=1010)
    left = moment(expect(api.post(path), 200)["expiresAt"]) - datetime.now(UTC)
    assert timedelta(seconds=280) < left < timedelta(seconds=310)


def test_a_subscription_that_ended_tells_nobody(
    api: Client, command: str, receiver: Receiver
) -> None:
    subscription = subscribed(api, receiver, command, path="ended", ttlSeconds=1)
    time.sleep(1.1)
    subscribed(api, receiver, command, path="active")
    api.create(command)
    assert receiver.next().path == "/active"
    assert receiver.calls.empty()
    path = f"/workers/subscriptions/{subscription['subscriptionId']}/heartbeat"
    refused(api.post(path), 404)


def test_a_subscription_can_be_given_up(api: Client, command: str, receiver: Receiver) -> None:
    subscription = subscribed(api, receiver, command, path="ended")
    path = f"/workers/subscriptions/{subscription['subscriptionId']}"
    assert api.delete(path).status_code == 204
    subscribed(api, receiver, command, path="active")
    api.create(command)
    assert receiver.next().path == "/active"
    assert receiver.calls.empty()
    refused(api.post(f"{path}/heartbeat"), 404)
    refused(api.delete(path), 404)


@pytest.mark.parametrize("name", ["nothing", "%00", "a%2Fb", "x" * 5000])
def test_a_subscription_that_is_not_there_is_not_found(api: Client, name: str) -> None:
    refused(api.post(f"/workers/subscriptions/{name}/heartbeat"), 404)
    refused(api.delete(f"/workers/subscriptions/{name}"), 404)


@pytest.mark.parametrize(
    "fields",
    [
        {"callbackUrl": None},
        {"callbackUrl": ""},
        {"callbackUrl": 7},
        {"callbackUrl": "nowhere"},
        {"callbackUrl": "ftp://example.org/"},
        {"callbackUrl": "http://"},
        {"eventTypes": "a"},
        {"eventTypes": [7]},
        {"ttlSeconds": "1"},
        {"ttlSeconds": 1.5},
        {"deliveryMode": "everybody"},
        {"deliveryMode": 7},
        {"deliveryMode": "group"},
        {"deliveryMode": "group", "groupId": " "},
        {"groupId": 7},
        {"minIntervalSeconds": "1"},
    ],
    ids=str,
)
def test_a_subscription_that_makes_no_sense_is_refused(
    api: Client, command: str, fields: Json
) -> None:
    body = {"callbackUrl": "http://127.0.0.1:9/", "eventTypes": [command], **fields}
    refused(api.post("/workers/subscriptions", body), 400)


def test_numbers_out_of_range_are_brought_within_it(
    api: Client, command: str, receiver: Receiver
) -> None:
    for number in (0, -1, 2**63 - 1, -(2**63)):
        subscription = subscribed(
            api, receiver, command, ttlSeconds=number, minIntervalSeconds=number
        )
        assert moment(subscription["expiresAt"]) > datetime.now(UTC)


def test_a_worker_subscribes_only_to_its_event_types(start: Start, receiver: Receiver) -> None:
    worker_token = entry(WORKER, "bob", eventTypes=["render", "print"])
    host = start(**config(entry(PRODUCER, "ann"), worker_token))
    producer, worker = host.client(PRODUCER), host.client(WORKER)
    body = {"callbackUrl": receiver.url, "eventTypes": ["render", "other"]}
    refused(worker.post("/workers/subscriptions", body), 403, "event type not allowed")
    subscribed(worker, receiver)
    producer.create("other")
    producer.create("print")
    assert receiver.next().body["eventType"] == "print"
    assert receiver.calls.empty()


def test_a_subscriber_is_told_of_its_own_tenant_only(start: Start, receiver: Receiver) -> None:
    producers = [entry(PRODUCER, "ann"), entry(OTHER, "eve", raw={"tid": "other"})]
    workers = [entry(WORKER, "bob"), entry("strange", "cay", raw={"tid": "other"})]
    host = start(**config(producers, workers))
    subscribed(host.client(WORKER), receiver, "a", path="acme")
    subscribed(host.client("strange"), receiver, "a", path="other")
    host.client(OTHER).create("a")
    assert receiver.next().path == "/other"
    host.client(PRODUCER).create("a")
    assert receiver.next().path == "/acme"
    assert receiver.calls.empty()


def test_a_subscription_of_another_worker_cannot_be_touched(
    start: Start, receiver: Receiver
) -> None:
    workers = [
        entry(WORKER, "bob"),
        entry(OTHER, "eve"),
        entry("strange", "bob", raw={"tid": "other"}),
    ]
    host = start(**config(PRODUCER, workers))
    name = subscribed(host.client(WORKER), receiver, "a")["subscriptionId"]
    for token, code in ((OTHER, 403), ("strange", 404)):
        thief = host.client(token)
        refused(thief.post(f"/workers/subscriptions/{name}/heartbeat"), code)
        refused(thief.delete(f"/workers/subscriptions/{name}"), code)
    expect(host.client(WORKER).post(f"/workers/subscriptions/{name}/heartbeat"), 200)


def test_a_worker_of_a_group_subscribes_for_the_group(start: Start, receiver: Receiver) -> None:
    raw = {"tid": "acme", "workerGroup": "printers"}
    workers = [entry(WORKER, "bob", raw=raw), entry(OTHER, "eve", raw=raw)]
    host = start(**config(entry(PRODUCER, "ann"), workers))
    subscribed(host.client(WORKER), receiver, "a", path="bob")
    subscribed(host.client(OTHER), receiver, "a", path="eve")
    told = []
    for _ in range(2):
        host.client(PRODUCER).create("a")
        told.append(receiver.next().path)
        worker = host.client(WORKER)
        expect(worker.complete(worker.claimed("a")["id"]), 200)
    assert sorted(told) == ["/bob", "/eve"]
    assert receiver.calls.empty()


def test_calls_of_one_callback_are_limited(start: Start, receiver: Receiver) -> None:
    api = start(rateLimit={"webhook": {"requestsPerMinute": 1, "burstSize": 2}}).client()
    for command in ("a", "b", "c", "d"):
        subscribed(api, receiver, command)
        api.create(command)
    told = {receiver.next().body["eventType"] for _ in range(2)}
    assert len(told) == 2
    with pytest.raises(AssertionError, match="nobody called"):
        receiver.next(timeout=1)


def test_the_url_to_claim_at_is_where_callers_reach_the_host(
    start: Start, receiver: Receiver
) -> None:
    api = start(publicUrl="https://queue.example.org").client()
    subscribed(api, receiver, "a")
    api.create("a")
    assert receiver.next().body["claimUrl"] == "https://queue.example.org/v1/codeq/tasks/claim"
