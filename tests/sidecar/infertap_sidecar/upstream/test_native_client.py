"""The client of our own, where it promises more than the contract: its connections, its trailers, its patience."""

import asyncio
import contextlib
import threading
from pathlib import Path
from typing import Any

import pytest

from infertap_sidecar.upstream.dialer import authority_of
from infertap_sidecar.upstream.protocol import UpstreamError, UpstreamTimeoutError

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def test_trailers_are_there_after_the_body(native: Any, serve: Any) -> None:
    """Fields behind the last chunk come as sent, and never mix with the head's."""
    answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 7\r\nx-b: \r\n\r\n"
    (seen,) = native.ask(serve.answering(answer).url, native.request())
    assert seen.headers == [(b"Transfer-Encoding", b"chunked")]
    assert seen.trailers == [(b"X-Sum", b"7"), (b"x-b", b"")]


def test_a_protocol_nobody_asked_for_is_refused(native: Any, serve: Any) -> None:
    """101 is no answer, and what follows it is not HTTP."""
    switched = b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nbytes"
    with pytest.raises(UpstreamError, match="it switches protocols"):
        native.ask(serve.answering(switched).url, native.request())


@pytest.mark.parametrize("count", [1, 5])
def test_interim_answers_count_against_the_head(native: Any, serve: Any, count: int) -> None:
    """A server cannot keep us busy with 103 for ever."""
    hint = b"HTTP/1.1 103 Hints\r\nLink: " + b"x" * 60_000 + b"\r\n\r\n"
    server = serve(lambda talk: (talk.head(), talk.send(hint * count + OK), talk.rest()))
    with pytest.raises(UpstreamError) if count == 5 else contextlib.nullcontext():
        assert native.ask(server.url, native.request())[0].body == b"ok"


def test_no_more_connections_than_allowed_and_first_come_first_served(native: Any, serve: Any) -> None:
    """Twelve requests through three connections: never more than three at once, in the order they came."""
    lock, order = threading.Lock(), []
    now, most = [0], [0]

    def script(talk: Any) -> None:
        while True:
            head = talk.head()
            with lock:
                order.append(int(head.split(b"number: ")[1].split(b"\r\n")[0]))
                now[0] += 1
                most[0] = max(most[0], now[0])
            talk.body(1)
            with lock:
                now[0] -= 1
            talk.send(OK)

    async def crowd(url: str) -> None:
        gates = [asyncio.Event() for _ in range(12)]

        async def body(number: int) -> Any:
            await gates[number].wait()
            yield b"x"

        def request(number: int) -> Any:
            made = native.upload(body(number), 1)
            return type(made)(made.method, made.target, [*made.headers, (b"number", b"%d" % number)], made.body)

        async with native.opened(url, connections_max=3) as upstream:
            tasks = []
            for number in range(12):
                tasks.append(asyncio.create_task(native.answer(upstream, request(number))))
                await native.until(lambda number=number: len(order) == min(number + 1, 3))
            # One that waits gives up: its place goes to the next in line.
            tasks[5].cancel()
            for number in range(12):
                gates[number].set()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            assert isinstance(results.pop(5), asyncio.CancelledError)
            assert [result.body for result in results] == [b"ok"] * 11

    server = serve(script)
    native.run(crowd(server.url))
    assert most == [3]
    assert server.accepted == 3
    assert order[:3] == [0, 1, 2]
    assert sorted(order) == [0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11]


def test_who_waits_too_long_for_a_connection_is_told(native: Any, serve: Any) -> None:
    """All are busy for as long as a server may be silent."""
    done = threading.Event()

    def drip(talk: Any) -> None:
        talk.head()
        talk.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            while not done.wait(0.02):
                talk.send(b".")

    async def two(url: str) -> None:
        async with (
            native.opened(url, connections_max=1, read_timeout_s=1.0) as upstream,
            upstream.exchange(native.request()) as response,
        ):
            drops = asyncio.create_task(_consume(response))
            with pytest.raises(UpstreamTimeoutError, match="became free within 1 s") as caught:
                await native.answer(upstream, native.request())
            assert caught.value.error_type == "PoolTimeout"
            drops.cancel()
            await asyncio.wait((drops,))

    server = serve(drip)
    try:
        native.run(two(server.url))
    finally:
        done.set()


async def _consume(response: Any) -> None:
    async for _ in response.chunks():
        pass


def test_a_place_whose_connection_failed_is_free_again(native: Any, serve: Any, free_port: Any) -> None:
    """Refused and broken connections do not use up what may be open."""

    async def many(url: str, kind: type[Exception]) -> None:
        async with native.opened(url, connections_max=2) as upstream:
            for _ in range(5):
                with pytest.raises(kind):
                    await native.answer(upstream, native.request("POST"))

    native.run(many(f"http://127.0.0.1:{free_port()}", UpstreamError))
    server = serve(lambda talk: talk.head())
    native.run(many(server.url, UpstreamError))
    assert server.accepted == 5


def test_an_idle_connection_is_closed_in_time(native: Any, serve: Any) -> None:
    """Before a server's own limit is reached; the next request makes a new one."""
    ended: list[bytes] = []
    server = serve(lambda talk: (talk.head(), talk.send(OK), ended.append(talk.rest())))

    async def idle(url: str) -> None:
        async with native.opened(url) as upstream:
            await native.answer(upstream, native.request())
            await native.until(lambda: ended == [b""])
            await native.answer(upstream, native.request())

    native.run(idle(server.url))
    assert server.accepted == 2


@pytest.mark.parametrize("then", [b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nothers", b""], ids=["speaks", "closes"])
def test_a_kept_connection_that_changed_is_not_used(native: Any, serve: Any, then: bytes) -> None:
    """What the server said or did while nobody asked is seen before the next request is written, a POST too."""
    changed = threading.Event()

    def script(talk: Any) -> None:
        talk.head()
        talk.send(OK)
        talk.socket.settimeout(0.05)
        if then:
            talk.send(then)
            changed.set()
            talk.socket.settimeout(60)
            talk.rest()

    async def ask_twice(url: str) -> None:
        async with native.opened(url) as upstream:
            assert (await native.answer(upstream, native.request())).body == b"ok"
            if then:
                assert changed.wait(60)
            else:
                # The loop stands still, so only the kernel knows that the server has closed.
                threading.Event().wait(0.5)
            assert (await native.answer(upstream, native.request("POST", body=b"x"))).body == b"ok"

    server = serve(script, lambda talk: (talk.head(), talk.body(1), talk.send(OK)))
    native.run(ask_twice(server.url))
    assert server.accepted == 2


def test_tls_ends_an_answer_without_length_in_order(
    native: Any, serve: Any, tls: Any, certificates: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over TLS, too, the server's close ends an answer that has no length."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates / "ca.pem"))

    def script(talk: Any) -> None:
        talk.head()
        talk.send(b"HTTP/1.1 200 OK\r\n\r\nto the end")
        talk.socket.unwrap()

    assert native.ask(serve(script, tls=tls).url, native.request())[0].body == b"to the end"


@pytest.mark.parametrize(
    ("url", "authority"),
    [
        ("http://Model:80", b"model"), ("http://model:8000", b"model:8000"), ("https://model:443", b"model"),
        ("https://model", b"model"), ("http://[::1]:8000", b"[::1]:8000"), ("unix:/run/model.sock", b"localhost"),
        ("http://bücher.example:81", b"xn--bcher-kva.example:81"),
    ],
)  # fmt: skip
def test_the_upstreams_own_host(url: str, authority: bytes) -> None:
    """As a client would send it."""
    assert authority_of(url) == authority
