"""The receiver beside the proxy: a child process that is started, watched, started again, and stopped with the proxy.

Protobuf and gRPC stay out of the proxy's process that way; a receiver that dies costs no request its answer or its row.
"""

import asyncio
import json
import logging
import sys
from collections.abc import Mapping
from typing import Any

from infertap.asgi_types import ASGIApp, Message, Receive, Scope, Send
from infertap.clock import Clock
from infertap_sidecar.settings import CollectConfig, ServeConfig

logger = logging.getLogger("infertap.sidecar")


_COMMAND = (sys.executable, "-P", "-m", "infertap_sidecar.receiver")
_START_S_MAX = 60.0
_STOP_S_EXTRA = 15.0
_PAUSE_S_MIN, _PAUSE_S_MAX = 1.0, 30.0
_HEALTHY_S = 60.0
"""A receiver that lived so long is started again at once."""


class ReceiverProcess:
    """One receiver. All calls on the event loop.

    Args:
        settings: What the child is told, for `CollectConfig`.
        stop_s_max: Longest wait for its end.
    """

    def __init__(self, settings: Mapping[str, Any], *, stop_s_max: float, clock: Clock) -> None:
        self._settings = settings
        self._stop_s_max = stop_s_max
        self._clock = clock
        self._process: asyncio.subprocess.Process | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()

    async def start(self) -> bool:
        """Start it, and wait until it listens; false where it ended instead (it has said why)."""
        if not await self._spawn():
            return False
        self._watcher = asyncio.create_task(self._watch())
        return True

    def begin_stop(self) -> None:
        """Tell it to stop; it spools and delivers while the proxy does the same."""
        self._stopping.set()
        process = self._process
        if process is not None and process.stdin is not None:
            process.stdin.close()

    async def stopped(self) -> None:
        """Stop it, and wait for its end."""
        self.begin_stop()
        if self._watcher is not None:
            await self._watcher
        process = self._process
        if process is None:
            return
        try:
            await asyncio.wait_for(process.wait(), self._stop_s_max)
        except TimeoutError:
            logger.warning("the OTLP receiver did not stop in time and is ended")
            process.kill()
            await process.wait()

    async def _spawn(self) -> bool:
        process = self._process = await asyncio.create_subprocess_exec(
            *_COMMAND,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            # A session of its own: Ctrl-C is the proxy's to answer, in the right order.
            start_new_session=True,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(self._settings).encode() + b"\n")
        try:
            said = await asyncio.wait_for(process.stdout.readline(), _START_S_MAX)
        except TimeoutError:
            said = b""
            process.kill()
        if not said:
            await process.wait()
        return bool(said)

    async def _watch(self) -> None:
        pause_s = _PAUSE_S_MIN
        while not self._stopping.is_set():
            began_s = self._clock.monotonic_s()
            await self._ended_or_stopping()
            if self._stopping.is_set():
                return
            if self._clock.monotonic_s() - began_s >= _HEALTHY_S:
                pause_s = _PAUSE_S_MIN
            logger.warning("the OTLP receiver ended unexpectedly; it is started again in %g s", pause_s)
            try:
                await asyncio.wait_for(self._stopping.wait(), pause_s)
            except TimeoutError:
                pause_s = min(2 * pause_s, _PAUSE_S_MAX)
                await self._spawn()
                if self._stopping.is_set():
                    self.begin_stop()

    async def _ended_or_stopping(self) -> None:
        assert self._process is not None
        waits = [asyncio.ensure_future(self._process.wait()), asyncio.ensure_future(self._stopping.wait())]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()


class StopsReceiver:
    """ASGI: passes everything on, and tells the receiver to stop when the server has answered its last request."""

    def __init__(self, app: ASGIApp, receiver: ReceiverProcess) -> None:
        self._app = app
        self._receiver = receiver

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            await self._app(scope, receive, send)
            return

        async def heard() -> Message:
            message = await receive()
            if message["type"] == "lifespan.shutdown":
                self._receiver.begin_stop()
            return message

        await self._app(scope, heard, send)


def receiver_process(config: ServeConfig, clock: Clock) -> ReceiverProcess:
    """The receiver of this proxy: the settings that were given, as far as it knows them."""
    given = config.model_dump(mode="json", include=set(config.sources) & set(CollectConfig.model_fields))
    settings = {**given, "otlp_http": config.otlp_http, "otlp_grpc": config.otlp_grpc}
    settings.pop("outer_secret", None)
    return ReceiverProcess(settings, stop_s_max=config.drain_s + _STOP_S_EXTRA, clock=clock)
