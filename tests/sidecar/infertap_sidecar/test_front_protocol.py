"""What uvicorn's own protocol would lose, mistake or hold without end: bodies behind an upgrade, trailers, heads."""

import asyncio
import contextlib
import re
import socket
import threading
import tracemalloc
from typing import Any

import pytest

_OFFER = b"Host: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\n"
_SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"


@pytest.fixture
def seen(servers: Any) -> Any:
    """Sends parts over one connection; what the app got: (target, header names, body) of each request."""
    requests: list[tuple[bytes, set[bytes], bytes]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        requests.append((scope["infertap.target"], {name for name, _ in scope["headers"]}, body))
        await send({"type": "http.response.start", "status": 200, "headers": [(b"connection", b"close")]})
        await send({"type": "http.response.body", "body": b"fine"})

    port = servers.app(app, lifespan="off")

    def ask(*parts: bytes) -> list[tuple[bytes, set[bytes], bytes]]:
        with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for part in parts:
                client.sendall(part)
            while client.recv(1 << 16):
                pass
        return requests

    return ask


@pytest.mark.parametrize("offer", [_OFFER, _OFFER.replace(b"h2c", b"websocket")], ids=["h2c", "websocket"])
def test_the_body_behind_an_upgrade_is_no_request(seen: Any, offer: bytes) -> None:
    """Whole, in one part or two, with a length or in chunks; the app still sees the offer."""
    head = b"POST /x HTTP/1.1\r\n" + offer
    length = b"Content-Length: %d\r\n\r\n" % len(_SMUGGLED)
    chunks = b"%x\r\n%b\r\n0\r\n\r\n" % (len(_SMUGGLED), _SMUGGLED)
    seen(head + length + _SMUGGLED)
    seen(head + length, _SMUGGLED)
    seen(head + b"Transfer-Encoding: chunked\r\n\r\n" + chunks)
    requests = seen(head + b"Transfer-Encoding: chunked\r\n\r\n", chunks)
    assert [(target, body) for target, _, body in requests] == [(b"/x", _SMUGGLED)] * 4
    assert all(b"upgrade" in names for _, names, _ in requests)


def test_a_tunnel_is_not_read_again_for_ever(seen: Any) -> None:
    """CONNECT upgrades without an offer: it is refused."""
    assert seen(b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n") == []


def test_trailers_are_no_headers(seen: Any) -> None:
    """Nobody adds header fields behind the body."""
    chunked = b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n"
    ((_, names, body),) = seen(chunked + b"Authorization: Bearer evil\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n")
    assert body == b"a"
    assert names == {b"host", b"transfer-encoding"}


class Front:
    """An app whose answers to `/wait` wait for a word; what it saw, and raw talk with the server before it."""

    def __init__(self, servers: Any) -> None:
        self.targets: list[bytes] = []
        self.gone = threading.Event()
        self.go = threading.Event()
        self.port = servers.app(self, lifespan="off")

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.targets.append(scope["infertap.target"])
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.gone.set()
                return
            more = message.get("more_body", False)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"fi", "more_body": True})
        if scope["path"] == "/wait":
            await asyncio.to_thread(self.go.wait, 60)
        await send({"type": "http.response.body", "body": b"ne"})

    def connect(self) -> socket.socket:
        client = socket.create_connection(("127.0.0.1", self.port), timeout=60)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return client

    def ask(self, *parts: bytes) -> bytes:
        """What comes back until the server closes."""
        with self.connect() as client:
            for part in parts:
                client.sendall(part)
            return rest(client)


def rest(client: socket.socket) -> bytes:
    data = b""
    while piece := client.recv(1 << 16):
        data += piece
    return data


def statuses(answers: bytes) -> list[bytes]:
    return re.findall(rb"HTTP/1\.1 (\d+)", answers)


@pytest.fixture
def front(servers: Any) -> Front:
    """The app, served."""
    return Front(servers)


LIMIT = 256 << 10
HEAD = b"GET /x HTTP/1.1\r\nHost: a\r\n"
CHUNKED = b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n"


@pytest.mark.parametrize(
    ("begin", "more"),
    [
        (HEAD + b"X: ", b"x"),
        (HEAD, b"X: 1\r\n"),
        (HEAD + b"X", b"x"),
        (b"GET /", b"x"),
        (CHUNKED + b"0\r\nX: ", b"x"),
        (CHUNKED + b"1;", b"x"),
    ],
    ids=["value", "fields", "name", "target", "trailers", "chunk extension"],
)
@pytest.mark.parametrize("piece_bytes", [1 << 10, 3 << 20])
def test_a_head_without_end_is_refused(front: Front, begin: bytes, more: bytes, piece_bytes: int) -> None:
    """431, and no more is read; what came is not kept."""
    piece = more * (piece_bytes // len(more))
    tracemalloc.start()
    try:
        with front.connect() as client:
            client.sendall(begin)
            with contextlib.suppress(ConnectionError):
                for _ in range((48 << 20) // len(piece)):
                    client.sendall(piece)
            with contextlib.suppress(ConnectionError):
                assert statuses(rest(client)) in ([b"431"], [])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 24 << 20
    assert front.targets in ([], [b"/x"])
    assert statuses(front.ask(HEAD + b"Connection: close\r\n\r\n")) == [b"200"]


def test_the_limit_is_on_the_head_and_on_nothing_else(front: Front) -> None:
    """A head just below it passes, one just above it does not, whatever the reads; a body may be of any size."""
    close = b"Connection: close\r\n\r\n"
    below = HEAD + b"X: " + b"x" * (LIMIT - 100) + b"\r\n" + close
    above = HEAD + b"X: " + b"x" * LIMIT + b"\r\n" + close
    body = b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n" % (LIMIT * 4) + close + bytes(LIMIT * 4)
    assert statuses(front.ask(below)) == [b"200"]
    assert statuses(front.ask(above)) == [b"431"]
    assert statuses(front.ask(body)) == [b"200"]
    assert statuses(front.ask(*[above[at : at + 10_000] for at in range(0, len(above), 10_000)])) == [b"431"]
    assert statuses(front.ask(*[below[at : at + 10_000] for at in range(0, len(below), 10_000)])) == [b"200"]


@pytest.mark.parametrize(
    "broken",
    [b"nonsense\r\n\r\n", HEAD + b"X : 1\r\n\r\n", CHUNKED + b"zz\r\n", HEAD + b"X: " + b"x" * LIMIT * 2],
    ids=["no head", "half a head", "half a body", "too large"],
)
@pytest.mark.parametrize("more", [0, 2])
def test_a_refusal_never_stands_within_an_answer(front: Front, broken: bytes, more: int) -> None:
    """The answers to what was asked before come whole, and then the end."""
    with front.connect() as client:
        client.sendall(HEAD.replace(b"/x", b"/wait") + b"\r\n")
        while b"fi" not in client.recv(1 << 16, socket.MSG_PEEK):
            pass
        client.sendall((HEAD + b"\r\n") * more + broken)
        front.go.set()
        answers = rest(client)
    whole, _, refusal = answers.partition(b"HTTP/1.1 4")
    assert statuses(whole) == [b"200"] * (1 + more)
    assert whole.count(b"0\r\n\r\n") == 1 + more
    # It came after the last answer was out, then.
    assert refusal[:2] in (b"", b"00", b"31")
    assert front.targets == [b"/wait"] + [b"/x"] * more


def test_who_breaks_its_own_body_is_told_and_gone(front: Front) -> None:
    """400; the app hears that nobody is there any more."""
    assert statuses(front.ask(CHUNKED + b"zz\r\n")) == [b"400"]
    assert front.gone.wait(60)


def test_requests_that_wait_for_an_answer_are_bounded(front: Front) -> None:
    """Those within the limit are answered, in order, and then the connection ends."""
    with front.connect() as client:
        client.sendall(HEAD.replace(b"/x", b"/wait") + b"\r\n")
        while b"fi" not in client.recv(1 << 16, socket.MSG_PEEK):
            pass
        sender = threading.Thread(target=_send_all, args=(client, (HEAD + b"\r\n") * 3_000))
        sender.start()
        front.go.set()
        answers = rest(client)
        sender.join(60)
    count = len(statuses(answers))
    assert set(statuses(answers)) == {b"200"}
    assert count == answers.count(b"0\r\n\r\n") == len(front.targets)


def _send_all(client: socket.socket, data: bytes) -> None:
    with contextlib.suppress(OSError):
        client.sendall(data)
