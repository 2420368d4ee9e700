"""HTTP as it goes over the wire, for requests that no well-behaved client sends."""

from __future__ import annotations

import contextlib
import json
import socket
from dataclasses import dataclass
from typing import Any

from host import Host


@dataclass
class Answer:
    """An answer as it came."""

    status: int
    headers: dict[str, str]
    content: bytes

    @property
    def body(self) -> Any:
        """The JSON of its body."""
        return json.loads(self.content)


class Raw:
    """A connection to a host. Use it as a context."""

    def __init__(self, host: Host) -> None:
        self._socket = host.connect(timeout=20)

    def send(self, *parts: bytes | str) -> Raw:
        """Sends bytes as far as the host takes them."""
        for part in parts:
            try:
                self._socket.sendall(part.encode() if isinstance(part, str) else part)
            except ConnectionError:
                # It has heard enough, and its answer is there all the same.
                break
        return self

    def end(self) -> Raw:
        """Tells the host that nothing more comes."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)
        return self

    def answers(self) -> list[Answer]:
        """Reads until the host closes the connection."""
        received = bytearray()
        try:
            while part := self._socket.recv(1 << 16):
                received += part
        except ConnectionError:
            # A reset ends it as well.
            pass
        return _parsed(bytes(received))

    def answer(self) -> Answer:
        """The only answer."""
        answers = self.answers()
        assert len(answers) == 1, answers
        return answers[0]

    def __enter__(self) -> Raw:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()


def request(
    method: str, path: str, content: bytes | str = b"", length: int | None = None, **headers: str
) -> bytes:
    """A request after which the connection ends, unless its headers say otherwise."""
    content = content.encode() if isinstance(content, str) else content
    fields = {"Host": "test", "Connection": "close"}
    if content or length is not None:
        fields["Content-Length"] = str(len(content) if length is None else length)
    fields |= {name.replace("_", "-"): value for name, value in headers.items()}
    head = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
    return "\r\n".join([*head, "", ""]).encode() + content


def _parsed(received: bytes) -> list[Answer]:
    """The answers of HTTP/1; what is something else, such as a frame of HTTP/2, is none."""
    answers = []
    while received.startswith(b"HTTP/1."):
        head, _, received = received.partition(b"\r\n\r\n")
        status, *lines = head.decode("latin-1").split("\r\n")
        fields = (line.partition(":") for line in lines)
        headers = {name.lower(): value.strip() for name, _, value in fields}
        code = int(status.split(" ")[1])
        length = 0 if code in (100, 204) else int(headers.get("content-length", len(received)))
        answers.append(Answer(code, headers, received[:length]))
        received = received[length:]
    return [answer for answer in answers if answer.status != 100]
