"""What every upstream keeps, whichever client it is: bytes as they are, ends where they are, failures in our words."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any

import pytest

from infertap_sidecar.upstream.protocol import (
    UnforwardableError,
    UpstreamError,
    UpstreamRequest,
    UpstreamTimeoutError,
)

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
CANARY = b"canary7461"


async def pieces(*parts: bytes) -> AsyncGenerator[bytes, None]:
    for part in parts:
        yield part


# What goes out.


def test_a_request_is_written_as_it_is(client: Any, serve: Any) -> None:
    """Method, target, names in their case, order, repetitions, odd values: nothing added, nothing changed."""
    heads: list[bytes] = []

    def script(talk: Any) -> None:
        heads.append(talk.head())
        talk.send(OK)

    headers = [(b"host", b"model"), (b"X-b", b"1"), (b"x-a", b"caf\xe9 ;,\"'"), (b"X-b", b"")]
    request = UpstreamRequest("pUt", b"//a/%2F/../?x=%20&&?", headers, None)
    assert client.ask(serve(script).url, request)[0].body == b"ok"
    assert heads == [
        b"pUt //a/%2F/../?x=%20&&? HTTP/1.1\r\nhost: model\r\nX-b: 1\r\nx-a: caf\xe9 ;,\"'\r\nX-b: \r\n\r\n"
    ]


@pytest.mark.parametrize("whole", [True, False], ids=["whole", "pieces"])
def test_a_body_with_a_length_is_sent_bare(client: Any, serve: Any, whole: bool) -> None:
    """Its bytes follow the head, and nothing else."""
    seen: list[bytes] = []

    def script(talk: Any) -> None:
        talk.head()
        seen.append(talk.body(6))
        talk.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        seen.append(talk.rest())

    request = client.request("POST", body=b"abcdef") if whole else client.upload(pieces(b"abc", b"", b"def"), 6)
    server = serve(script)
    assert client.ask(server.url, request)[0].status == 200
    server.close()
    assert seen == [b"abcdef", b""]


@pytest.mark.parametrize("whole", [True, False], ids=["whole", "pieces"])
def test_a_body_without_a_length_is_sent_in_chunks(client: Any, serve: Any, whole: bool) -> None:
    """Each piece is a chunk, and an empty one does not end the body."""
    seen: list[bytes] = []

    def script(talk: Any) -> None:
        talk.head()
        seen.append(talk.until(b"0\r\n\r\n"))
        talk.send(OK)

    chunked = (b"transfer-encoding", b"chunked")
    parts = (b"abc", b"", b"x" * 20)
    body = b"".join(parts) if whole else pieces(*parts)
    request = UpstreamRequest("POST", b"/", [(b"host", b"model"), chunked], body)
    assert client.ask(serve(script).url, request)[0].body == b"ok"
    expected = b"17\r\nabc" + b"x" * 20 + b"\r\n" if whole else b"3\r\nabc\r\n14\r\n" + b"x" * 20 + b"\r\n"
    assert seen == [expected + b"0\r\n\r\n"]


@pytest.mark.parametrize(
    ("method", "target", "header"),
    [
        ("GET", b"/", (b"x-a", b"1\r\nx-injected: 1")),
        ("GET", b"/", (b"x-a", b"1\nx-injected: 1")),
        ("GET", b"/", (b"x-a", b"1\r")),
        ("GET", b"/", (b"x-a", b"1\0")),
        ("GET", b"/", (b"x-a: 1\r\nx-injected", b"1")),
        ("GET", b"/", (b"x a", b"1")),
        ("GET", b"/", (b"", b"1")),
        ("GET", b"/a b", (b"x-a", b"1")),
        ("GET", b"/\r\nx: y", (b"x-a", b"1")),
        ("GET", b"", (b"x-a", b"1")),
        ("GE T", b"/", (b"x-a", b"1")),
        ("GÉT", b"/", (b"x-a", b"1")),
        ("", b"/", (b"x-a", b"1")),
    ],
)
def test_what_would_break_out_of_its_place_is_not_sent(
    client: Any, serve: Any, method: str, target: bytes, header: tuple[bytes, bytes]
) -> None:
    """No value can end its line, no target can end the request line; the error quotes none of it."""
    if client.name == "httpx" and method in ("GÉT", ""):
        pytest.skip("httpx fails on such a method in words of its own; uvicorn lets none through")
    server = serve.answering(OK)
    request = UpstreamRequest(method, target, [(b"host", b"model"), header], None)
    with pytest.raises(UnforwardableError) as caught:
        client.ask(server.url, request)
    assert "x-injected" not in str(caught.value)


@pytest.mark.parametrize("size", [2, 4], ids=["longer", "shorter"])
@pytest.mark.parametrize("whole", [True, False], ids=["whole", "pieces"])
def test_a_body_that_contradicts_its_length_is_no_request(client: Any, serve: Any, size: int, whole: bool) -> None:
    """Too many bytes would be read as the next request; too few would take bytes from it."""
    if not client.native:
        pytest.skip("h11 refuses it in words of its own; uvicorn lets no such request through")
    server = serve(lambda talk: talk.rest())
    headers = [(b"host", b"model"), (b"content-length", b"%d" % size)]
    with pytest.raises(UnforwardableError):
        client.ask(server.url, UpstreamRequest("POST", b"/", headers, b"abc" if whole else pieces(b"a", b"bc")))


# What comes back.


@pytest.mark.parametrize(
    ("method", "answer", "status", "body"),
    [
        ("GET", b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", 200, b"abc"),
        ("GET", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 200, b""),
        ("GET", b"HTTP/1.1 200\r\nContent-Length: 1\r\n\r\na", 200, b"a"),
        ("GET", b"HTTP/1.1 599 \xe9\r\nContent-Length: 1\r\n\r\na", 599, b"a"),
        ("GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", 200, b"abc"),
        ("GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n0\r\n\r\n", 200, b""),
        ("GET", b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;a="b;c"\r\nabc\r\n0\r\n\r\n', 200, b"abc"),
        ("GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3  \r\nabc\r\n0\r\n\r\n", 200, b"abc"),
        ("GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n02\r\nab\r\n0\r\n\r\n", 200, b"ab"),
        ("GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX-T: 1\r\n\r\n", 200, b"a"),
        ("GET", b"HTTP/1.1 200 OK\r\n\r\nuntil the end", 200, b"until the end"),
        ("GET", b"HTTP/1.0 200 OK\r\n\r\nold", 200, b"old"),
        ("GET", b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nold", 200, b"old"),
        ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n", 200, b""),
        ("HEAD", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", 200, b""),
        ("HEAD", b"HTTP/1.1 200 OK\r\n\r\n", 200, b""),
        ("GET", b"HTTP/1.1 204 No Content\r\n\r\n", 204, b""),
        ("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 99\r\n\r\n", 304, b""),
        ("GET", b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nLink: x\r\n\r\n" + OK, 200, b"ok"),
        ("GET", b"HTTP/1.1 103 Hints\r\nConnection: close\r\n\r\n" + OK, 200, b"ok"),
        ("GET", b"HTTP/1.0 100 Continue\r\n\r\n" + OK, 200, b"ok"),
        ("GET", b"HTTP/1.1 102 Processing\r\nX: 1\r\n\r\n" * 1_500 + OK, 200, b"ok"),
        ("GET", b"HTTP/1.1 200 OK\nContent-Length: 3\n\na\nb", 200, b"a\nb"),
        ("GET", b"HTTP/1.1 200 OK\r\nX-A: 1\nX-B: 2\r\nContent-Length: 2\n\r\nab", 200, b"ab"),
        ("GET", b"HTTP/1.0 200 OK\nX-A: 1\n\nuntil\nthe end", 200, b"until\nthe end"),
        ("GET", b"HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n1\r\na\r\n0\r\n\r\n", 200, b"a"),
        ("GET", b"HTTP/1.1 100 Continue\n\nHTTP/1.1 200 OK\nContent-Length: 2\n\nok", 200, b"ok"),
        ("GET", b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\nContent-Length: 2\n\nok", 200, b"ok"),
        ("HEAD", b"HTTP/1.1 200 OK\nContent-Length: 2\n\n", 200, b""),
        ("GET", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX: 1\r\ncontent-length:2 \r\n\r\nok", 200, b"ok"),
        ("GET", b"HTTP/1.1 200 OK\nContent-Length: 2\nContent-Length: 2\nContent-Length: 2\n\nok", 200, b"ok"),
        ("GET", b"HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nok", 200, b"ok"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("cut", [False, True], ids=["at once", "byte by byte"])
def test_an_answer_ends_where_it_ends(
    client: Any, serve: Any, method: str, answer: bytes, status: int, body: bytes, cut: bool
) -> None:
    """By length, by chunks, by the connection's end, by its status or the request's method; however it is cut."""

    def script(talk: Any) -> None:
        talk.head()
        talk.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for part in [answer[at : at + 1] for at in range(len(answer))] if cut else [answer]:
            talk.send(part)

    (seen,) = client.ask(serve(script).url, client.request(method))
    assert (seen.status, seen.body) == (status, body)


def test_the_fields_of_an_answer_are_as_sent(client: Any, serve: Any) -> None:
    """Order, case, repetitions and bytes; only white space around a value goes."""
    fields = b"SERVER: x\r\nset-Cookie: a=1\r\nX-Caf: \xe9\r\nset-Cookie:b=2  \r\nX-Empty:\r\nContent-Length: 0\r\n"
    (seen,) = client.ask(serve.answering(b"HTTP/1.1 200 OK\r\n" + fields + b"\r\n").url, client.request())
    assert seen.headers == [
        (b"SERVER", b"x"), (b"set-Cookie", b"a=1"), (b"X-Caf", b"\xe9"), (b"set-Cookie", b"b=2"), (b"X-Empty", b""),
        (b"Content-Length", b"0"),
    ]  # fmt: skip


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_connection_is_used_again(client: Any, serve: Any, method: str) -> None:
    """Where the answer ended by itself, the next request follows on the same connection."""
    answer = OK if method == "GET" else OK.removesuffix(b"ok")
    server = serve.answering(*[answer] * 5)
    client.ask(server.url, *[client.request(method)] * 5)
    assert server.accepted == 1


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nConnection: x, Close\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        OK + b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nothers",
        OK + b"garbage",
        b"HTTP/1.1 103 Hints\r\nConnection: close\r\n\r\n" + OK,
        b"HTTP/1.0 100 Continue\r\n\r\n" + OK,
        OK.replace(b"\r\n", b"\n"),
        OK.replace(b"Content-Length: 2\r\n", b"Content-Length: 2\r\nContent-Length: 2\r\n"),
        OK.replace(b"\r\n", b"\n") + b"HTTP/1.1 200 OK\nContent-Length: 6\n\nothers",
    ],
    ids=[
        "close",
        "close in a list",
        "1.0",
        "chunked 1.0",
        "an answer too many",
        "garbage behind",
        "close in a 1xx",
        "a 1xx of 1.0",
        "LF",
        "a length twice",
        "an answer too many with LF",
    ],
)
def test_a_connection_out_of_step_is_not_used_again(client: Any, serve: Any, answer: bytes) -> None:
    """Whatever follows an answer never becomes another request's answer."""
    closed = (b"HTTP/1.1 200 OK\r\nConnection:", b"HTTP/1.0 200 OK\r\nContent-Length:")
    if not client.native and not answer.startswith(closed):
        pytest.skip("httpx uses the connection again, and reads what follows then")

    def script(talk: Any) -> None:
        talk.head()
        talk.send(answer)
        talk.rest()

    server = serve(script)
    assert [seen.body for seen in client.ask(server.url, *[client.request()] * 3)] == [b"ok"] * 3
    assert server.accepted == 3


LENIENT = "h11, and so httpx, takes it"
WAITS = "h11, and so httpx, waits for the CR for ever"
BROKEN: list[tuple[str, bytes, str]] = [
    ("length and chunks", b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", LENIENT),
    ("chunks and length", b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n3\r\nabc\r\n0\r\n\r\n", LENIENT),
    ("two lengths", b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", ""),
    ("a list of lengths", b"Content-Length: 3, 4\r\n\r\nabcd", ""),
    ("two lengths and LF", b"X: 1\nContent-Length: 3\nContent-Length: 4\n\nabcd", ""),
    ("two lengths apart", b"Content-Length: 3\r\nX: 1\r\nContent-Length: 3, 4\r\n\r\nabcd", ""),
    ("one length in two ways", b"Content-Length: 3\r\nContent-Length: 03\r\n\r\nabc", ""),
    ("an empty length beside one", b"Content-Length: 3\r\nContent-Length:\r\n\r\nabc", ""),
    ("a list that ends in nothing", b"Content-Length: 3,\r\n\r\nabc", ""),
    ("length, chunks and LF", b"Content-Length: 3\nTransfer-Encoding: chunked\n\n3\r\nabc\r\n0\r\n\r\n", LENIENT),
    ("a folded line with LF", b"X-A: 1\n Content-Length: 2\nContent-Length: 3\n\nabc", LENIENT),
    ("a bare CR before an LF", b"X-A: 1\r\r\nContent-Length: 3\r\n\r\nabc", ""),
    ("chunks with LF", b"Transfer-Encoding: chunked\r\n\r\n3\nabc\n0\n\n", WAITS),
    ("chunks and a head with LF", b"X: 1\nTransfer-Encoding: chunked\n\n3\nabc\n0\n\n", WAITS),
    ("trailers with LF", b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX: 1\n\n", WAITS),
    ("a signed length", b"Content-Length: +3\r\n\r\nabc", ""),
    ("a negative length", b"Content-Length: -3\r\n\r\nabc", ""),
    ("no length after all", b"Content-Length: \r\n\r\nabc", ""),
    ("a word as length", b"Content-Length: " + CANARY + b"\r\n\r\nabc", ""),
    ("an endless length", b"Content-Length: " + b"9" * 40 + b"\r\n\r\nabc", ""),
    ("space before a colon", b"Content-Length : 3\r\n\r\nabc", ""),
    ("a line without a colon", CANARY + b"\r\n\r\nabc", ""),
    ("a folded line", b"X-A: 1\r\n " + CANARY + b"\r\nContent-Length: 3\r\n\r\nabc", LENIENT),
    ("a zero byte", b"X-A: \0" + CANARY + b"\r\nContent-Length: 3\r\n\r\nabc", ""),
    ("a bare CR", b"X-A: 1\r" + CANARY + b"\r\nContent-Length: 3\r\n\r\nabc", ""),
    ("a chunk size in words", b"Transfer-Encoding: chunked\r\n\r\n" + CANARY + b"\r\nabc\r\n0\r\n\r\n", ""),
    ("a chunk size with 0x", b"Transfer-Encoding: chunked\r\n\r\n0x3\r\nabc\r\n0\r\n\r\n", ""),
    ("a negative chunk", b"Transfer-Encoding: chunked\r\n\r\n-3\r\nabc\r\n0\r\n\r\n", ""),
    ("an endless chunk", b"Transfer-Encoding: chunked\r\n\r\n" + b"f" * 40 + b"\r\nabc\r\n0\r\n\r\n", ""),
    ("a chunk too long", b"Transfer-Encoding: chunked\r\n\r\n2\r\nabc\r\n0\r\n\r\n", ""),
    ("chunked twice", b"Transfer-Encoding: chunked, chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", ""),
    ("chunked not last", b"Transfer-Encoding: chunked, gzip\r\n\r\n3\r\nabc\r\n0\r\n\r\n", ""),
    ("a coding nobody can read", b"Transfer-Encoding: chunked;q=1\r\n\r\n3\r\nabc\r\n0\r\n\r\n", ""),
    ("fields without end", b"X-A: " + b"x" * (1 << 20) + b"\r\n\r\n", ""),
    ("too many fields", b"X: 1\r\n" * 60_000 + b"\r\n", ""),
    ("trailers without end", b"Transfer-Encoding: chunked\r\n\r\n0\r\nX: " + b"x" * (1 << 20) + b"\r\n\r\n", ""),
]


@pytest.mark.parametrize(("rest", "lenient"), [case[1:] for case in BROKEN], ids=[case[0] for case in BROKEN])
def test_an_answer_that_can_be_read_in_two_ways_is_none(client: Any, serve: Any, rest: bytes, lenient: str) -> None:
    """It is an upstream's failure, and its words hold no byte of it."""
    if lenient and not client.native:
        pytest.skip(lenient)
    server = serve(lambda talk: (talk.head(), talk.send(b"HTTP/1.1 200 OK\r\n" + rest), talk.rest()))
    with pytest.raises(UpstreamError) as caught:
        client.ask(server.url, client.request())
    assert caught.value.status == 502
    assert CANARY.decode() not in f"{caught.value!r} {caught.value} {caught.value.__cause__!r}"


@pytest.mark.parametrize(
    "answer",
    [
        b"", b"HTTP/1.1", b"HTTP/1.1 200 OK\r\n", CANARY + b"\r\n\r\n", b"HTTP/1.1 2000 OK\r\n\r\n", b"SSH-2.0-x\r\n",
        b"HTTP/1.1 99 Low\r\n\r\n", b"HTTP/3.0 200 OK\r\nContent-Length: 0\r\n\r\n", b"\x15\x03\x01\x00\x02\x02\x50",
    ],
)  # fmt: skip
def test_what_is_no_http_is_an_upstreams_failure(client: Any, serve: Any, answer: bytes) -> None:
    """Another protocol, half a head, nothing at all."""
    if not client.native and answer.startswith(b"HTTP/3"):
        pytest.skip(LENIENT)
    with pytest.raises(UpstreamError) as caught:
        client.ask(serve.answering(answer).url, client.request("POST"))
    assert caught.value.status == 502
    assert CANARY.decode() not in str(caught.value)


@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
@pytest.mark.parametrize(
    "half",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nhalf",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n0\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n0\r\nX-T: 1\r\n",
    ],
    ids=["length", "between chunks", "within a chunk", "before the last line", "within the trailers"],
)
def test_half_an_answer_is_never_a_whole_one(client: Any, serve: Any, half: bytes, reset: bool) -> None:
    """What came is handed on, and then the failure."""
    seen: list[bytes] = []
    taken = threading.Event()

    def script(talk: Any) -> None:
        talk.head()
        talk.send(half)
        assert taken.wait(60)
        if reset:
            talk.reset()

    async def read(url: str) -> None:
        async with client.opened(url) as upstream, upstream.exchange(client.request("POST")) as response:
            async for chunk in response.chunks():
                seen.append(chunk)
                taken.set()

    with pytest.raises(UpstreamError):
        client.run(read(serve(script).url))
    assert b"".join(seen) == b"half"


def test_a_reset_does_not_end_an_answer_without_length(native: Any, serve: Any) -> None:
    """Where the connection's end is the answer's, only an orderly end is one."""
    taken = threading.Event()

    def script(talk: Any) -> None:
        talk.head()
        talk.send(b"HTTP/1.1 200 OK\r\n\r\nhalf")
        assert taken.wait(60)
        talk.reset()

    async def read(url: str) -> None:
        async with native.opened(url) as upstream, upstream.exchange(native.request()) as response:
            async for _ in response.chunks():
                taken.set()

    with pytest.raises(UpstreamError):
        native.run(read(serve(script).url))


# Both ways at once.


@pytest.mark.parametrize("size", [0, 100_000], ids=["no body", "100 KB"])
def test_an_early_answer_arrives_though_the_server_closes(client: Any, serve: Any, size: int) -> None:
    """A server that refuses an upload by its head, answers and closes resets the connection; ten times of ten."""
    if not client.native:
        pytest.skip("httpx reads nothing until the whole body is sent")
    answer = b"HTTP/1.1 413 Too Large\r\nContent-Length: %d\r\n\r\n" % size + bytes(size)

    async def endless() -> AsyncGenerator[bytes, None]:
        while True:
            yield bytes(1 << 16)
            await asyncio.sleep(0)

    server = serve(lambda talk: (talk.head(), talk.send(answer), talk.acknowledged()))
    seen = [client.ask(server.url, client.upload(endless()))[0] for _ in range(10)]
    assert [(answer.status, len(answer.body)) for answer in seen] == [(413, size)] * 10


def test_a_server_may_answer_while_it_still_reads(client: Any, serve: Any) -> None:
    """The client of an echo gets each piece back before it sends the next one."""
    if not client.native:
        pytest.skip("httpx reads nothing until the whole body is sent")

    def echo(talk: Any) -> None:
        talk.head()
        talk.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(20):
            talk.send(b"%b\r\n%b\r\n" % (size := talk.until(b"\r\n")[:-2], talk.body(int(size, 16))))
            talk.body(2)
        talk.until(b"0\r\n\r\n")
        talk.send(b"0\r\n\r\n")

    echoed: asyncio.Queue[bytes] = asyncio.Queue()

    async def speak() -> AsyncGenerator[bytes, None]:
        for number in range(20):
            yield b"piece %d" % number
            assert await echoed.get() == b"piece %d" % number

    async def listen(url: str) -> None:
        async with client.opened(url) as upstream, upstream.exchange(client.upload(speak())) as response:
            async for chunk in response.chunks():
                echoed.put_nowait(chunk)

    client.run(listen(serve(echo).url))


def test_after_an_early_answer_the_body_is_closed_and_the_connection_cut(client: Any, serve: Any) -> None:
    """Once the answer is complete nobody sends on; what was sent of the body never precedes another request."""
    if not client.native:
        pytest.skip("httpx reads nothing until the whole body is sent")
    closed: list[str] = []
    rest: list[bytes] = []

    async def stuck() -> AsyncGenerator[bytes, None]:
        try:
            yield b"first"
            await asyncio.Event().wait()
        finally:
            closed.append("closed")

    def script(talk: Any) -> None:
        talk.head()
        talk.body(5)
        talk.send(OK)
        rest.append(talk.rest())

    server = serve(script, lambda talk: (talk.head(), talk.send(OK)))
    seen = client.ask(server.url, client.upload(stuck(), 100), client.request())
    server.close()
    assert [answer.body for answer in seen] == [b"ok", b"ok"]
    assert (closed, rest, server.accepted) == (["closed"], [b""], 2)


async def is_at_rest(count: Callable[[], int]) -> int:
    """The count, once it has not changed for a while."""
    same, before = 0, -1
    while same < 20:
        await asyncio.sleep(0.01)
        now = count()
        same, before = (same + 1 if now == before else 0), now
    return before


def test_a_slow_client_slows_the_server(client: Any, serve: Any) -> None:
    """While nobody takes the answer, the server cannot send more than the buffers on the way hold."""
    total, sent = 64 << 20, [0]

    def script(talk: Any) -> None:
        talk.head()
        talk.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % total)
        while sent[0] < total:
            sent[0] += talk.socket.send(bytes(1 << 20))

    async def read(url: str) -> tuple[int, int]:
        async with client.opened(url) as upstream, upstream.exchange(client.request()) as response:
            chunks = response.chunks()
            size = len(await anext(chunks))
            held = await is_at_rest(lambda: sent[0])
            async for chunk in chunks:
                size += len(chunk)
            return held, size

    held, size = client.run(read(serve(script).url))
    assert held < 32 << 20
    assert size == total


def test_a_slow_server_slows_the_client(client: Any, serve: Any) -> None:
    """While the server takes nothing, no more of the body is asked for than the buffers on the way hold."""
    total, taken = 64 << 20, [0]
    go = threading.Event()

    async def body() -> AsyncGenerator[bytes, None]:
        while taken[0] < total:
            taken[0] += 1 << 16
            yield bytes(1 << 16)

    def script(talk: Any) -> None:
        talk.head()
        assert go.wait(60)
        talk.skip(total)
        talk.send(OK)

    async def send(url: str) -> int:
        async with client.opened(url) as upstream:
            answer = asyncio.create_task(client.answer(upstream, client.upload(body(), total)))
            held = await is_at_rest(lambda: taken[0])
            go.set()
            assert (await answer).body == b"ok"
            return held

    assert client.run(send(serve(script).url)) < 32 << 20


# Silence.


def test_a_silent_server_is_given_up(client: Any, serve: Any) -> None:
    """Before its answer and within it; the server sees the connection close."""
    ended: list[bytes] = []

    def script(talk: Any) -> None:
        talk.head()
        talk.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")
        ended.append(talk.rest())

    for scripts in ((lambda talk: talk.rest(), script), (script,)):
        with pytest.raises(UpstreamTimeoutError, match=r"sent nothing for 0\.2 s") as caught:
            client.ask(serve(*scripts).url, client.request("POST"), read_timeout_s=0.2)
        assert (caught.value.error_type, caught.value.status) == ("ReadTimeout", 504)


def test_a_server_that_takes_nothing_is_given_up(client: Any, serve: Any) -> None:
    """A body that stalls is the server's failure."""

    async def endless() -> AsyncGenerator[bytes, None]:
        while True:
            yield bytes(1 << 20)

    done = threading.Event()
    server = serve(lambda talk: (talk.head(), done.wait(60)))
    try:
        with pytest.raises(UpstreamTimeoutError, match=r"took nothing of the request body for 0\.5 s") as caught:
            client.ask(server.url, client.upload(endless()), read_timeout_s=0.5)
        assert caught.value.error_type == "WriteTimeout"
    finally:
        done.set()


def test_a_slow_client_is_not_the_servers_silence(client: Any, serve: Any) -> None:
    """However long the client takes to send its body, or to take the answer, the server is not to blame."""

    async def slow() -> AsyncGenerator[bytes, None]:
        for part in (b"ab", b"cd"):
            await asyncio.sleep(0.7)
            yield part

    def script(talk: Any) -> None:
        talk.head()
        talk.body(4)
        talk.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab")
        talk.send(b"cd")

    async def read(url: str) -> bytes:
        body = b""
        request = client.upload(slow(), 4)
        async with client.opened(url, read_timeout_s=0.4) as upstream, upstream.exchange(request) as response:
            await asyncio.sleep(0.7)
            async for chunk in response.chunks():
                body += chunk
                await asyncio.sleep(0.7)
        return body

    assert client.run(read(serve(script).url)) == b"abcd"


def test_a_connection_that_is_never_made_is_given_up(client: Any, serve: Any) -> None:
    """TLS that nobody answers counts as no connection."""
    server = serve(lambda talk: talk.rest())
    url = server.url.replace("http://", "https://")
    with pytest.raises(UpstreamTimeoutError, match=r"no connection to the upstream within 0\.3 s") as caught:
        client.ask(url, client.request(), connect_timeout_s=0.3)
    assert caught.value.error_type == "ConnectTimeout"


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://127.0.0.1:{port}", "connection refused"),
        ("http://localhost:{port}", "connection refused"),
        ("http://no-such-name.invalid:{port}", "the name is not known"),
        ("unix:/no/such/socket", "no such file or directory"),
    ],
)
def test_why_there_is_no_connection_is_said(client: Any, free_port: Callable[[], int], url: str, words: str) -> None:
    """In the operating system's words."""
    with pytest.raises(UpstreamError, match=f"cannot connect to the upstream: {words}") as caught:
        client.ask(url.format(port=free_port()), client.request())
    assert (caught.value.error_type, caught.value.status) == ("ConnectError", 502)


# Repeating.


@pytest.mark.parametrize(
    ("method", "body", "repeated"),
    [
        ("GET", None, True), ("HEAD", None, True), ("OPTIONS", None, True), ("DELETE", None, True),
        ("PUT", b"abc", True), ("POST", None, False), ("POST", b"abc", False), ("PATCH", b"abc", False),
        ("get", None, False), ("LOCK", None, False),
    ],
)  # fmt: skip
def test_only_what_may_come_twice_is_sent_twice(
    client: Any, serve: Any, method: str, body: bytes | None, repeated: bool
) -> None:
    """When a kept connection dies without a byte, idempotent requests are sent again on a new one, others never."""
    seen: list[bytes] = []

    def once(talk: Any) -> None:
        talk.head()
        talk.send(OK)
        seen.append(talk.head())

    def after(talk: Any) -> None:
        head = talk.head()
        seen.append(head)
        talk.body(len(body or b""))
        talk.send(OK if b"HEAD" not in head else OK.removesuffix(b"ok"))

    requests = client.request(), client.request(method, body=body)
    url = serve(once, after).url
    if repeated:
        assert client.ask(url, *requests)[1].status == 200
    else:
        with pytest.raises(UpstreamError):
            client.ask(url, *requests)
    assert len(seen) == (2 if repeated else 1)


def test_a_silent_server_is_not_asked_twice(client: Any, serve: Any) -> None:
    """Even a GET on a kept connection: who waited for the whole timeout is not made to wait for it again."""
    server = serve(lambda talk: (talk.head(), talk.send(OK), talk.rest()))
    with pytest.raises(UpstreamTimeoutError):
        client.ask(server.url, client.request(), client.request(), read_timeout_s=0.5)
    assert server.accepted == 1


def test_a_body_that_was_begun_is_not_sent_twice(client: Any, serve: Any) -> None:
    """What came piece by piece is gone."""
    server = serve(lambda talk: (talk.head(), talk.send(OK), talk.head()))
    put = UpstreamRequest("PUT", b"/", [(b"host", b"model"), (b"content-length", b"3")], pieces(b"abc"))
    with pytest.raises(UpstreamError):
        client.ask(server.url, client.request(), put)
    assert server.accepted == 1


# Leaving.


@pytest.mark.parametrize("when", ["before the answer", "within the answer", "within the request"])
def test_who_leaves_early_ends_the_exchange(client: Any, serve: Any, when: str) -> None:
    """The server sees the connection close, no half request is completed, and the next exchange is fine."""
    asked, ended = threading.Event(), threading.Event()
    seen: list[bytes] = []

    async def stuck() -> AsyncGenerator[bytes, None]:
        yield b"abc"
        await asyncio.Event().wait()

    def script(talk: Any) -> None:
        talk.head()
        if when == "within the answer":
            talk.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")
        if when == "within the request":
            assert talk.body(3) == b"abc"
        asked.set()
        seen.append(talk.rest())
        ended.set()

    async def leave(url: str) -> None:
        request = client.upload(stuck(), 9) if when == "within the request" else client.request("POST")
        async with client.opened(url) as upstream:

            async def exchange() -> None:
                async with upstream.exchange(request) as response:
                    async for _ in response.chunks():
                        raise KeyError

            task = asyncio.create_task(exchange())
            await client.until(asked.is_set)
            if when != "within the answer":
                task.cancel()
            with pytest.raises((asyncio.CancelledError, KeyError)):
                await task
            await client.until(ended.is_set)
            assert (await client.answer(upstream, client.request())).body == b"ok"

    server = serve(script, lambda talk: (talk.head(), talk.send(OK)))
    client.run(leave(server.url))
    server.close()
    assert seen == [b""]


def test_what_reading_the_body_raises_is_raised(client: Any, serve: Any) -> None:
    """A client that left within its request ends the exchange by its own error, and nothing is sent on."""
    rest: list[bytes] = []

    class LeftError(Exception):
        pass

    async def broken() -> AsyncGenerator[bytes, None]:
        yield b"abc"
        raise LeftError

    server = serve(lambda talk: (talk.head(), rest.append(talk.rest())))
    with pytest.raises(LeftError):
        client.ask(server.url, client.upload(broken(), 9))
    client.run(client.until(lambda: bool(rest)))
    assert rest == [b"abc"]


def test_a_body_is_closed_whatever_happens(client: Any, serve: Any, free_port: Callable[[], int]) -> None:
    """Whoever waits for the end of reading waits for nothing else: refused, broken or answered."""
    closed: list[str] = []

    async def body() -> AsyncGenerator[bytes, None]:
        try:
            while True:
                yield bytes(1 << 16)
                await asyncio.sleep(0)
        finally:
            closed.append("closed")

    async def attempt(url: str) -> None:
        stream = body()
        await anext(stream)
        async with client.opened(url) as upstream:
            with pytest.raises((UpstreamError, UnforwardableError)):
                await client.answer(upstream, client.upload(stream))

    client.run(attempt(f"http://127.0.0.1:{free_port()}"))
    client.run(attempt(serve(lambda talk: talk.head()).url))
    assert closed == ["closed"] * 2


# Where it connects.


def test_a_unix_socket_is_an_upstream(client: Any, serve: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`unix:/path` connects there."""
    # From the folder itself: the whole path may be longer than a socket's may be.
    monkeypatch.chdir(tmp_path)
    server = serve(lambda talk: (talk.head(), talk.send(OK)), path="model.sock")
    assert client.ask(server.url, client.request())[0].body == b"ok"


def test_tls_trusts_what_the_environment_says(
    client: Any, serve: Any, tls: Any, certificates: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With `SSL_CERT_FILE` the server's certificate is fine, without it the connection fails, and says why."""
    server = serve(lambda talk: [(talk.head(), talk.send(OK)) for _ in range(2)], tls=tls)
    with pytest.raises(UpstreamError, match="TLS failed"):
        client.ask(server.url, client.request())
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates / "ca.pem"))
    assert [seen.body for seen in client.ask(server.url, client.request(), client.request())] == [b"ok", b"ok"]


@pytest.mark.parametrize("whole", [True, False], ids=["whole", "cut off"])
def test_tls_that_is_cut_off_ends_no_answer(
    client: Any, serve: Any, tls: Any, certificates: Path, monkeypatch: pytest.MonkeyPatch, whole: bool
) -> None:
    """An answer that ends with its connection is whole only with TLS's own goodbye: a FIN could be anybody's."""
    if not client.native and not whole:
        pytest.skip("httpx takes a cut-off answer without a length for whole")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates / "ca.pem"))

    def script(talk: Any) -> None:
        talk.head()
        talk.send(b"HTTP/1.1 200 OK\r\n\r\nto the end")
        if whole:
            with contextlib.suppress(OSError):
                talk.socket.unwrap()
        else:
            talk.socket.shutdown(socket.SHUT_WR)
            talk.rest()

    async def read(url: str) -> tuple[bytes, str]:
        body = b""
        try:
            async with client.opened(url) as upstream, upstream.exchange(client.request()) as response:
                async for chunk in response.chunks():
                    body += chunk
        except UpstreamError as error:
            return body, error.error_type
        return body, ""

    assert client.run(read(serve(script, tls=tls).url)) == (b"to the end", "" if whole else "RemoteProtocolError")


def test_tls_to_a_server_without_it_is_said(client: Any, serve: Any) -> None:
    """https:// to a plain port is a connection failure that names TLS."""
    server = serve(lambda talk: (talk.socket.recv(4096), talk.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")))
    with pytest.raises(UpstreamError, match="TLS failed"):
        client.ask(server.url.replace("http://", "https://"), client.request())
