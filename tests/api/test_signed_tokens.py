"""Tokens that an issuer signs, and whose keys he publishes."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

import jwt
import pytest

from client import Client, Json, refused, until
from conftest import Start
from host import Host
from issuer import ALGORITHMS, AUDIENCE, ISSUER, Issuer, Key

TASK = {"command": "a", "payload": 1}
WORKER = {"scope": "codeq:claim codeq:result", "eventTypes": ["*"], "tid": "acme"}


def config(issuer: Issuer, **more: Any) -> Json:
    return {
        "producerAuthProvider": "jwks",
        "producerAuthConfig": issuer.config(**more),
        "workerAuthProvider": "jwks",
        "workerAuthConfig": issuer.config(**more),
        "env": "prod",
    }


def creates(host: Host, token: str) -> int:
    """The answer to a producer with a token."""
    return host.client(token).post("/tasks", TASK).status_code


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_token_that_is_signed_by_the_issuer_is_taken(start: Start, algorithm: str) -> None:
    key = Key.make("k1", algorithm)
    with Issuer(key) as issuer:
        host = start(**config(issuer))
        producer = host.client(key.sign(tid="acme"))
        worker = host.client(key.sign(sub="bob", **WORKER))
        task = producer.create("a")
        held = worker.claimed("a")
        assert (held["id"], held["workerId"]) == (task["id"], "bob")
        assert worker.complete(task["id"]).status_code == 200
        refused(producer.post("/tasks/claim", {}), 401)


@pytest.mark.parametrize(
    ("claims", "code"),
    [
        ({}, 202),
        ({"exp": -3600}, 401),
        ({"exp": -30}, 202),
        ({"exp": None}, 401),
        ({"exp": "soon"}, 401),
        ({"nbf": 3600}, 401),
        ({"nbf": 30}, 202),
        ({"iat": 3600}, 401),
        ({"iat": None}, 202),
        ({"iss": "https://evil.example.org/"}, 401),
        ({"iss": None}, 401),
        ({"iss": ISSUER.rstrip("/")}, 401),
        ({"aud": "other"}, 401),
        ({"aud": None}, 401),
        ({"aud": ["other", AUDIENCE]}, 202),
        ({"aud": []}, 401),
        ({"sub": None}, 403),
        ({"sub": None, "tid": "acme"}, 202),
        ({"sub": "Not A Label"}, 403),
        ({"tid": "acme", "organization_id": "other"}, 403),
    ],
    ids=str,
)
def test_the_claims_of_a_token_are_checked(start: Start, claims: Json, code: int) -> None:
    now = int(time.time())
    times = {
        name: now + value
        for name, value in claims.items()
        if name in ("exp", "nbf", "iat") and isinstance(value, int)
    }
    key = Key.make("k1")
    with Issuer(key) as issuer:
        assert creates(start(**config(issuer)), _signed(key, claims | times)) == code


def _signed(key: Key, claims: Json) -> str:
    """A token, even if its claims are of a type that the library for tokens would not take."""
    try:
        return key.sign(**claims)
    except TypeError:
        token = key.sign(**{name: claim for name, claim in claims.items() if name != "exp"})
        said = jwt.decode(token, options={"verify_signature": False}) | claims
        return jwt.api_jws.encode(
            json.dumps(said).encode(), key.private, key.algorithm, {"kid": key.kid}
        )


def test_the_skew_of_clocks_may_be_set(start: Start) -> None:
    key = Key.make("k1")
    with Issuer(key) as issuer:
        host = start(**config(issuer, clockSkew="0s"))
        assert creates(host, key.sign(exp=int(time.time()) - 5)) == 401
        assert creates(host, key.sign()) == 202


def test_a_token_of_another_key_is_refused(start: Start) -> None:
    key, forged, unknown = Key.make("k1"), Key.make("k1"), Key.make("k2")
    with Issuer(key) as issuer:
        host = start(**config(issuer))
        assert [creates(host, it.sign()) for it in (key, forged, unknown)] == [202, 401, 401]


def test_a_token_that_was_changed_is_refused(start: Start) -> None:
    key = Key.make("k1", "RS256")
    with Issuer(key) as issuer:
        host = start(**config(issuer))
        head, body, signature = key.sign(tid="acme").split(".")
        other = key.sign(tid="other").split(".")[1]
        broken = ["..", "a.b.c", f"{head}.{body}", f"{head}.{body}.", f"{head}..{signature}"]
        broken += [f"{head}.{other}.{signature}", f"{head}.{body}.{signature[:-8]}AAAAAAAA"]
        broken += [f"{head}.{body}.{signature}.x", f"{head}.{body}.{signature}" * 100]
        assert {creates(host, token) for token in broken} == {401}
        assert creates(host, f"{head}.{body}.{signature}") == 202


def test_a_token_without_a_signature_is_refused(start: Start) -> None:
    key = Key.make("k1")
    claims = jwt.decode(key.sign(), options={"verify_signature": False})
    with Issuer(key) as issuer:
        host = start(**config(issuer))
        for algorithm in ("none", "None", "NONE", "nOnE", ""):
            head = _part({"alg": algorithm, "typ": "JWT", "kid": "k1"})
            for signature in ("", key.sign().split(".")[2]):
                assert creates(host, f"{head}.{_part(claims)}.{signature}") == 401


@pytest.mark.filterwarnings("ignore::jwt.warnings.InsecureKeyLengthWarning")
def test_a_public_key_is_no_secret_to_sign_with(start: Start) -> None:
    import hashlib
    import hmac

    from cryptography.hazmat.primitives import serialization

    key = Key.make("k1", "RS256")
    public = key.private.public_key()  # type: ignore[union-attr]
    encoded = [
        public.public_bytes(encoding, serialization.PublicFormat.SubjectPublicKeyInfo)
        for encoding in (serialization.Encoding.PEM, serialization.Encoding.DER)
    ]
    secrets = [*encoded, key.public()["n"].encode(), b""]
    body = key.sign().split(".")[1]
    with Issuer(key) as issuer:
        host = start(**config(issuer))
        for secret in secrets:
            signed = f"{_part({'alg': 'HS256', 'typ': 'JWT', 'kid': 'k1'})}.{body}"
            signature = hmac.new(secret, signed.encode(), hashlib.sha256).digest()
            encoded = base64.urlsafe_b64encode(signature).rstrip(b"=").decode()
            assert creates(host, f"{signed}.{encoded}") == 401


def test_a_published_secret_is_no_key(start: Start) -> None:
    key = Key.make("k1")
    secret = b"a secret of thirty-two bytes or more"
    with Issuer(key) as issuer:
        encoded = base64.urlsafe_b64encode(secret).rstrip(b"=").decode()
        issuer.document["keys"].append({"kty": "oct", "kid": "s", "alg": "HS256", "k": encoded})
        host = start(**config(issuer))
        claims = jwt.decode(key.sign(), options={"verify_signature": False})
        assert creates(host, jwt.encode(claims, secret, "HS256", {"kid": "s"})) == 401
        assert creates(host, key.sign()) == 202


def test_a_key_is_for_its_own_algorithm(start: Start) -> None:
    key = Key.make("k1", "RS256")
    with Issuer(key) as issuer:
        host = start(**config(issuer))
        for algorithm in ("RS512", "PS256"):
            assert creates(host, Key("k1", algorithm, key.private).sign()) == 401
        assert creates(host, key.sign()) == 202


def test_a_key_for_encryption_signs_nothing(start: Start) -> None:
    key, other = Key.make("k1"), Key.make("k2")
    with Issuer(key) as issuer:
        issuer.document["keys"].append(other.public(use="enc"))
        host = start(**config(issuer))
        assert [creates(host, it.sign()) for it in (key, other)] == [202, 401]


def test_a_token_that_demands_what_nobody_knows_is_refused(start: Start) -> None:
    key = Key.make("k1")
    with Issuer(key) as issuer:
        token = key.sign({"crit": ["exp"], "exp": 1})
        assert creates(start(**config(issuer)), token) == 401


def test_a_token_does_not_bring_its_own_key(start: Start) -> None:
    key, evil = Key.make("k1"), Key.make("evil")
    with Issuer(key) as issuer, Issuer(evil) as trap:
        host = start(**config(issuer))
        headers = {"jku": trap.url, "x5u": trap.url, "jwk": evil.public()}
        assert creates(host, evil.sign(headers)) == 401
        assert trap.fetches == 0


def test_keys_that_make_no_sense_are_passed_over(start: Start) -> None:
    key = Key.make("k1")
    with Issuer(key) as issuer:
        nonsense = [{}, {"kty": "RSA", "kid": "r"}, {"kty": "moon", "kid": "m"}, None, 7]
        nonsense.append({"kty": "RSA", "kid": "w", "n": "AQ", "e": "AQAB"})
        issuer.document["keys"] = [*nonsense, key.public()]
        assert creates(start(**config(issuer)), key.sign()) == 202


def test_a_new_key_is_fetched_when_a_token_names_it(start: Start) -> None:
    old, new = Key.make("k1"), Key.make("k2")
    with Issuer(old) as issuer:
        host = start(**config(issuer))
        assert creates(host, old.sign()) == 202
        issuer.publish(new)
        until(lambda: creates(host, new.sign()) == 202)
        assert creates(host, old.sign()) == 401


def test_tokens_of_unknown_keys_do_not_flood_the_issuer(start: Start) -> None:
    key = Key.make("k1")
    with Issuer(key) as issuer:
        host = start(**config(issuer))
        assert creates(host, key.sign()) == 202
        before = issuer.fetches
        for n in range(50):
            assert creates(host, Key(f"k{n}-unknown", "ES256", key.private).sign()) == 401
        assert issuer.fetches - before <= 3


@pytest.mark.parametrize("trouble", ["an error", "no json", "no keys", "a redirect"])
def test_while_the_keys_cannot_be_had_nobody_is_let_in(start: Start, trouble: str) -> None:
    key = Key.make("k1")
    with Issuer(key) as issuer:
        document = issuer.document
        issuer.status = {"an error": 500, "a redirect": 302}.get(trouble, 200)
        issuer.document = {"no json": "nonsense", "no keys": {"keys": []}}.get(trouble, document)
        host = start(**config(issuer))
        assert creates(host, key.sign()) in (401, 503)
        issuer.status, issuer.document = 200, document
        until(lambda: creates(host, key.sign()) == 202)


def test_keys_that_were_fetched_go_on_counting_while_the_issuer_is_down(start: Start) -> None:
    key = Key.make("k1")
    with Issuer(key) as issuer:
        host = start(**config(issuer))
        assert creates(host, key.sign()) == 202
    assert creates(host, key.sign()) == 202


def test_a_worker_needs_scopes_and_event_types(start: Start) -> None:
    key = Key.make("k1")
    with Issuer(key) as issuer:
        host = start(**config(issuer))

        def claims(**more: Any) -> Any:
            return host.client(key.sign(**{**WORKER, **more})).post("/tasks/claim", {})

        assert claims().status_code == 204
        assert claims(scope=None, scopes=["codeq:claim"]).status_code == 204
        refused(claims(eventTypes=None), 401, "missing eventTypes")
        refused(claims(eventTypes=[]), 401, "missing eventTypes")
        refused(claims(scope=None), 401, "missing scope")
        refused(claims(scope="codeq:nack"), 403, "missing scope")


def test_an_admin_is_one_by_claim(start: Start) -> None:
    key = Key.make("k1")
    with Issuer(key) as issuer:
        host = start(**config(issuer))

        def asks(**claims: Any) -> int:
            return host.client(key.sign(**claims)).get("/admin/queues").status_code

        assert asks(role="ADMIN") == asks(scope="openid codeq:admin") == 200
        assert asks(role="USER") == asks() == asks(scope="codeq:administrator") == 403


def test_the_older_spelling_does_the_same(start: Start) -> None:
    key = Key.make("k1")
    with Issuer(key) as issuer:
        host = start(
            identityJwksUrl=issuer.url,
            identityIssuer=ISSUER,
            identityAudience=AUDIENCE,
            workerJwksUrl=issuer.url,
            workerIssuer=ISSUER,
            workerAudience="workers",
            allowedClockSkewSeconds=0,
        )
        assert creates(host, key.sign(tid="acme")) == 202
        assert creates(host, key.sign(exp=int(time.time()) - 5)) == 401
        worker: Client = host.client(key.sign(aud="workers", **WORKER))
        assert worker.claimed("a")["workerId"] == "ann"


def test_signed_and_listed_tokens_go_together(start: Start) -> None:
    key = Key.make("k1")
    with Issuer(key) as issuer:
        settings = config(issuer) | {
            "workerAuthProvider": "static",
            "workerAuthConfig": {
                "token": "listed",
                "subject": "bob",
                "scopes": ["codeq:claim"],
                "eventTypes": ["*"],
                "raw": {"tid": "acme"},
            },
        }
        host = start(**settings)
        host.client(key.sign(tid="acme")).create("a")
        assert host.client("listed").claimed("a")["workerId"] == "bob"


def test_several_providers_may_be_asked(start: Start) -> None:
    first, second = Key.make("k1"), Key.make("k1", "RS256")
    listed = {"token": "listed", "subject": "bob", "raw": {"tid": "acme"}}
    with Issuer(first) as one, Issuer(second) as other:
        providers = [
            {"type": "static", "config": listed},
            {"type": "jwks", "config": one.config()},
            {"type": "jwks", "config": other.config(issuer="other", audience="others")},
        ]
        host = start(
            producerAuthProvider="multi", producerAuthConfig={"providers": providers}, env="prod"
        )
        good = ["listed", first.sign(), second.sign(iss="other", aud="others")]
        assert {creates(host, token) for token in good} == {202}
        bad = ["other", second.sign(), first.sign(iss="other", aud="others")]
        assert {creates(host, token) for token in bad} == {401}


def _part(content: Json) -> str:
    return base64.urlsafe_b64encode(json.dumps(content).encode()).rstrip(b"=").decode()
