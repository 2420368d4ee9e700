"""Whether a host is alive, and whether it can serve."""

from __future__ import annotations

from client import Client, expect


def test_a_host_is_alive(api: Client) -> None:
    assert expect(api.get("/healthz"), 200)["status"] == "ok"


def test_a_host_is_ready_and_names_its_provider(api: Client, provider: str) -> None:
    answer = expect(api.get("/readyz"), 200)
    assert (answer["status"], answer["provider"]) == ("ready", provider)
