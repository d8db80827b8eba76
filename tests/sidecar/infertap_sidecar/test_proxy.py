"""Fidelity of the proxy on real sockets: exact bytes in, exact bytes out, nothing held back."""

import asyncio
import contextlib
import re
import socket
import struct
import threading
import time
from collections.abc import Callable
from typing import Any

import httpx
import orjson
import pytest
from opentelemetry import context as otel_context
from opentelemetry import trace as otel_trace

from infertap.tap import OUTCOME_KEY
from infertap_sidecar.proxy import ReverseProxy
from infertap_sidecar.upstream.httpx_client import HttpxUpstream
from infertap_sidecar.upstream.native_client import NativeUpstream

UPSTREAMS = {"native": NativeUpstream, "httpx": HttpxUpstream}
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@pytest.fixture(params=UPSTREAMS, autouse=True)
def client(servers: Any, request: pytest.FixtureRequest) -> str:
    """Which client the proxy speaks through: every test holds for both."""
    servers.make_upstream = UPSTREAMS[request.param]
    return str(request.param)


class Recorder:
    """An upstream that answers each request with the same bytes and keeps what it was sent."""

    def __init__(self, answer: bytes = OK) -> None:
        self.answer = answer
        self.heads: list[bytes] = []
        self.bodies: list[bytes] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            self.heads.append(head)
            self.bodies.append(await read_body(head, reader))
            writer.write(self.answer)
            await writer.drain()

    def lines(self) -> list[bytes]:
        return self.heads[-1].split(b"\r\n")


async def read_body(head: bytes, reader: asyncio.StreamReader) -> bytes:
    lower = head.lower()
    if b"transfer-encoding: chunked" in lower:
        body = b""
        while size := int(await reader.readline(), 16):
            body += await reader.readexactly(size)
            await reader.readline()
        await reader.readline()
        return body
    if b"content-length:" in lower:
        return await reader.readexactly(int(lower.split(b"content-length:")[1].split(b"\r\n")[0]))
    return b""


def exchange(port: int, request: bytes) -> bytes:
    """Send bytes, read until the server closes."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
        client.sendall(request)
        return read_all(client)


def read_all(client: socket.socket) -> bytes:
    received = b""
    while part := client.recv(1 << 16):
        received += part
    return received


def get(target: bytes, *headers: bytes) -> bytes:
    return b"\r\n".join(
        [b"GET " + target + b" HTTP/1.1", b"Host: shop.example", b"Connection: close", *headers, b"", b""]
    )


@pytest.mark.parametrize(
    "target",
    [
        b"/", b"//a/%2F?x=%20", b"/a/../b/./c", b"/a;b=c/%E2%82%AC?q=%zz&q=2&=", b"/%61%62?a=1?b=2", b"/v1/x?y=a+b%2Bc",
        b"/a%00b", b"/" + b"x" * 4000, b"/e?", b"/?", b"/a??b", b"/a#b?c", b"/caf%c3%A9?%",
    ],
)  # fmt: skip
def test_targets_arrive_byte_for_byte(servers: Any, target: bytes) -> None:
    """No normalising, no re-encoding of path or query."""
    upstream = Recorder()
    exchange(servers.proxy(servers.raw(upstream)), get(target))
    assert upstream.lines()[0] == b"GET " + target + b" HTTP/1.1"


def test_an_absolute_target_goes_on_as_path_and_query(servers: Any) -> None:
    """A client that takes us for its forward proxy names the whole address: its host counts, not the field's."""
    upstream = Recorder()
    port = servers.proxy(servers.raw(upstream))
    exchange(port, get(b"http://shop.example/a/%2F?x=1"))
    assert upstream.lines()[0] == b"GET /a/%2F?x=1 HTTP/1.1"
    exchange(port, get(b"HTTP://user:word@shop.example:81/?x"))
    assert [line for head in upstream.heads for line in head.split(b"\r\n") if line.lower().startswith(b"host:")] == [
        b"host: shop.example", b"host: shop.example:81"
    ]  # fmt: skip


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "REPORT"])
def test_methods_pass(servers: Any, method: str) -> None:
    """Any method reaches the upstream with its body."""
    upstream = Recorder()
    answer = httpx.request(method, f"http://127.0.0.1:{servers.proxy(servers.raw(upstream))}/", content=b"abc")
    assert (answer.status_code, answer.content) == (200, b"ok")
    assert upstream.lines()[0].startswith(method.encode())
    assert upstream.bodies == [b"abc"]


def test_the_upstream_sees_the_clients_headers_and_nothing_else(servers: Any) -> None:
    """Host, order and repetitions as sent; only x-forwarded-* comes on top."""
    upstream = Recorder()
    exchange(servers.proxy(servers.raw(upstream)), get(b"/", b"X-B: 1", b"X-A: \xe9", b"X-B: 2"))
    assert upstream.lines()[1:-2] == [
        b"host: shop.example", b"x-b: 1", b"x-a: \xe9", b"x-b: 2",
        b"x-forwarded-for: 127.0.0.1", b"x-forwarded-proto: http", b"x-forwarded-host: shop.example",
    ]  # fmt: skip


def test_answers_keep_status_headers_and_coded_bytes(servers: Any) -> None:
    """A gzip body is not decoded, repeated cookies stay two, the length stays."""
    answer = (
        b"HTTP/1.1 418 Teapot\r\nSet-Cookie: a=1\r\nContent-Encoding: gzip\r\nSet-Cookie: b=2\r\n"
        b"Content-Length: 4\r\n\r\n\x1f\x8b\x00\xff"
    )
    head, _, body = exchange(servers.proxy(servers.raw(Recorder(answer))), get(b"/")).partition(b"\r\n\r\n")
    assert body == b"\x1f\x8b\x00\xff"
    assert head.startswith(b"HTTP/1.1 418 ")
    assert head.split(b"\r\n")[1:5] == [
        b"set-cookie: a=1", b"content-encoding: gzip", b"set-cookie: b=2", b"content-length: 4",
    ]  # fmt: skip


def test_a_transfer_coding_below_the_chunks_stays(servers: Any, client: str) -> None:
    """`gzip, chunked` is undone by one layer and told the client by the other: its bytes are still gzip."""
    if client == "httpx":
        pytest.skip("h11 knows no transfer coding but chunked")
    answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n4\r\n\x1f\x8b\x00\xff\r\n0\r\n\r\n"
    head, _, body = exchange(servers.proxy(servers.raw(Recorder(answer))), get(b"/")).partition(b"\r\n\r\n")
    assert [line for line in head.split(b"\r\n") if line.startswith(b"transfer-encoding")] == [
        b"transfer-encoding: gzip", b"transfer-encoding: chunked",
    ]  # fmt: skip
    assert body == b"4\r\n\x1f\x8b\x00\xff\r\n0\r\n\r\n"


def test_redirects_and_cookies_are_the_clients_business(servers: Any) -> None:
    """A redirect is passed on, and a cookie set for one client never reaches another's request."""
    upstream = Recorder(b"HTTP/1.1 302 Found\r\nLocation: /next\r\nSet-Cookie: s=1\r\nContent-Length: 0\r\n\r\n")
    port = servers.proxy(servers.raw(upstream))
    assert b"location: /next" in exchange(port, get(b"/"))
    exchange(port, get(b"/"))
    assert len(upstream.heads) == 2
    assert b"cookie" not in upstream.heads[1].lower()


@pytest.mark.parametrize(
    ("request_line", "answer", "body"),
    [
        (b"HEAD / HTTP/1.1", b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n", b""),
        (b"GET / HTTP/1.1", b"HTTP/1.1 204 No Content\r\n\r\n", b""),
        (b"GET / HTTP/1.1", b"HTTP/1.1 304 Not Modified\r\nETag: x\r\nContent-Length: 99\r\n\r\n", b""),
        (b"GET / HTTP/1.1", b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + OK, b"ok"),
        (b"GET / HTTP/1.1", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b""),
    ],
)
def test_answers_without_a_body_leave_the_connection_usable(
    servers: Any, request_line: bytes, answer: bytes, body: bytes
) -> None:
    """After HEAD, 204, 304, 1xx and length 0 the next answer on the same connection is in step."""
    port = servers.proxy(servers.raw(Recorder(answer)))
    request = request_line + b"\r\nHost: a\r\n"
    received = exchange(port, request + b"\r\n" + request + b"Connection: close\r\n\r\n")
    status = [line for line in answer.split(b"\r\n") if line.startswith(b"HTTP/1.1 ")][-1].split(b" ")[1]
    assert received.count(b"HTTP/1.1 " + status) == 2
    assert received.endswith(b"\r\n\r\n" + body)
    if request_line.startswith(b"HEAD"):
        assert received.count(b"content-length: 99") == 2


def test_a_chunked_request_body_stays_chunked(servers: Any) -> None:
    """No length is invented, and the bytes are the same."""
    upstream = Recorder()
    request = b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    request += b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    assert exchange(servers.proxy(servers.raw(upstream)), request).endswith(b"ok")
    assert upstream.bodies == [b"abcde"]
    assert b"content-length" not in upstream.heads[0].lower()


def test_expect_continue_is_answered_before_the_body_comes(servers: Any) -> None:
    """A client that waits for 100 gets it, and the upstream gets the body."""
    upstream = Recorder()
    port = servers.proxy(servers.raw(upstream))
    with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
        client.sendall(
            b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n"
        )
        assert client.recv(100).startswith(b"HTTP/1.1 100")
        client.sendall(b"abc")
        assert read_all(client).endswith(b"ok")
    assert upstream.bodies == [b"abc"]


def test_http_1_0_clients_get_a_host(servers: Any) -> None:
    """HTTP/1.1 upstream needs a Host where the client sent none."""
    upstream = Recorder()
    assert exchange(servers.proxy(servers.raw(upstream)), b"GET / HTTP/1.0\r\n\r\n").endswith(b"ok")
    assert b"host: upstream" in upstream.lines()


def test_events_pass_one_by_one(servers: Any) -> None:
    """Each event reaches the client before the upstream makes the next one."""
    answered = asyncio.Queue[bytes]()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        while event := await answered.get():
            writer.write(b"%x\r\n%s\r\n" % (len(event), event))
        writer.write(b"0\r\n\r\n")

    port = servers.proxy(servers.raw(talk))
    with httpx.stream("GET", f"http://127.0.0.1:{port}/") as stream:
        chunks = stream.iter_raw()
        for number in range(20):
            event = b"data: %d\n\n" % number
            servers.run(answered.put(event))
            assert next(chunks) == event
        servers.run(answered.put(b""))
        assert list(chunks) == []


def test_a_request_body_passes_chunk_by_chunk(servers: Any) -> None:
    """The upstream has the first part of a body before the client sends the second."""
    seen = threading.Event()

    async def watch(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        assert await reader.readexactly(3) == b"abc"
        seen.set()
        assert await reader.readexactly(3) == b"def"
        writer.write(OK)

    port = servers.proxy(servers.raw(watch))
    with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
        client.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 6\r\n\r\nabc")
        assert seen.wait(60)
        client.sendall(b"def")
        assert read_all(client).endswith(b"ok")


@pytest.mark.parametrize("after_bytes", [False, True], ids=["before the answer", "within the answer"])
def test_a_client_that_leaves_ends_the_upstreams_work(servers: Any, after_bytes: bool) -> None:
    """The upstream's connection closes as soon as the client has gone."""
    asked, closed = threading.Event(), threading.Event()

    async def wait_for_close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        if after_bytes:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        asked.set()
        await reader.read()
        closed.set()

    port = servers.proxy(servers.raw(wait_for_close))
    with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
        client.sendall(get(b"/"))
        assert asked.wait(60)
        if after_bytes:
            while not client.recv(100).endswith(b"half"):
                pass
    assert closed.wait(60)


def test_a_client_that_leaves_within_its_request_ends_the_upstreams_work(servers: Any) -> None:
    """Half a request body is never completed on the client's behalf."""
    asked, rest = threading.Event(), []

    async def wait_for_close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        asked.set()
        rest.append(await reader.read())

    port = servers.proxy(servers.raw(wait_for_close))
    with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
        client.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc")
        assert asked.wait(60)
    poll(lambda: rest == [b"abc"])


def test_a_client_that_leaves_within_a_stalled_upload_ends_it(servers: Any) -> None:
    """Nobody reads from that client, because the upstream takes nothing: still it is seen to have gone."""
    go, rest = threading.Event(), []

    async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await asyncio.to_thread(go.wait, 120)
        while data := await reader.read(1 << 20):
            rest.append(len(data))
        rest.append(0)

    tap = OutcomeTap()
    port = servers.proxy(servers.raw(deaf), wrap=tap.wrap, read_timeout_s=300.0)
    total = 1 << 30
    with socket.create_connection(("127.0.0.1", port), timeout=1) as client:
        client.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % total)
        with contextlib.suppress(TimeoutError):
            client.sendall(bytes(total))
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    poll(lambda: len(tap.outcomes) == 1)
    go.set()
    poll(lambda: rest[-1:] == [0])
    assert sum(rest) < total
    assert tap.raised == []


def poll(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "the condition never came true"
        time.sleep(0.01)


class OutcomeTap:
    """Keeps what the proxy says about each exchange, and whether it raised."""

    def __init__(self) -> None:
        self.outcomes: list[Any] = []
        self.raised: list[BaseException] = []

    def wrap(self, app: Any) -> Any:
        async def tapped(scope: Any, receive: Any, send: Any) -> None:
            try:
                await app(scope, receive, send)
            except BaseException as error:
                self.raised.append(error)
                raise
            finally:
                if scope["type"] == "http":
                    self.outcomes.append(scope.get(OUTCOME_KEY))

        return tapped


def test_a_refused_connection_is_a_502_of_our_own(servers: Any, free_port: Callable[[], int]) -> None:
    """JSON for the client, an outcome for the record."""
    tap = OutcomeTap()
    answer = httpx.post(f"http://127.0.0.1:{servers.proxy(free_port(), wrap=tap.wrap)}/v1/x", content=b"abc")
    assert answer.status_code == 502
    assert orjson.loads(answer.content)["error"] == {
        "type": "upstream_error",
        "code": 502,
        "message": "infertap: cannot connect to the upstream: connection refused",
    }
    poll(lambda: len(tap.outcomes) == 1)
    assert tap.outcomes == [("upstream_error", "ConnectError", "cannot connect to the upstream: connection refused")]


def test_a_silent_upstream_is_a_504_of_our_own(servers: Any) -> None:
    """After the read timeout the client gets 504, and the upstream's connection is closed."""
    closed = threading.Event()

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await reader.read()
        closed.set()

    tap = OutcomeTap()
    port = servers.proxy(servers.raw(hang), wrap=tap.wrap, read_timeout_s=0.2)
    answer = httpx.post(f"http://127.0.0.1:{port}/")
    assert answer.status_code == 504
    poll(lambda: len(tap.outcomes) == 1)
    assert tap.outcomes == [("upstream_timeout", "ReadTimeout", "the upstream sent nothing for 0.2 s")]
    assert closed.wait(60)


@pytest.mark.parametrize(
    "framing", [b"Content-Length: 100\r\n", b"Transfer-Encoding: chunked\r\n"], ids=["length", "chunked"]
)
@pytest.mark.parametrize("hang", [False, True], ids=["dies", "hangs"])
def test_half_an_answer_is_never_completed(servers: Any, framing: bytes, hang: bool) -> None:
    """The connection is cut, so that the client knows; the outcome says who failed."""
    tap = OutcomeTap()

    async def half(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n" + framing + b"\r\n")
        writer.write(b"4\r\nhalf\r\n" if b"chunked" in framing else b"half")
        await writer.drain()
        if hang:
            await reader.read()

    port = servers.proxy(servers.raw(half), wrap=tap.wrap, read_timeout_s=2.0 if hang else 60.0)
    with pytest.raises(httpx.RemoteProtocolError):
        httpx.get(f"http://127.0.0.1:{port}/")
    poll(lambda: len(tap.outcomes) == 1)
    assert tap.outcomes[0][0] == ("upstream_timeout" if hang else "upstream_error")
    assert len(tap.raised) == 1


@pytest.mark.parametrize(
    "answer",
    [b"", b"nonsense from a database\r\n\r\n", b"HTTP/1.1 999 Odd\r\nContent-Length: 0\r\n\r\n", b"HTTP/1.1 200"],
)
def test_what_is_no_http_is_a_502_that_quotes_nothing(servers: Any, answer: bytes) -> None:
    """An upstream that hangs up or speaks something else is an upstream error; its bytes stay out of our words."""
    tap = OutcomeTap()

    async def odd(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)

    response = httpx.post(f"http://127.0.0.1:{servers.proxy(servers.raw(odd), wrap=tap.wrap)}/")
    assert response.status_code == 502
    poll(lambda: len(tap.outcomes) == 1)
    assert tap.outcomes[0][0] == "upstream_error"
    assert b"database" not in response.content
    assert "database" not in str(tap.outcomes)


def test_a_safe_request_survives_a_connection_that_died_idle(servers: Any) -> None:
    """A GET on a kept connection that the upstream closes without an answer is sent again; a POST never is."""
    seen: list[bytes] = []

    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(OK)
        seen.append(await reader.readuntil(b"\r\n\r\n"))

    port = servers.proxy(servers.raw(once))
    assert httpx.get(f"http://127.0.0.1:{port}/").content == b"ok"
    assert httpx.get(f"http://127.0.0.1:{port}/").content == b"ok"
    assert len(seen) == 3
    assert httpx.post(f"http://127.0.0.1:{port}/").status_code == 502
    assert len(seen) == 4


def test_an_early_answer_to_an_unfinished_upload_arrives(servers: Any) -> None:
    """A 413 sent before the body was read reaches the client, although the upstream closed on it."""

    async def too_large(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.write_eof()
        await reader.read()

    body = (bytes(1 << 16) for _ in range(64))
    answer = httpx.post(f"http://127.0.0.1:{servers.proxy(servers.raw(too_large))}/", content=body)
    assert answer.status_code == 413


def test_websocket_is_refused_in_words(servers: Any, free_port: Callable[[], int]) -> None:
    """501 with a reason, not a broken handshake."""
    answer = exchange(servers.proxy(free_port()), get(b"/", b"Connection: Upgrade", b"Upgrade: websocket"))
    assert answer.startswith(b"HTTP/1.1 501 ")
    assert b"WebSocket is not supported" in answer


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        (b"Host: a\r\nHost: b\r\nContent-Length: 1\r\n\r\na", b"400"),
        (b"Host: a\r\nhost: a\r\nContent-Length: 1\r\n\r\na", b"400"),
        (b"Host: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n1\r\na\r\n0\r\n\r\n", b"501"),
        (b"Host: a\r\nTransfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n", b"501"),
    ],
)
def test_what_would_mean_something_else_is_not_passed_on(servers: Any, fields: bytes, status: bytes) -> None:
    """Two hosts, a coding below the chunks: refused in words; the next request on the connection is answered."""
    upstream = Recorder()
    port = servers.proxy(servers.raw(upstream))
    after = b"GET /after HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    answers = exchange(port, b"POST / HTTP/1.1\r\n" + fields + after)
    assert re.findall(rb"HTTP/1\.1 (\d+)", answers) == [status, b"200"]
    assert [head.split()[1] for head in upstream.heads] == [b"/after"]


def test_a_refusal_ends_the_connection_of_who_waits_to_send(servers: Any) -> None:
    """Whether the body still comes is that client's choice: nothing behind it could be trusted."""
    port = servers.proxy(servers.raw(Recorder()))
    head = b"POST / HTTP/1.1\r\nHost: a\r\nHost: b\r\nExpect: 100-continue\r\nContent-Length: 99\r\n\r\n"
    answer = exchange(port, head)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"connection: close" in answer


def test_h2c_is_ignored_and_the_request_answered(servers: Any) -> None:
    """An offer to upgrade may be declined silently (RFC 9110 section 7.8)."""
    upstream = Recorder()
    answer = exchange(servers.proxy(servers.raw(upstream)), get(b"/", b"Upgrade: h2c", b"HTTP2-Settings: x"))
    assert answer.endswith(b"ok")
    assert b"upgrade" not in upstream.heads[0].lower()


def test_the_current_span_goes_upstream(servers: Any) -> None:
    """The server span that the middleware made current is the parent of the upstream's spans."""
    upstream = Recorder()
    span = otel_trace.NonRecordingSpan(otel_trace.SpanContext(0xABC, 0xDEF, False, otel_trace.TraceFlags(1)))

    def wrap(app: Any) -> Any:
        async def traced(scope: Any, receive: Any, send: Any) -> None:
            token = otel_context.attach(otel_trace.set_span_in_context(span))
            try:
                await app(scope, receive, send)
            finally:
                otel_context.detach(token)

        return traced

    port = servers.proxy(servers.raw(upstream), wrap=wrap)
    exchange(port, get(b"/", b"traceparent: 00-" + b"1" * 32 + b"-" + b"2" * 16 + b"-01", b"tracestate: a=b"))
    assert b"traceparent: 00-%032x-%016x-01" % (0xABC, 0xDEF) in upstream.lines()
    assert b"tracestate" not in upstream.heads[0]


def test_lifespan_is_answered_without_an_upstream(servers: Any) -> None:
    """The proxy starts and stops cleanly though the model server is not there yet."""
    sent: list[str] = []
    steps = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])

    class Counting:
        opened = closed = 0

        async def open(self) -> None:
            self.opened += 1

        async def close(self) -> None:
            self.closed += 1

    async def receive() -> Any:
        return next(steps)

    async def send(message: Any) -> None:
        sent.append(message["type"])

    upstream = Counting()
    proxy = ReverseProxy(upstream, default_authority=b"a")  # type: ignore[arg-type]
    servers.run(proxy({"type": "lifespan"}, receive, send))
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert (upstream.opened, upstream.closed) == (1, 1)
