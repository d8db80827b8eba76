"""Composition of the receiver: its transports before one pipeline, in a process of its own.

Order of a stop: take nothing new, answer what is under way (it is spooled then), deliver, end.
"""

import asyncio
import contextlib
import logging
import math
import os
import signal
import socket
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NoReturn

from infertap.build import build_pipeline
from infertap.choice import Choice, choose
from infertap.clock import Clock, SystemClock
from infertap.errors import ConfigError
from infertap.events import EventLog
from infertap.metrics import MetricsApp
from infertap.otel_env import OtelEnvironment
from infertap.pipeline import Pipeline
from infertap.table_identity import table_identity
from infertap.targets import Targets
from infertap_sidecar import logs
from infertap_sidecar.address import Address, bound, listen
from infertap_sidecar.admin import admin_app
from infertap_sidecar.failure_log import FailureLog
from infertap_sidecar.own_endpoint import refuse_own_endpoint, unset_own_endpoints
from infertap_sidecar.places import writable
from infertap_sidecar.receiver.grpc import GrpcReceiver
from infertap_sidecar.receiver.http import HttpReceiver
from infertap_sidecar.receiver.intake import Intake
from infertap_sidecar.receiver.requests import RequestRule
from infertap_sidecar.receiver.room import rooms
from infertap_sidecar.receiver.window import Window
from infertap_sidecar.servers import Server, make_server
from infertap_sidecar.settings import CollectConfig, ReceiverAddresses

logger = logging.getLogger("infertap.receiver")


def collect(config: CollectConfig) -> NoReturn:
    """`infertap collect`: until a signal; the process ends here with the exit code.

    Raises:
        ConfigError: `OTEL_*` says something that cannot work, or there is no destination.
    """
    warnings = unset_own_endpoints(os.environ, config.receiver_addresses)
    choice = choose(config, OtelEnvironment.read(os.environ), cwd=Path.cwd())
    logs.configure(config.log_format)
    for warning in warnings:
        logger.warning("%s", warning)
    code = run(config, choice, makes_rows=choice.targets.table is not None, admin=True)
    end_process(code)


def end_process(code: int) -> NoReturn:
    """End at once, after everything is delivered: the interpreter would wait for each thread that still parses."""
    logging.shutdown()
    with contextlib.suppress(OSError):  # nobody reads any more
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def run(
    config: CollectConfig,
    choice: Choice,
    *,
    makes_rows: bool,
    admin: bool,
    is_helper: bool = False,
    on_listening: Callable[[ReceiverAddresses], None] | None = None,
    on_stop_wanted: Callable[[Callable[[], None]], None] | None = None,
) -> int:
    """Run the receiver until a signal; the exit code.

    Args:
        makes_rows: Whether spans may stand for requests.
        admin: Whether the operator's port is opened.
        is_helper: Whether another process says where records go, and what is odd.
        on_listening: Told where it listens.
        on_stop_wanted: Given a function that stops the receiver, from any thread.

    Raises:
        ConfigError: the destination is none, or the receiver itself.
    """
    if choice.kind == "none":
        raise ConfigError([f"there is nothing to collect for: {choice.reason}"])
    refuse_own_endpoint(choice, config.receiver_addresses)
    clock = SystemClock()
    pipeline = build_pipeline(config, choice, EventLog(is_helper=is_helper), receives=True)
    intake = _intake(pipeline, choice.targets, clock, makes_rows=makes_rows)
    try:
        receiver = Receiver(config, intake, pipeline, choice, clock, admin=admin)
    except OSError as error:
        logger.error("%s", error.strerror)
        return 1
    pipeline.start()
    pipeline.wait_ready()
    where = receiver.addresses
    places = [f"{name} {address}" for name, address in zip(("HTTP", "gRPC"), where, strict=True) if address is not None]
    logger.info("taking OTLP over %s", " and ".join(places))
    if on_listening is not None:
        on_listening(where)
    asyncio.run(receiver.run(on_stop_wanted))
    return 0


def _intake(pipeline: Pipeline, targets: Targets, clock: Clock, *, makes_rows: bool) -> Intake:
    def tables() -> str | None:
        return table_identity(targets.table, os.environ) if targets.table is not None else None

    rejections = FailureLog(logger, clock)
    rule = RequestRule(clock, Window()) if makes_rows else None
    relays = targets.otlp is not None
    return Intake(pipeline, Window(), rule, rejections.failed, tables=tables, relays=relays)


class Receiver:
    """The transports of one process, and their end.

    Raises:
        OSError: an address cannot be listened on.
    """

    def __init__(
        self, config: CollectConfig, intake: Intake, pipeline: Pipeline, choice: Choice, clock: Clock, *, admin: bool
    ) -> None:
        self._pipeline = pipeline
        self._choice = choice
        self._grace_s = config.connection_drain_s
        self._stopping = asyncio.Event()
        self._servers: list[tuple[Server, socket.socket]] = []
        self._admin: tuple[Server, socket.socket] | None = None
        self._grpc: GrpcReceiver | None = None
        http, grpc = config.receiver_addresses
        bytes_max = config.otlp_bytes_max
        for_http, for_grpc = rooms(
            pipeline.inbox.span_bytes_max, message_bytes_max=bytes_max, http=http is not None, grpc=grpc is not None
        )
        if admin:
            app = admin_app(self, MetricsApp(choice))
            self._admin = make_server(app, grace_s=1.0), listen(config.admin_address, "--admin")
        http_address: Address | None = None
        if http is not None:
            listener = listen(http, "--otlp-http")
            http_address = bound(listener)
            app_http = HttpReceiver(intake, for_http, bytes_max=bytes_max)
            self._servers.append((make_server(app_http, grace_s=self._grace_s), listener))
        if grpc is not None:
            self._grpc = GrpcReceiver(intake, for_grpc, clock, grpc, bytes_max=bytes_max)
        self.addresses = ReceiverAddresses(http_address, self._grpc.address if self._grpc is not None else None)
        """Where it really listens."""

    def problems(self) -> list[str]:
        """Why this process should get nothing now (`admin.Health`)."""
        if self._stopping.is_set():
            return ["stopping"]
        if not self._pipeline.alive:
            return ["the worker that writes the spool has ended"]
        if not self._pipeline.has_slot and not writable(self._choice.folder):
            return [f"the spool {self._choice.folder} is not writable"]
        return []

    async def run(self, on_stop_wanted: Callable[[Callable[[], None]], None] | None) -> None:
        """Serve until a signal, then spool and deliver."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        if on_stop_wanted is not None:
            on_stop_wanted(partial(_stop_from_thread, loop, self._stopping))
        tasks = [asyncio.create_task(server.run_on(listener)) for server, listener in self._servers]
        admin_task = None
        if self._admin is not None:
            admin_task = asyncio.create_task(self._admin[0].run_on(self._admin[1]))
        if self._grpc is not None:
            self._grpc.start()
        await self._stopping.wait()
        for server, _ in self._servers:
            server.should_exit = True
        if self._grpc is not None:
            await asyncio.to_thread(self._grpc.stop, math.ceil(self._grace_s))
        await asyncio.gather(*tasks)
        await asyncio.to_thread(self._pipeline.stop)
        if self._admin is not None and admin_task is not None:
            self._admin[0].should_exit = True
            await admin_task


def _stop_from_thread(loop: asyncio.AbstractEventLoop, stopping: asyncio.Event) -> None:
    with contextlib.suppress(RuntimeError):  # the loop has ended already
        loop.call_soon_threadsafe(stopping.set)
