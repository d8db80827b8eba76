"""Two uvicorn servers in one process, and what signals do to them.

The first SIGTERM or SIGINT stops accepting and lets answers finish (at most `connection_drain_s`), the second cuts them
off, the third gives up waiting for the spool as well. The operator's port stays open until the proxy has ended.
"""

import asyncio
import contextlib
import math
import signal
import socket
from collections.abc import Awaitable, Callable, Iterator

import uvicorn

from infertap_sidecar.front_protocol import FrontProtocol

KEEPALIVE_S = 75
"""Longer than the idle timeouts of the balancers in front (60 s), so that they close first and no request is lost."""


class Server(uvicorn.Server):
    """A uvicorn server that leaves signals to its owner and says when it has started."""

    def __init__(self, config: uvicorn.Config, on_started: Callable[[], None] | None) -> None:
        super().__init__(config)
        self._on_started = on_started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """The lifespan's start-up, then the sockets."""
        await super().startup(sockets)
        if self.started and self._on_started is not None:
            self._on_started()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Nothing: two servers in one process would fight over the handlers."""
        yield

    async def run_on(self, listener: socket.socket) -> bool:
        """Serve until told to exit; false where start-up failed."""
        try:
            await self.serve(sockets=[listener])
        except SystemExit:  # uvicorn's answer to a lifespan that failed; its message is logged already
            return False
        return True


def make_server(
    app: Callable[..., Awaitable[None]], *, grace_s: float, on_started: Callable[[], None] | None = None
) -> Server:
    """A server with nothing of its own in the answers: no date, no server name, no rewritten client address."""
    return Server(
        uvicorn.Config(
            app,
            http=FrontProtocol,
            ws="none",
            lifespan="on",
            proxy_headers=False,
            server_header=False,
            date_header=False,
            access_log=False,
            log_config=None,
            timeout_keep_alive=KEEPALIVE_S,
            timeout_graceful_shutdown=math.ceil(grace_s),
        ),
        on_started,
    )


class ServerPair:
    """The proxy and the operator's port. `stopping` is true from the first signal on."""

    def __init__(self, proxy: Server, admin: Server) -> None:
        self._proxy = proxy
        self._admin = admin
        self._signals = 0

    async def run(self, proxy_listener: socket.socket, admin_listener: socket.socket) -> bool:
        """Serve until a signal; false where start-up failed."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._signalled)
        admin = asyncio.create_task(self._admin.run_on(admin_listener))
        succeeded = await self._proxy.run_on(proxy_listener)
        self._admin.should_exit = True
        await admin
        return succeeded

    @property
    def stopping(self) -> bool:
        """Whether a signal has come."""
        return self._signals > 0

    def _signalled(self) -> None:
        self._signals += 1
        self._proxy.should_exit = True
        if self._signals == 2:
            for task in list(self._proxy.server_state.tasks):
                task.cancel()
        elif self._signals > 2:
            self._proxy.force_exit = True
