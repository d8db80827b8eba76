"""The httpx upstream on its own: the user's transport, and how it names what went wrong."""

import asyncio
from typing import Any

import httpx
import pytest

from infertap_sidecar.upstream.httpx_client import HttpxUpstream
from infertap_sidecar.upstream.protocol import (
    UnforwardableError,
    UpstreamError,
    UpstreamRequest,
    UpstreamTimeoutError,
)

GET = UpstreamRequest("GET", b"//a/%2F?x", [(b"host", b"model")], None)


def ask(upstream: HttpxUpstream, request: UpstreamRequest = GET) -> tuple[int, bytes]:
    async def exchange() -> tuple[int, bytes]:
        await upstream.open()
        try:
            async with upstream.exchange(request) as response:
                return response.status, b"".join([chunk async for chunk in response.chunks()])
        finally:
            await upstream.close()
            await upstream.close()

    return asyncio.run(exchange())


def make(url: str, **options: Any) -> HttpxUpstream:
    return HttpxUpstream(url, **({"connect_timeout_s": 60.0, "read_timeout_s": 60.0} | options))


def test_the_users_own_transport_is_used_and_closed() -> None:
    """Whoever needs mutual TLS or a proxy on the way brings a transport."""

    class Own(httpx.AsyncBaseTransport):
        closed = 0

        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            assert request.extensions["target"] == b"//a/%2F?x"
            return httpx.Response(418, content=b"mine")

        async def aclose(self) -> None:
            self.closed += 1

    transport = Own()
    assert ask(make("https://model", transport=transport)) == (418, b"mine")
    assert transport.closed == 1


@pytest.mark.parametrize(
    ("raised", "kind", "words"),
    [
        (httpx.ConnectTimeout("x"), UpstreamTimeoutError, "no connection to the upstream within 60 s"),
        (httpx.ReadTimeout("x"), UpstreamTimeoutError, "the upstream sent nothing for 60 s"),
        (httpx.WriteTimeout("x"), UpstreamTimeoutError, "the upstream took nothing of the request body for 60 s"),
        (httpx.RemoteProtocolError("secret"), UpstreamError, "did not speak HTTP"),
        (httpx.LocalProtocolError("secret"), UnforwardableError, "cannot be written as valid HTTP/1.1"),
    ],
)
def test_failures_are_named_in_our_words(raised: Exception, kind: type[Exception], words: str) -> None:
    """A library's text may quote the exchange, so it is never passed on."""

    class Failing(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            raise raised

    with pytest.raises(kind) as caught:
        ask(make("http://model", transport=Failing()))
    assert words in str(caught.value)
    assert "secret" not in str(caught.value)
