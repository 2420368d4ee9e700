"""The API's own description, to which every answer that a test gets is held."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import httpx
import jsonschema_rs

METHODS = ("get", "post", "put", "patch", "delete", "head", "options", "trace")


class Document:
    """An OpenAPI document."""

    def __init__(self, content: dict[str, Any]) -> None:
        self.content = content
        #: What answers were not as the document says, each once.
        self.breaches: set[str] = set()
        self._validators: dict[str, jsonschema_rs.Validator] = {}

    @cached_property
    def operations(self) -> dict[tuple[str, str], dict[str, Any]]:
        """All operations, by method and path."""
        return {
            (method.upper(), path): operation
            for path, item in self.content["paths"].items()
            for method, operation in item.items()
            if method in METHODS
        }

    def check(self, response: httpx.Response) -> None:
        """Holds an answer to what the document says of it, if it knows the route."""
        found = self._find(response.request.method, response.request.url.path)
        if found and (breach := self._breach(*found, response)):
            method, status = response.request.method, response.status_code
            self.breaches.add(f"{method} {found[0]}: {status}: {breach}")

    def _breach(self, path: str, operation: dict[str, Any], response: httpx.Response) -> str | None:
        status, described = self._described(operation, response.status_code)
        if described is None:
            return "the status is not in the document"
        content = described.get("content", {})
        media = response.headers.get("Content-Type", "").partition(";")[0]
        if content and media not in content and "*/*" not in content:
            return f"{media} is not in the document"
        if media != "application/json" or "schema" not in content.get(media, {}):
            return None
        pointer = (path, response.request.method, status)
        try:
            error = next(self._errors(pointer, described, response.json()), None)
        except RecursionError:
            # Nested more deeply than can be read here.
            return None
        return error and f"{error.message}, at {error.instance_path} of {response.text[:500]}"

    def _find(self, method: str, path: str) -> tuple[str, dict[str, Any]] | None:
        known = (t for t in self.content["paths"] if re.fullmatch(_pattern(t), path))
        # A path without variables wins over one with them.
        template = min(known, key=lambda template: template.count("{"), default="")
        operation = self.operations.get((method, template))
        return operation and (template, operation)

    def _described(
        self, operation: dict[str, Any], status: int
    ) -> tuple[str, dict[str, Any] | None]:
        responses = operation["responses"]
        for name in (str(status), f"{status // 100}XX", "default"):
            if name in responses:
                return name, self._resolved(responses[name])
        return "", None

    def _resolved(self, item: dict[str, Any]) -> dict[str, Any]:
        while "$ref" in item:
            target: Any = self.content
            for part in item["$ref"].removeprefix("#/").split("/"):
                target = target[part.replace("~1", "/").replace("~0", "~")]
            item = target
        return item

    def _errors(
        self, place: tuple[str, ...], described: dict[str, Any], value: Any
    ) -> Iterator[jsonschema_rs.ValidationError]:
        schema = described["content"]["application/json"]["schema"]
        validator = self._validators.get(str(place))
        if validator is None:
            # What it refers to is below the document's own root.
            root = {"components": self.content.get("components", {}), "allOf": [schema]}
            validator = jsonschema_rs.Draft202012Validator(root)
            self._validators[str(place)] = validator
        return validator.iter_errors(value)


def _pattern(template: str) -> str:
    parts = re.split(r"\{[^}]*\}", template)
    return "[^/]+".join(re.escape(part) for part in parts)
