"""Who may do what, by the tokens that the configuration lists."""

from __future__ import annotations

from typing import Any

import pytest

from client import Client, Json, expect, refused
from conftest import Start
from host import Host

PRODUCER, WORKER, OTHER = "the-producers-secret", "the-workers-secret", "somebody-elses-secret"
SCOPES = ["claim", "heartbeat", "abandon", "nack", "result", "subscribe"]

#: Every route, with a body that it takes, and who may call it.
ROUTES = [
    ("POST", "/tasks", "producer"),
    ("POST", "/tasks/batch", "producer"),
    ("POST", "/tasks/claim", "worker"),
    ("POST", "/tasks/claim/batch", "worker"),
    ("POST", "/tasks/x/heartbeat", "worker"),
    ("POST", "/tasks/x/abandon", "worker"),
    ("POST", "/tasks/x/nack", "worker"),
    ("POST", "/tasks/x/result", "worker"),
    ("POST", "/tasks/batch/results", "worker"),
    ("POST", "/workers/subscriptions", "worker"),
    ("POST", "/workers/subscriptions/x/heartbeat", "worker"),
    ("DELETE", "/workers/subscriptions/x", "worker"),
    ("GET", "/tasks/x", "both"),
    ("GET", "/tasks/x/result", "both"),
    ("GET", "/tasks/x/artifacts/y", "both"),
    ("GET", "/admin/queues", "admin"),
    ("GET", "/admin/queues/x", "admin"),
    ("GET", "/admin/queues/x/tasks", "admin"),
    ("GET", "/admin/tasks", "admin"),
    ("POST", "/admin/tasks/cleanup", "admin"),
    ("POST", "/admin/tasks/x/requeue", "admin"),
    ("DELETE", "/admin/tasks/x", "admin"),
    ("POST", "/admin/queues/x/dlq/requeue", "admin"),
    ("POST", "/admin/queues/x/dlq/purge", "admin"),
]
#: The routes that want a scope, and which.
SCOPED = {
    "/tasks/claim": "claim",
    "/tasks/claim/batch": "claim",
    "/tasks/x/heartbeat": "heartbeat",
    "/tasks/x/abandon": "abandon",
    "/tasks/x/nack": "nack",
    "/tasks/x/result": "result",
    "/tasks/batch/results": "result",
    "/workers/subscriptions": "subscribe",
    "/workers/subscriptions/x/heartbeat": "subscribe",
}
#: Enough for each of them.
BODY = {
    "count": 1,
    "status": "COMPLETED",
    "result": {},
    "results": [{"taskId": "x"}],
    "callbackUrl": "http://127.0.0.1:9/",
}


def entry(token: str, subject: str, scopes: list[str] = SCOPES, **more: Any) -> Json:
    return {
        "token": token,
        "subject": subject,
        "email": f"{subject}@example.org",
        "scopes": [f"codeq:{scope}" for scope in scopes],
        "eventTypes": ["*"],
        "raw": {"tid": "acme"},
        **more,
    }


def config(producer: Any, worker: Any, **more: Any) -> Json:
    return {
        "producerAuthProvider": "static",
        "producerAuthConfig": producer,
        "workerAuthProvider": "static",
        "workerAuthConfig": worker,
        "env": "prod",
        **more,
    }


PLAIN = config(entry(PRODUCER, "ann"), entry(WORKER, "bob"))


def both(host: Host) -> tuple[Client, Client]:
    return host.client(PRODUCER), host.client(WORKER)


def test_a_producer_creates_and_a_worker_completes(start: Start) -> None:
    producer, worker = both(start(**PLAIN))
    task = producer.create("a")
    held = worker.claimed("a")
    assert (held["id"], held["workerId"], held["tenantId"]) == (task["id"], "bob", "acme")
    expect(worker.complete(task["id"]), 200)
    for reader in (producer, worker):
        assert reader.task(task["id"])["status"] == "COMPLETED"
        expect(reader.get(f"/tasks/{task['id']}/result"), 200)


def test_a_request_without_the_right_token_is_refused_on_every_route(start: Start) -> None:
    api = start(**PLAIN).client()
    headers = [
        None,
        "",
        "Bearer",
        "Bearer wrong",
        f"Bearer {PRODUCER[1:]}",
        f"Bearer {PRODUCER}x",
        f"Basic {PRODUCER}",
        PRODUCER,
        f"Bearer {'x' * 30_000}",
        b"Bearer \xff\xfe",
    ]
    for method, path, _ in ROUTES:
        for header in headers:
            options = {"headers": {} if header is None else {"Authorization": header}}
            if method == "POST":
                options["json"] = BODY
            refused(api.send(method, path, **options), 401)


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_health_is_for_everybody(start: Start, path: str) -> None:
    expect(start(**PLAIN).client().get(path), 200)


def test_each_route_is_for_producers_or_for_workers(start: Start) -> None:
    producer, worker = both(start(**PLAIN))
    for method, path, who in ROUTES:
        options = {"json": BODY} if method == "POST" else {}
        codes = [api.send(method, path, **options).status_code for api in (producer, worker)]
        welcome = [code not in (401, 403) for code in codes]
        expected = {
            "producer": [True, False],
            "worker": [False, True],
            "both": [True, True],
            "admin": [False, False],
        }[who]
        assert welcome == expected, f"{method} {path}: {codes}"


def test_a_token_may_be_written_as_plain_text(start: Start) -> None:
    producer, worker = both(start(**config(PRODUCER, WORKER)))
    task = producer.create("a")
    assert worker.claimed("a")["id"] == task["id"]
    expect(worker.complete(task["id"]), 200)


@pytest.mark.parametrize("is_wrapped", [True, False])
def test_a_provider_may_have_several_tokens(start: Start, is_wrapped: bool) -> None:
    producers = [entry(PRODUCER, "ann"), entry(OTHER, "eve", raw={"tid": "other"})]
    workers = [entry(WORKER, "bob"), entry("second", "cay", scopes=["claim"]), "third"]
    wrapped = ({"tokens": producers}, {"tokens": workers}) if is_wrapped else (producers, workers)
    host = start(**config(*wrapped))
    tenants = {host.client(token).create("a")["tenantId"] for token in (PRODUCER, OTHER)}
    assert tenants == {"acme", "other"}
    assert host.client("second").claimed("a")["workerId"] == "cay"
    refused(host.client(OTHER).post("/tasks/claim", {}), 401)
    assert host.client("third").claim("a") is None


def test_the_scheme_may_be_written_in_any_case(start: Start) -> None:
    api = start(**PLAIN).client()
    for scheme in ("Bearer", "bearer", "BEARER"):
        headers = {"Authorization": f"{scheme} {PRODUCER}"}
        expect(api.post("/tasks", {"command": "a", "payload": 1}, headers=headers), 202)


@pytest.mark.parametrize("scope", SCOPES)
def test_a_worker_without_a_scope_may_not_do_what_it_is_for(start: Start, scope: str) -> None:
    scopes = [other for other in SCOPES if other != scope]
    api = start(**config(entry(PRODUCER, "ann"), entry(WORKER, "bob", scopes))).client(WORKER)
    for path, needed in SCOPED.items():
        answer = api.post(path, BODY)
        if needed == scope:
            refused(answer, 403, "missing scope")
        else:
            assert answer.status_code in (200, 204, 404), f"{path}: {answer.text}"


def test_a_worker_without_scopes_or_event_types_is_none(start: Start) -> None:
    host = start(**config(PRODUCER, entry(WORKER, "bob", [])))
    refused(host.client(WORKER).post("/tasks/claim", {}), 401, "missing scope")
    host = start(**config(PRODUCER, entry(WORKER, "bob", eventTypes=[])))
    refused(host.client(WORKER).post("/tasks/claim", {}), 401, "missing eventTypes")


def test_a_worker_claims_only_its_event_types(start: Start) -> None:
    worker_token = entry(WORKER, "bob", eventTypes=["Render", "print"])
    producer, worker = both(start(**config(entry(PRODUCER, "ann"), worker_token)))
    for command in ("render", "print", "other"):
        producer.create(command)
    for commands in (["other"], ["render", "other"]):
        refused(worker.post("/tasks/claim", {"commands": commands}), 403, "event type not allowed")
        batch = {"commands": commands, "count": 1}
        refused(worker.post("/tasks/claim/batch", batch), 403, "event type not allowed")
    assert worker.claimed("RENDER")["command"] == "render"
    assert expect(worker.post("/tasks/claim", {}), 200)["command"] == "print"
    assert worker.post("/tasks/claim", {}).status_code == 204


def test_tenants_never_meet(start: Start) -> None:
    producers = [entry(PRODUCER, "ann"), entry(OTHER, "eve", raw={"tid": "other"})]
    workers = [entry(WORKER, "bob"), entry("other-worker", "eve", raw={"tid": "other"})]
    host = start(**config(producers, workers))
    producer, worker = both(host)
    stranger, strange_worker = host.client(OTHER), host.client("other-worker")
    task = producer.create("a", idempotencyKey="one")
    assert strange_worker.claim("a") is None
    assert strange_worker.post("/tasks/claim", {}).status_code == 204
    assert stranger.create("a", idempotencyKey="one")["id"] != task["id"]
    held = worker.claimed("a")
    assert held["id"] == task["id"]
    for api in (stranger, strange_worker):
        refused(api.get(f"/tasks/{task['id']}"), 404)
        refused(api.get(f"/tasks/{task['id']}/result?waitSeconds=1"), 404, "task not found")
    for action in ("heartbeat", "abandon", "nack", "result"):
        refused(strange_worker.post(f"/tasks/{task['id']}/{action}", BODY), 404)
    results = {"results": [{"taskId": task["id"], "status": "COMPLETED", "result": {}}]}
    answer = expect(strange_worker.post("/tasks/batch/results", results), 200)["results"][0]
    assert "error" in answer
    assert producer.task(task["id"]) == held


@pytest.mark.parametrize(
    "raw",
    [
        {"tid": "acme"},
        {"tenantId": "acme"},
        {"tenant_id": "acme"},
        {"organizationId": " acme "},
        {"organization_id": "acme", "tid": "acme"},
    ],
    ids=str,
)
def test_the_tenant_is_what_the_claims_say(start: Start, raw: Json) -> None:
    producer, _ = both(start(**config(entry(PRODUCER, "ann", raw=raw), WORKER)))
    assert producer.create("a")["tenantId"] == "acme"


def test_without_a_claim_the_subject_is_the_tenant(start: Start) -> None:
    producer, _ = both(start(**config(entry(PRODUCER, "ann", raw={}), WORKER)))
    assert producer.create("a")["tenantId"] == "ann"


@pytest.mark.parametrize(
    "raw",
    [
        {"tid": "acme", "tenantId": "other"},
        {"tid": "Acme"},
        {"tid": "a"},
        {"tid": "1a"},
        {"tid": "a_b"},
        {"tid": "a" * 64},
        {"tid": ""},
        {"tid": 7},
        {"tid": None},
    ],
    ids=str,
)
def test_claims_that_name_no_tenant_or_two_are_refused(start: Start, raw: Json) -> None:
    producer, _ = both(start(**config(entry(PRODUCER, "ann", raw=raw), WORKER)))
    task = {"command": "a", "payload": 1}
    refused(producer.post("/tasks", task), 403, "invalid tenant claims")
    refused(producer.get("/tasks/x"), 403, "invalid tenant claims")


def test_a_task_of_another_worker_cannot_be_touched(start: Start) -> None:
    workers = [entry(WORKER, "bob"), entry(OTHER, "eve")]
    host = start(**config(entry(PRODUCER, "ann"), workers))
    producer, worker = both(host)
    thief = host.client(OTHER)
    producer.create("a")
    held = worker.claimed("a")
    for action in ("heartbeat", "abandon", "nack", "result"):
        refused(thief.post(f"/tasks/{held['id']}/{action}", BODY), 403, "not-owner")
    results = {"results": [{"taskId": held["id"], "status": "COMPLETED", "result": {}}]}
    answer = expect(thief.post("/tasks/batch/results", results), 200)["results"][0]
    assert answer == {"taskId": held["id"], "error": "not-owner"}
    assert worker.task(held["id"]) == held


def test_a_stale_worker_cannot_complete(start: Start) -> None:
    workers = [entry(WORKER, "bob"), entry(OTHER, "eve")]
    host = start(**config(entry(PRODUCER, "ann"), workers))
    producer, worker = both(host)
    other = host.client(OTHER)
    task = producer.create("a")
    worker.claimed("a", leaseSeconds=1)
    assert other.claimed("a")["id"] == task["id"]
    refused(worker.complete(task["id"]), 403, "not-owner")
    expect(other.complete(task["id"]), 200)


def test_a_producer_may_work_where_that_is_allowed(start: Start) -> None:
    worker_token = entry(WORKER, "bob")
    host = start(**config(entry(PRODUCER, "ann"), worker_token, allowProducerAsWorker=True))
    producer, _ = both(host)
    held = producer.held("a")
    assert held["workerId"] == "ann"
    expect(producer.post(f"/tasks/{held['id']}/heartbeat"), 200)
    expect(producer.complete(held["id"]), 200)
    refused(host.client("wrong").post("/tasks/claim", {}), 401)


@pytest.mark.parametrize(
    ("claims", "env", "headers", "is_admin"),
    [
        ({"scopes": ["admin"]}, "prod", {}, True),
        ({"raw": {"tid": "acme", "role": "ADMIN"}}, "prod", {}, True),
        ({"raw": {"tid": "acme", "role": "admin"}}, "prod", {}, True),
        ({"raw": {"tid": "acme", "role": "USER"}}, "prod", {}, False),
        ({}, "prod", {"X-Role": "ADMIN"}, False),
        ({}, "dev", {"X-Role": "ADMIN"}, True),
        ({}, "dev", {"X-Role": "USER"}, False),
        ({}, "dev", {}, False),
        ({"raw": {"tid": "acme", "role": "USER"}}, "dev", {"X-Role": "ADMIN"}, False),
    ],
    ids=str,
)
def test_an_admin_has_the_scope_or_the_role(
    start: Start, claims: Json, env: str, headers: dict[str, str], is_admin: bool
) -> None:
    host = start(**config(entry(PRODUCER, "ann", **claims), entry(WORKER, "bob"), env=env))
    api = host.client(PRODUCER, headers=headers)
    for method, path, who in ROUTES:
        if who == "admin":
            code = api.send(method, path).status_code
            assert code in ((200, 204, 400, 404) if is_admin else (403,)), (
                f"{method} {path}: {code}"
            )
    refused(host.client(headers=headers).get("/admin/queues"), 401)


def test_an_admin_sees_the_queues_of_one_tenant(start: Start) -> None:
    admin = ["admin"]
    producers = [entry(PRODUCER, "ann", admin), entry(OTHER, "eve", admin, raw={"tid": "other"})]
    host = start(**config(producers, WORKER))
    producer, stranger = host.client(PRODUCER), host.client(OTHER)
    producer.create("a")
    stranger.create("b")
    queues = expect(producer.get("/admin/queues"), 200)["queues"]
    assert [queue["command"] for queue in queues] == ["a"]
    assert stranger.counts("a") == (0, 0, 0, 0)


def test_tokens_are_not_in_the_log(start: Start) -> None:
    host = start(**PLAIN, logLevel="trace")
    producer, worker = both(host)
    producer.create("a")
    worker.claimed("a")
    refused(host.client("a-wrong-secret").get("/tasks/x"), 401)
    text = str(host.log)
    assert "/v1/codeq/tasks" in text
    assert not any(secret in text for secret in (PRODUCER, WORKER, "a-wrong-secret"))


def test_one_provider_lets_nobody_in_by_the_other(start: Start) -> None:
    only = {"producerAuthProvider": "static", "producerAuthConfig": PRODUCER}
    host = start(**only)
    host.client(PRODUCER).create("a")
    for token in (PRODUCER, WORKER, None):
        refused(host.client(token).post("/tasks/claim", {}), 401)
