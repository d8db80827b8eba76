"""The second upstream: httpx's transport, without its client's cookies, redirects, decoding and logging."""

import ssl
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

import httpx

from infertap_sidecar.upstream import failures
from infertap_sidecar.upstream.pool import IDLE_CONNECTIONS_MAX, KEEPALIVE_S
from infertap_sidecar.upstream.protocol import HeaderList, UnforwardableError, UpstreamError, UpstreamRequest


class HttpxUpstream:
    """One model server behind `url` (`http://host:port`, `https://host:port` or `unix:/path`).

    Args:
        url: Scheme and authority; a path would change the request's target and is not allowed.
        connect_timeout_s: Longest wait for a connection, TLS included.
        read_timeout_s: Longest silence of the server before or within its answer, and longest stall of our body.
        transport: The user's own transport, used instead of one made here and closed with it.
    """

    def __init__(
        self,
        url: str,
        *,
        connect_timeout_s: float,
        read_timeout_s: float,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._socket_path = url.removeprefix("unix:") if url.startswith("unix:") else None
        self._url = httpx.URL("http://localhost" if self._socket_path else url)
        self._timeouts = {"connect": connect_timeout_s, "read": read_timeout_s, "write": read_timeout_s, "pool": None}
        self._transport = transport

    async def open(self) -> None:
        """Make the connection pool; no connection yet."""
        if self._transport is None:
            # An SSL context with the certificate store costs 20 ms and more: only where TLS is spoken.
            plain = self._url.scheme == "http"
            self._transport = httpx.AsyncHTTPTransport(
                verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) if plain else True,
                uds=self._socket_path,
                limits=httpx.Limits(
                    max_connections=None,
                    max_keepalive_connections=IDLE_CONNECTIONS_MAX,
                    keepalive_expiry=KEEPALIVE_S,
                ),
            )

    @asynccontextmanager
    async def exchange(self, request: UpstreamRequest) -> AsyncGenerator["HttpxResponse", None]:
        """One request and its answer. Raises: UpstreamError, UnforwardableError."""
        response = await self._send(request)
        try:
            yield HttpxResponse(response, self)
        finally:
            await response.aclose()

    async def close(self) -> None:
        """Close the pool."""
        if self._transport is not None:
            transport, self._transport = self._transport, None
            await transport.aclose()

    async def _send(self, request: UpstreamRequest) -> httpx.Response:
        try:
            try:
                return await self._attempt(request)
            except (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError):
                # A kept connection may have died just as it was used again.
                if not request.may_be_repeated:
                    raise
                return await self._attempt(request)
        except httpx.LocalProtocolError:
            raise UnforwardableError("the request cannot be written as valid HTTP/1.1") from None
        except httpx.TransportError as error:
            raise self.explain(error) from None
        finally:
            if isinstance(request.body, AsyncGenerator):
                await request.body.aclose()

    async def _attempt(self, request: UpstreamRequest) -> httpx.Response:
        if self._transport is None:
            await self.open()
        assert self._transport is not None
        outgoing = httpx.Request(
            request.method,
            self._url,
            headers=list(request.headers),
            stream=_Stream(request.body),
            # `target` goes out as it is: a URL object would normalise `//a/%2F?x=%20`.
            extensions={"timeout": self._timeouts, "target": request.target},
        )
        outgoing.method = request.method  # httpx upper-cases it, and methods are case-sensitive.
        return await self._transport.handle_async_request(outgoing)

    def explain(self, error: httpx.TransportError) -> UpstreamError:
        """An httpx failure in our words; httpx's own, which may quote what the server sent, is never chained to it."""
        connect_s, silence_s = self._timeouts["connect"], self._timeouts["read"]
        assert connect_s is not None
        assert silence_s is not None
        if isinstance(error, httpx.ConnectTimeout):
            return failures.connect_timed_out(connect_s)
        if isinstance(error, httpx.WriteTimeout):
            return failures.stalled(silence_s)
        if isinstance(error, httpx.TimeoutException):
            return failures.silent(silence_s)
        if isinstance(error, httpx.ConnectError):
            return failures.cannot_connect(error)
        name = type(error).__name__
        if isinstance(error, httpx.RemoteProtocolError):
            return UpstreamError(name, "the upstream closed the connection too early or did not speak HTTP")
        return UpstreamError(name, f"the connection to the upstream broke: {failures.reason(error)}")


class HttpxResponse:
    """The head of an answer, and its body as raw chunks."""

    ended = False
    """httpx says so only by having no further chunk."""
    trailers: HeaderList = ()
    """httpx reads them and shows them to nobody."""

    def __init__(self, response: httpx.Response, upstream: HttpxUpstream) -> None:
        self.status: int = response.status_code
        self.headers: HeaderList = response.headers.raw
        self._response = response
        self._upstream = upstream

    async def chunks(self) -> AsyncIterator[bytes]:
        """Chunk by chunk, no decoding. Raises: UpstreamError."""
        stream = self._response.stream
        assert isinstance(stream, httpx.AsyncByteStream)
        try:
            async for chunk in stream:
                yield chunk
        except httpx.TransportError as error:
            raise self._upstream.explain(error) from None


class _Stream(httpx.AsyncByteStream):
    """A request body for httpx, which wants to see its own type."""

    def __init__(self, body: bytes | AsyncGenerator[bytes, None] | None) -> None:
        self._body = body

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if isinstance(self._body, bytes):
            yield self._body
        elif self._body is not None:
            async for chunk in self._body:
                yield chunk
