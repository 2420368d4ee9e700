"""A caller of the HTTP API, who expects every answer to be well formed."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime
from typing import Any, ClassVar

import httpx

from document import Document

Json = dict[str, Any]

API = "/v1/codeq"
#: Paths that are not below `API`.
ELSEWHERE = ("/healthz", "/readyz", "/metrics", "/openapi.json", "/docs", "/v1/")


class Client:
    """A caller with a token, or without."""

    #: What hosts say of their API.
    document: ClassVar[Document | None] = None

    def __init__(
        self,
        url: str,
        token: str | None = None,
        headers: dict[str, str] | None = None,
        **options: Any,
    ) -> None:
        headers = dict(headers or {})
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        if url.startswith("http:"):
            # To load authorities that nobody asks takes longer than most tests.
            options["verify"] = False
        self._http = httpx.Client(base_url=url, headers=headers, timeout=60, **options)

    def send(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Sends a request; looks at the answer's form, and leaves its sense to the caller."""
        path = path if path.startswith(ELSEWHERE) else API + path
        response = self._http.request(method, path, **options)
        _is_well_formed(response)
        if self.document:
            self.document.check(response)
        return response

    def get(self, path: str, **options: Any) -> httpx.Response:
        """A GET."""
        return self.send("GET", path, **options)

    def post(self, path: str, body: Any = None, **options: Any) -> httpx.Response:
        """A POST of JSON, or of nothing."""
        if body is not None:
            options["json"] = body
        return self.send("POST", path, **options)

    def delete(self, path: str) -> httpx.Response:
        """A DELETE."""
        return self.send("DELETE", path)

    def create(self, command: str, payload: Any = 1, **fields: Any) -> Json:
        """Creates a task; answers it."""
        body = {"command": command, "payload": payload, **fields}
        return expect(self.post("/tasks", body), 202)

    def claim(self, command: str, **fields: Any) -> Json | None:
        """Claims a task of a command, if there is one."""
        response = self.post("/tasks/claim", {"commands": [command], **fields})
        return None if response.status_code == 204 else expect(response, 200)

    def claimed(self, command: str, **fields: Any) -> Json:
        """Claims a task of a command, which is there or comes soon."""
        task = self.claim(command, waitSeconds=20, **fields)
        assert task, f"no task of {command} came"
        return task

    def held(self, command: str, **fields: Any) -> Json:
        """Creates a task and claims it."""
        task = self.create(command, **fields)
        held = self.claimed(command)
        assert held["id"] == task["id"]
        return held

    def buried(self, command: str, **fields: Any) -> Json:
        """A dead letter."""
        task = self.held(command, **{"maxAttempts": 1, **fields})
        answer = expect(self.post(f"/tasks/{task['id']}/nack", {"reason": "broken"}), 200)
        assert answer["status"] == "dlq"
        return self.task(task["id"])

    def complete(self, task_id: str, result: Json | None = None) -> httpx.Response:
        """Completes a task."""
        body = {"status": "COMPLETED", "result": result or {"ok": True}}
        return self.post(f"/tasks/{task_id}/result", body)

    def task(self, task_id: str) -> Json:
        """A task that has to be there."""
        return expect(self.get(f"/tasks/{task_id}"), 200)

    def counts(self, command: str) -> tuple[int, int, int, int]:
        """How many tasks are ready, delayed, in progress and dead in a queue."""
        stats = expect(self.get(f"/admin/queues/{command}"), 200)
        return tuple(stats[name] for name in ("ready", "delayed", "inProgress", "dlq"))

    def close(self) -> None:
        """Closes the connections."""
        self._http.close()


def expect(response: httpx.Response, status: int) -> Any:
    """The body of an answer that has to have this status."""
    assert response.status_code == status, f"{response.status_code} {response.text[:500]}"
    return response.json()


def refused(response: httpx.Response, status: int, message: str | None = None) -> Json:
    """An answer that has to be an error, of this text if one is given."""
    body = expect(response, status)
    assert message is None or body["error"] == message, body
    return body


def moment(text: str) -> datetime:
    """A time of the API."""
    time = datetime.fromisoformat(text)
    assert time.tzinfo, f"{text} has no time zone"
    return time


def until(is_so: Callable[[], bool], limit: float = 25) -> None:
    """Asks until something is so that no answer waits for; `limit` is in seconds."""
    deadline = time.monotonic() + limit
    while not is_so():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.1)


def _is_well_formed(response: httpx.Response) -> None:
    request = f"{response.request.method} {response.request.url}"
    assert response.headers.get("X-Request-Id"), f"{request}: no request id"
    if response.status_code == 204:
        assert response.content == b"", f"{request}: 204 with a body"
    if response.status_code >= 400:
        assert response.headers["Content-Type"].startswith("application/json"), request
        error = response.json().get("error")
        assert isinstance(error, str), f"{request}: {response.text}"
        assert error, f"{request}: {response.text}"
    if response.status_code in (429, 503):
        assert int(response.headers["Retry-After"]) > 0, f"{request}: {response.headers}"
    assert response.status_code not in (500, 501, 502), f"{request}: {response.text}"
