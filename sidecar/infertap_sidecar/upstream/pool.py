"""The connections to one upstream: how many may be open, which is used next, how long one may lie idle."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

from infertap_sidecar.upstream import failures
from infertap_sidecar.upstream.connection import Connection

KEEPALIVE_S = 1.5
"""How long an idle connection is kept: gunicorn closes its end after 2 s, uvicorn after 5, and who is later loses."""

IDLE_CONNECTIONS_MAX = 128

CONNECTIONS_MAX = 10_000
"""More than clients and descriptors allow as a rule: the server should say what is too much, not the proxy."""


class ConnectionPool:
    """Lends connections, the one used last first. All calls come from one event loop.

    Args:
        dial: Makes a new connection, which calls its argument once it is lost. Raises: UpstreamError.
        connections_max: Open at once; who comes later waits, first come first served.
        wait_s_max: Longest such wait.
    """

    def __init__(
        self,
        dial: Callable[[Callable[[Connection], None]], Awaitable[Connection]],
        *,
        wait_s_max: float,
        connections_max: int = CONNECTIONS_MAX,
    ) -> None:
        self._dial = dial
        self._wait_s_max = wait_s_max
        self._free = connections_max
        self._open: set[Connection] = set()
        self._idle: deque[tuple[Connection, float]] = deque()
        self._waiting: deque[asyncio.Future[Connection | None]] = deque()
        self._sweeper: asyncio.TimerHandle | None = None

    async def take(self) -> Connection:
        """An idle connection, or a new one. Raises: UpstreamError."""
        while True:
            connection: Connection | None
            if self._idle:
                connection, _ = self._idle.pop()
            elif self._free > 0 and not self._waiting:
                self._free -= 1
                return await self._new()
            else:
                connection = await self._wait()
                if connection is None:
                    return await self._new()
            if connection.is_fresh():
                return connection
            connection.abort()

    def give_back(self, connection: Connection) -> None:
        """A connection whose exchange has ended well."""
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(connection)
                return
        self._idle.append((connection, asyncio.get_running_loop().time()))
        if len(self._idle) > IDLE_CONNECTIONS_MAX:
            self._idle.popleft()[0].close()
        if self._sweeper is None:
            self._sweeper = asyncio.get_running_loop().call_later(KEEPALIVE_S, self._sweep)

    def drop_idle(self) -> None:
        """One of them was found dead, and the others are likely to be."""
        while self._idle:
            self._idle.pop()[0].abort()

    async def close(self) -> None:
        """Cut every connection."""
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        self._idle.clear()
        for connection in tuple(self._open):
            connection.abort()
        # Transports say goodbye in the loop's next pass.
        await asyncio.sleep(0)

    async def _new(self) -> Connection:
        """The caller has taken a place for it."""
        try:
            connection = await self._dial(self._lost)
        except BaseException:
            self._release()
            raise
        if connection.lost:
            self._release()
        else:
            self._open.add(connection)
        return connection

    def _lost(self, connection: Connection) -> None:
        # One that is lost while it is made was never counted as open; whoever makes it gives its place back.
        if connection in self._open:
            self._open.remove(connection)
            self._idle = deque(entry for entry in self._idle if entry[0] is not connection)
            self._release()

    def _release(self) -> None:
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
        self._free += 1

    async def _wait(self) -> Connection | None:
        """Another's connection, or None for the place of one that is gone."""
        waiter: asyncio.Future[Connection | None] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        try:
            async with asyncio.timeout(self._wait_s_max):
                return await waiter
        except TimeoutError as error:
            self._pass_on(waiter)
            raise failures.no_free_connection(self._wait_s_max) from error
        except asyncio.CancelledError:
            self._pass_on(waiter)
            raise

    def _pass_on(self, waiter: "asyncio.Future[Connection | None]") -> None:
        """What came just as its taker gave up goes to the next one."""
        if not waiter.done() or waiter.cancelled():
            return
        connection = waiter.result()
        if connection is None:
            self._release()
        elif not connection.lost:
            self.give_back(connection)

    def _sweep(self) -> None:
        self._sweeper = None
        loop = asyncio.get_running_loop()
        while self._idle and self._idle[0][1] <= loop.time() - KEEPALIVE_S:
            self._idle.popleft()[0].close()
        if self._idle:
            self._sweeper = loop.call_at(self._idle[0][1] + KEEPALIVE_S, self._sweep)
