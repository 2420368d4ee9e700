"""The other end of webhooks: a real server that keeps what it is sent."""

from __future__ import annotations

import hashlib
import hmac
import json
import queue
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

#: How long, in seconds, a call may take to come.
PATIENCE = 25.0


@dataclass
class Call:
    """A request that came in."""

    method: str
    path: str
    headers: dict[str, str]
    content: bytes

    @property
    def body(self) -> dict[str, Any]:
        """The JSON that was sent."""
        return json.loads(self.content)

    def is_signed_with(self, secret: str) -> bool:
        """Whether the signature is that of this body at the time that it names."""
        signed = self.headers["x-codeq-timestamp"].encode() + b"." + self.content
        expected = hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()
        return hmac.compare_digest(self.headers["x-codeq-signature"], expected)


class Receiver:
    """Answers 200 to all calls, unless it was told to answer some otherwise first."""

    def __init__(self) -> None:
        self.calls: queue.Queue[Call] = queue.Queue()
        self._answers: queue.Queue[tuple[int, dict[str, str]]] = queue.Queue()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                receiver._take(self)

            do_GET = do_PUT = do_POST  # noqa: N815

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def answer_next(self, status: int, **headers: str) -> None:
        """Answers the next call so that is not spoken for yet."""
        self._answers.put((status, headers))

    def next(self, timeout: float = PATIENCE) -> Call:
        """Waits for a call."""
        try:
            return self.calls.get(timeout=timeout)
        except queue.Empty:
            raise AssertionError("nobody called") from None

    def _take(self, request: BaseHTTPRequestHandler) -> None:
        content = request.rfile.read(int(request.headers.get("Content-Length", 0)))
        headers = {name.lower(): value for name, value in request.headers.items()}
        try:
            status, more = self._answers.get_nowait()
        except queue.Empty:
            status, more = 200, {}
        request.send_response(status)
        for name, value in {"Content-Length": "0", **more}.items():
            request.send_header(name, value)
        request.end_headers()
        self.calls.put(Call(request.command, request.path, headers, content))

    def __enter__(self) -> Receiver:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
