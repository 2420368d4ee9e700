"""A name for every request."""

from __future__ import annotations

import re

import pytest

from client import Client

ROUTES = ["/healthz", "/tasks/nothing", "/no/such/route", "/admin/queues"]


@pytest.mark.parametrize("path", ROUTES)
def test_a_request_id_is_echoed(api: Client, path: str) -> None:
    for name in ("mine", "a b:c/d", "x" * 128):
        answer = api.get(path, headers={"X-Request-Id": name})
        assert answer.headers.get_list("X-Request-Id") == [name]


@pytest.mark.parametrize("path", ROUTES)
def test_a_request_id_is_made_where_there_is_none(api: Client, path: str) -> None:
    made = {api.get(path).headers["X-Request-Id"] for _ in range(3)}
    assert len(made) == 3
    assert all(re.fullmatch("[0-9a-f]{32}", name) for name in made)


@pytest.mark.parametrize("name", ["", "x" * 129, "x" * 5000, b"caf\xc3\xa9"])
def test_a_request_id_that_is_none_is_replaced(api: Client, name: str | bytes) -> None:
    answer = api.get("/healthz", headers={"X-Request-Id": name})
    assert re.fullmatch("[0-9a-f]{32}", answer.headers["X-Request-Id"])
