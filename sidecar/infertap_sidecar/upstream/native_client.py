"""The default upstream: HTTP/1.1 on asyncio's own transports, byte for byte.

One exchange: take a connection, write head and body, hand the answer on as it comes. A body that comes piece by piece
is sent by a task of its own, so that an answer can arrive, and end the sending, at any time.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from types import TracebackType
from typing import Self

from infertap_sidecar.upstream.answer import AnswerReader
from infertap_sidecar.upstream.connection import Connection
from infertap_sidecar.upstream.dialer import Dialer
from infertap_sidecar.upstream.pool import CONNECTIONS_MAX, ConnectionPool
from infertap_sidecar.upstream.protocol import HeaderList, UpstreamError, UpstreamRequest, UpstreamTimeoutError
from infertap_sidecar.upstream.wire import OutgoingRequest


class NativeUpstream:
    """One model server behind `url` (`http://host:port`, `https://host:port` or `unix:/path`).

    Args:
        url: Scheme and authority; a path would change the request's target and is not allowed.
        connect_timeout_s: Longest wait for a connection, name and TLS included.
        read_timeout_s: Longest silence of the server before or within its answer, and longest stall of our body.
        connections_max: Open at once; further requests wait, in order.
    """

    def __init__(
        self, url: str, *, connect_timeout_s: float, read_timeout_s: float, connections_max: int = CONNECTIONS_MAX
    ) -> None:
        self._dialer = Dialer(url, connect_timeout_s)
        self._read_timeout_s = read_timeout_s
        self._pool = ConnectionPool(self._dial, connections_max=connections_max, wait_s_max=read_timeout_s)

    async def open(self) -> None:
        """Read the certificates to trust; no connection yet."""
        self._dialer.open()

    def exchange(self, request: UpstreamRequest) -> "NativeExchange":
        """One request and its answer. Raises: UpstreamError, UnforwardableError."""
        return NativeExchange(self._pool, request)

    async def close(self) -> None:
        """Cut all connections."""
        await self._pool.close()

    async def _dial(self, on_lost: Callable[[Connection], None]) -> Connection:
        return await self._dialer.dial(lambda: Connection(self._read_timeout_s, on_lost))


class NativeExchange:
    """One request on its connection, and its answer once entered."""

    __slots__ = ("_answer", "_connection", "_pool", "_request", "_sender", "headers", "status")

    def __init__(self, pool: ConnectionPool, request: UpstreamRequest) -> None:
        self._pool = pool
        self._request = request
        self._connection: Connection | None = None
        self._answer: AnswerReader | None = None
        self._sender: asyncio.Task[None] | None = None
        self.status = 0
        self.headers: HeaderList = ()

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException:
            await self._end()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._end()

    @property
    def ended(self) -> bool:
        """The last piece has been taken, or there was none."""
        answer = self._answer
        return answer is not None and answer.complete and not answer.pieces

    @property
    def trailers(self) -> HeaderList:
        """Complete once the body is."""
        return self._answer.trailers if self._answer is not None else ()

    async def chunks(self) -> AsyncIterator[bytes]:
        """Piece by piece, without chunked framing, nothing decoded. Raises: UpstreamError."""
        connection = self._connection
        assert connection is not None
        while await connection.has_piece():
            yield connection.take()

    async def _start(self) -> None:
        body = self._request.body
        outgoing = OutgoingRequest(self._request)
        first = (outgoing.head,) if body is not None and not isinstance(body, bytes) else outgoing.whole(body)
        self._connection = connection = await self._pool.take()
        try:
            await self._ask(connection, outgoing, first)
        except UpstreamError as error:
            if not self._died_idle(connection, error) or not self._request.may_be_repeated:
                raise
            self._pool.drop_idle()
            self._connection = connection = await self._pool.take()
            await self._ask(connection, outgoing, first)

    def _died_idle(self, connection: Connection, error: UpstreamError) -> bool:
        """A kept connection that ended without a byte may have ended before the server saw the request."""
        untouched = self._answer is not None and not self._answer.touched
        return untouched and connection.exchanges > 1 and not isinstance(error, UpstreamTimeoutError)

    async def _ask(self, connection: Connection, outgoing: OutgoingRequest, first: tuple[bytes, ...]) -> None:
        body = self._request.body
        self._answer = answer = connection.begin(head_only=self._request.method == "HEAD")
        connection.write(first)
        if body is not None and not isinstance(body, bytes):
            connection.sending = True
            self._sender = asyncio.create_task(_send(connection, outgoing, body))
        await connection.head()
        self.status, self.headers = answer.status, answer.headers

    async def _end(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None and connection.end():
            self._pool.give_back(connection)
        sender, self._sender = self._sender, None
        try:
            if sender is not None and not sender.done():
                sender.cancel()
                await asyncio.wait((sender,))
        finally:
            body = self._request.body
            if body is not None and not isinstance(body, bytes) and (sender is None or sender.done()):
                await body.aclose()


async def _send(connection: Connection, outgoing: OutgoingRequest, body: AsyncGenerator[bytes, None]) -> None:
    try:
        async for data in body:
            if connection.answered:
                return
            if data:
                connection.write(outgoing.chunk(data))
                await connection.drained()
        connection.write(outgoing.end())
        connection.sent()
    except Exception as error:
        # This task's outermost boundary: whatever reading the body raised belongs to the exchange.
        connection.fail(error)
    finally:
        await body.aclose()
