"""What schemathesis is told besides the document: loaded by it, see `test_fuzz.py`."""

from __future__ import annotations

import os
from typing import Any

import schemathesis
from schemathesis import GenerationMode

#: Few, so that claims meet tasks.
COMMANDS = ("a", "b")


@schemathesis.hook
def before_call(
    context: schemathesis.HookContext, case: schemathesis.Case, kwargs: dict[str, Any]
) -> None:
    """Nobody waits for what does not come; what is valid leads to tasks, and to our receiver."""
    del context, kwargs
    for values in (case.body, case.query):
        if isinstance(values, dict):
            _wait_for_nothing(values)
    is_valid = case.meta and case.meta.generation.mode == GenerationMode.POSITIVE
    if is_valid and isinstance(case.query, dict):
        # Only a page before it knows the next one's.
        case.query.pop("cursor", None)
    if is_valid and isinstance(case.body, dict):
        case.body = _without_fractions(case.body)
        _meet(case.body)


@schemathesis.hook
def filter_case(context: schemathesis.HookContext, case: schemathesis.Case) -> bool:
    """Leaves out what is wrong and answered 200: items of a batch, each of which is judged on its
    own, and a limit that is left blank."""
    del context
    if not (case.meta and case.meta.generation.mode == GenerationMode.NEGATIVE):
        return True
    if isinstance(case.query, dict) and not case.query.get("limit", 1):
        return False
    if not isinstance(case.body, dict):
        return True
    return not any(isinstance(case.body.get(items), list) for items in ("tasks", "results"))


def _wait_for_nothing(values: dict[str, Any]) -> None:
    wait = values.get("waitSeconds")
    if isinstance(wait, int | float) and wait > 0:
        values["waitSeconds"] = 0
    elif isinstance(wait, str) and wait.isdecimal():
        values["waitSeconds"] = "0"


def _meet(body: dict[str, Any]) -> None:
    """Keeps to what a schema of JSON does not say."""
    for name in ("runAt", "before"):
        if body.get(name):
            body[name] = "2026-01-01T00:00:00Z"
    if body.get("deliveryMode") in ("group", "hash"):
        body["groupId"] = body.get("groupId") or "group"
    for artifact in body.get("artifacts") or []:
        if isinstance(artifact, dict) and not artifact.get("url"):
            artifact["url"] = "https://files.example.org/a"
    for item in [*(body.get("tasks") or []), *(body.get("results") or [])]:
        if isinstance(item, dict):
            _meet(item)
    if isinstance(body.get("command"), str):
        body["command"] = COMMANDS[len(body["command"]) % len(COMMANDS)]
    for name in ("eventTypes", "commands"):
        if isinstance(body.get(name), list):
            body[name] = [COMMANDS[len(event) % len(COMMANDS)] for event in body[name]]
    for name in ("webhook", "callbackUrl"):
        if body.get(name):
            body[name] = os.environ["FUZZ_RECEIVER"]


def _without_fractions(value: Any) -> Any:
    """The same with 5 for 5.0, which is a whole number to JSON Schema and to nobody else."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {name: _without_fractions(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_without_fractions(item) for item in value]
    return value
