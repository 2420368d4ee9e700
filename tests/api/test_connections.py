"""Connections as good and bad clients use them."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from client import Client, expect
from conftest import Start
from host import Host
from raw import Raw, request

TASKS = "/v1/codeq/tasks"


@pytest.fixture(autouse=True)
def _the_host_is_well_afterwards(api: Client) -> Iterator[None]:
    yield
    expect(api.get("/readyz"), 200)
    task = api.held("still-well")
    expect(api.complete(task["id"]), 200)


def body_of(command: str) -> bytes:
    return b'{"command": "%s", "payload": 1}' % command.encode()


def chunked(*chunks: bytes) -> bytes:
    """A body in chunks, with its end."""
    return b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in (*chunks, b""))


def test_requests_that_do_not_wait_for_answers_are_answered_in_order(
    host: Host, api: Client, command: str
) -> None:
    alive = request("GET", "/healthz", Connection="keep-alive", X_Request_Id="first")
    create = request(
        "POST", TASKS, body_of(command), Connection="keep-alive", X_Request_Id="second"
    )
    last = request("GET", "/v1/codeq/nothing", X_Request_Id="third")
    with Raw(host) as connection:
        answers = connection.send(alive + create + create + last).answers()
    assert [answer.status for answer in answers] == [200, 202, 202, 404]
    names = [answer.headers["x-request-id"] for answer in answers]
    assert names == ["first", "second", "second", "third"]
    assert api.counts(command) == (2, 0, 0, 0)


def test_a_request_may_come_byte_by_byte(host: Host, api: Client, command: str) -> None:
    with Raw(host) as connection:
        for byte in request("POST", TASKS, body_of(command)):
            connection.send(bytes([byte]))
        assert connection.answer().status == 202
    assert api.counts(command) == (1, 0, 0, 0)


def test_a_body_may_come_in_chunks(host: Host, api: Client, command: str) -> None:
    body = body_of(command)
    with Raw(host) as connection:
        head = request("POST", TASKS, Transfer_Encoding="chunked")
        connection.send(head, chunked(body[:5], body[5:6], body[6:]))
        assert connection.answer().status == 202
    assert api.counts(command) == (1, 0, 0, 0)


@pytest.mark.parametrize("rest", [b"", b"5\r\n{", b"zz\r\n", b"-1\r\n", b"5;" + b"x" * 100_000])
def test_chunks_that_are_broken_create_nothing(
    host: Host, api: Client, command: str, rest: bytes
) -> None:
    body = body_of(command)
    with Raw(host) as connection:
        head = request("POST", TASKS, Transfer_Encoding="chunked")
        connection.send(head, b"%x\r\n%s\r\n" % (len(body), body), rest).end()
        assert all(400 <= answer.status < 500 for answer in connection.answers())
    assert api.counts(command) == (0, 0, 0, 0)


def test_a_client_that_sends_no_more_is_answered(host: Host, command: str) -> None:
    with Raw(host) as connection:
        connection.send(request("POST", TASKS, body_of(command))).end()
        assert connection.answer().status == 202


def test_a_body_that_ends_too_early_creates_nothing(host: Host, api: Client, command: str) -> None:
    body = body_of(command)
    for length in range(len(body)):
        with Raw(host) as connection:
            connection.send(request("POST", TASKS, body[:length], len(body))).end()
            assert all(400 <= answer.status < 500 for answer in connection.answers())
    assert api.counts(command) == (0, 0, 0, 0)


def test_a_client_that_expects_to_be_told_to_go_on_is_told(
    host: Host, api: Client, command: str
) -> None:
    body = body_of(command)
    with Raw(host) as connection:
        connection.send(request("POST", TASKS, b"", len(body), Expect="100-continue"))
        assert connection._socket.recv(25).startswith(b"HTTP/1.1 100 ")
        connection.send(body)
        assert connection.answer().status == 202
    assert api.counts(command) == (1, 0, 0, 0)


def test_a_body_of_terabytes_is_refused_without_being_read(host: Host) -> None:
    with Raw(host) as connection:
        connection.send(request("POST", TASKS, b"{", 1 << 40))
        assert connection.answer().status == 413


@pytest.mark.parametrize("length", ["-1", "x", "1, 2", "18446744073709551616", "0x10", ""])
def test_a_length_that_is_none_is_refused(host: Host, length: str) -> None:
    with Raw(host) as connection:
        connection.send(request("POST", TASKS, Content_Length=length), b"{}").end()
        assert all(answer.status == 400 for answer in connection.answers())


GARBAGE = {
    "nothing": b"",
    "empty lines": b"\r\n\r\n",
    "a word": b"GARBAGE\r\n\r\n",
    "tls": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "a preface of http2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a version of the future": b"GET / HTTP/9.9\r\n\r\n",
    "no version": b"GET /healthz\r\n\r\n",
    "two lengths": b"POST /v1/codeq/tasks HTTP/1.1\r\nHost: t\r\n"
    b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n{}",
    "a length and chunks": b"POST /v1/codeq/tasks HTTP/1.1\r\nHost: t\r\nContent-Length: 2\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "a header without a name": b"GET /healthz HTTP/1.1\r\n: x\r\n\r\n",
    "a header with a nul": b"GET /healthz HTTP/1.1\r\nX: a\0b\r\n\r\n",
    "a folded header": b"GET /healthz HTTP/1.1\r\nHost: t\r\nX: a\r\n b\r\n\r\n",
    "a path with a blank": b"GET /heal thz HTTP/1.1\r\nHost: t\r\n\r\n",
    "a path that is no utf8": b"GET /\xff\xfe HTTP/1.1\r\nHost: t\r\n\r\n",
    "a connect": b"CONNECT example.org:443 HTTP/1.1\r\nHost: example.org:443\r\n\r\n",
    "an absolute url": b"GET http://example.org/healthz HTTP/1.1\r\nHost: t\r\n\r\n",
    "a star": b"OPTIONS * HTTP/1.1\r\nHost: t\r\n\r\n",
    "a long header": b"GET /healthz HTTP/1.1\r\nHost: t\r\nX: " + b"x" * (1 << 20) + b"\r\n\r\n",
    "a long path": b"GET /" + b"x" * (1 << 20) + b" HTTP/1.1\r\nHost: t\r\n\r\n",
    "many headers": b"GET /healthz HTTP/1.1\r\n" + b"A: b\r\n" * 5_000 + b"\r\n",
    "headers without end": b"GET /healthz HTTP/1.1\r\n" + b"A: b\r\n" * 200_000,
    "a long method": b"G" * 100_000 + b" / HTTP/1.1\r\n\r\n",
    "random": bytes(range(256)) * 1000,
}


@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE)
def test_what_is_no_http_harms_nobody(host: Host, garbage: bytes) -> None:
    with Raw(host) as connection:
        answers = connection.send(garbage).end().answers()
    assert all(answer.status < 500 for answer in answers), answers


def test_headers_that_are_too_large_are_refused(host: Host) -> None:
    with Raw(host) as connection:
        connection.send(request("GET", "/healthz", X="x" * (1 << 20)))
        assert [answer.status for answer in connection.answers()] in ([431], [])


def test_a_path_that_is_too_long_is_refused(host: Host) -> None:
    with Raw(host) as connection:
        connection.send(request("GET", "/" + "x" * (1 << 20)))
        assert [answer.status for answer in connection.answers()] in ([414], [431], [])


def test_a_connection_goes_on_after_refusals(api: Client) -> None:
    for _ in range(20):
        assert api.post("/tasks", content=b"{").status_code == 400
        assert api.get("/tasks/nothing").status_code == 404
        assert api.post("/nothing", content=b"x" * 1000).status_code == 404


def test_a_client_that_sends_its_body_too_slowly_is_given_up(start: Start) -> None:
    host = start(requestTimeoutSeconds=1)
    begin = time.monotonic()
    with Raw(host) as connection:
        connection.send(request("POST", TASKS, b"{", 100))
        answers = connection.answers()
    assert 0.9 < time.monotonic() - begin < 15
    assert [answer.status for answer in answers] in ([408], [])


def test_a_client_that_sends_its_headers_too_slowly_is_given_up(start: Start) -> None:
    host = start(requestTimeoutSeconds=1)
    begin = time.monotonic()
    with Raw(host) as connection:
        answers = connection.send(b"GET /healthz HTTP/1.1\r\nHost: t\r\nX").answers()
    assert 0.9 < time.monotonic() - begin < 15
    assert [answer.status for answer in answers] in ([408], [])


def test_a_body_that_trickles_in_is_given_up(start: Start) -> None:
    host = start(requestTimeoutSeconds=1)
    with Raw(host) as connection:
        connection.send(request("POST", TASKS, b"{", 1_000))
        begin = time.monotonic()
        connection._socket.settimeout(0.2)
        closed = False
        while not closed and time.monotonic() - begin < 20:
            connection.send(b" ")
            try:
                closed = connection._socket.recv(1 << 16) is not None
            except TimeoutError:
                pass
            except ConnectionError:
                closed = True
    assert closed, "who sends a byte now and then keeps his connection for ever"


def test_a_connection_without_a_request_is_closed(start: Start) -> None:
    host = start(idleTimeoutSeconds=1)
    with Raw(host) as connection:
        begin = time.monotonic()
        assert connection.answers() == []
        assert 0.5 < time.monotonic() - begin < 15
    with Raw(host) as connection:
        alive = request("GET", "/healthz", Connection="keep-alive")
        answers = connection.send(alive).answers()
    assert [answer.status for answer in answers] == [200]


def test_a_claim_may_wait_longer_than_a_request_may_take(start: Start) -> None:
    api = start(requestTimeoutSeconds=1, idleTimeoutSeconds=1).client()
    begin = time.monotonic()
    assert api.claim("never", waitSeconds=3) is None
    assert time.monotonic() - begin > 2.5


def test_more_connections_than_there_may_be_wait_for_their_turn(start: Start) -> None:
    host = start(maxConnections=2)
    with Raw(host) as first, Raw(host) as second, Raw(host) as third:
        alive = request("GET", "/healthz", Connection="keep-alive")
        for connection in (first, second):
            connection.send(alive)
            assert connection._socket.recv(1 << 16).startswith(b"HTTP/1.1 200 ")
        third.send(request("GET", "/healthz"))
        third._socket.settimeout(0.5)
        with pytest.raises(TimeoutError):
            third._socket.recv(1)
        third._socket.settimeout(20)
        first._socket.close()
        assert third.answer().status == 200


def test_hundreds_of_connections_that_do_nothing_keep_nobody_out(host: Host, api: Client) -> None:
    idle = [host.connect() for _ in range(300)]
    try:
        expect(api.get("/healthz"), 200)
    finally:
        for connection in idle:
            connection.close()
