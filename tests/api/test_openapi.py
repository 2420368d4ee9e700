"""The description of the API."""

from __future__ import annotations

import re

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from client import API, ELSEWHERE, Client, Json, expect, refused
from conftest import Start
from document import Document
from test_broken_input import ROUTES
from test_static_tokens import PLAIN, SCOPED


@pytest.fixture
def document(api: Client) -> Document:
    return Document(expect(api.get("/openapi.json"), 200))


def described(document: Document) -> dict[tuple[str, str], Json]:
    """The operations, with a letter for what varies in a path."""
    return {
        (method, re.sub(r"\{[^}]*\}", "*", path)): operation
        for (method, path), operation in document.operations.items()
    }


def routes() -> list[tuple[str, str]]:
    """The routes below `API`, as `described` names them."""
    found = []
    for path, methods in ROUTES.items():
        parts = ["*" if part in ("x", "y") else part for part in path.split("/")]
        if not path.startswith(ELSEWHERE):
            found += [(method, API + "/".join(parts)) for method in methods if method != "HEAD"]
    return found


def test_it_is_a_valid_document_of_openapi_3_1(document: Document) -> None:
    assert document.content["openapi"].startswith("3.1.")
    OpenAPIV31SpecValidator(document.content).validate()


@pytest.mark.parametrize(("method", "path"), routes())
def test_every_route_is_in_it(document: Document, method: str, path: str) -> None:
    assert (method, path) in described(document)


def test_it_has_no_route_that_is_not_there(api: Client, document: Document) -> None:
    for method, path in document.operations:
        answer = api.send(method, path.replace("{", "").replace("}", ""))
        assert answer.status_code != 405, f"{method} {path}"
        if answer.status_code == 404:
            assert answer.json()["error"] != "no such route", f"{method} {path}"


def test_every_operation_says_what_it_is_and_how_it_fails(document: Document) -> None:
    names = []
    for (method, path), operation in document.operations.items():
        what = f"{method} {path}"
        assert operation.get("summary"), what
        names.append(operation["operationId"])
        codes = set(operation["responses"])
        assert any(code.startswith("2") for code in codes), what
        if path.startswith(API):
            assert {"401", "403"} <= codes or "default" in codes, f"{what}: {codes}"
    assert len(names) == len(set(names)), "two operations have one name"


def test_tokens_are_in_it(document: Document) -> None:
    schemes = document.content["components"]["securitySchemes"].values()
    assert any((s["type"], s.get("scheme")) == ("http", "bearer") for s in schemes)
    everywhere = document.content.get("security")
    for (method, path), operation in document.operations.items():
        is_secured = bool(operation.get("security", everywhere))
        assert is_secured == path.startswith(API), f"{method} {path}"


@pytest.mark.parametrize("path", [path for path in SCOPED if not path.endswith("/abandon")])
def test_bodies_and_variables_are_described(document: Document, path: str) -> None:
    parts = ["*" if part == "x" else part for part in path.split("/")]
    operation = described(document)["POST", API + "/".join(parts)]
    assert "schema" in operation["requestBody"]["content"]["application/json"]
    if "x" in path.split("/"):
        assert any(variable["in"] == "path" for variable in operation["parameters"])


def test_it_is_there_for_callers_without_a_token(start: Start) -> None:
    expect(start(**PLAIN).client().get("/openapi.json"), 200)


def test_a_page_shows_it_and_needs_nothing_from_elsewhere(api: Client) -> None:
    moved = api.get("/docs")
    assert (moved.status_code, moved.headers["Location"]) == (308, "/docs/")
    page = api.get("/docs/")
    assert (page.status_code, page.headers["Content-Type"].partition(";")[0]) == (200, "text/html")
    parts = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert parts
    for part in parts:
        assert not re.match(r"(https?:)?//", part), part
        assert api.get(f"/docs/{part.removeprefix('./')}").status_code == 200, part
    refused(api.get("/docs/nothing"), 404)
