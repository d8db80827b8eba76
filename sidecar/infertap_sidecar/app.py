"""Composition of `infertap serve`: the middleware around the proxy, the operator's port beside it, one process."""

import asyncio
import gc
import logging
import os
import socket
from collections.abc import Callable
from pathlib import Path

from infertap import InferenceMiddleware
from infertap.choice import Choice, choose
from infertap.clock import SystemClock
from infertap.metrics import MetricsApp
from infertap.otel_env import OtelEnvironment
from infertap_sidecar import logs
from infertap_sidecar.address import bound, listen
from infertap_sidecar.admin import admin_app
from infertap_sidecar.failure_log import FailureLog
from infertap_sidecar.own_endpoint import refuse_own_endpoint, refuse_own_upstream, unset_own_endpoints
from infertap_sidecar.places import writable
from infertap_sidecar.proxy import ReverseProxy
from infertap_sidecar.servers import ServerPair, make_server
from infertap_sidecar.settings import ServeConfig
from infertap_sidecar.supervisor import ReceiverProcess, StopsReceiver, receiver_process
from infertap_sidecar.upstream.dialer import authority_of
from infertap_sidecar.upstream.native_client import NativeUpstream
from infertap_sidecar.upstream.protocol import Upstream

logger = logging.getLogger("infertap.sidecar")


def serve(config: ServeConfig) -> int:
    """Serve until a signal; the exit code.

    Raises:
        ConfigError: `OTEL_*` says something that cannot work, or the upstream is an address of its own. Nothing has
            been started then.
    """
    refuse_own_upstream(config)
    warnings = unset_own_endpoints(os.environ, config.receiver_addresses)
    choice = choose(config, OtelEnvironment.read(os.environ), cwd=Path.cwd())
    refuse_own_endpoint(choice, config.receiver_addresses)
    logs.configure(config.log_format)
    for warning in warnings:
        logger.warning("%s", warning)
    try:
        listener = listen(config.listen_address, "--listen")
        admin_listener = listen(config.admin_address, "--admin")
    except OSError as error:
        logger.error("%s", error.strerror)
        return 1

    def started() -> None:
        # What was made so far lives as long as the process: the collector need not visit it again.
        gc.collect()
        gc.freeze()
        logger.info(
            "listening on %s for %s; operator's port %s", bound(listener), config.upstream, bound(admin_listener)
        )

    # The sidecar is the outermost: nobody can tell it that a request is recorded already.
    middleware = InferenceMiddleware(_proxy(config), config=config.model_copy(update={"outer_secret": None}))
    health = _Health(middleware, choice)
    receiver = _receiver(config, choice)
    pair = ServerPair(
        make_server(
            middleware if receiver is None else StopsReceiver(middleware, receiver),
            grace_s=config.connection_drain_s,
            on_started=started,
        ),
        make_server(admin_app(health, MetricsApp(choice)), grace_s=1.0),
    )
    health.stopping = lambda: pair.stopping
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return 0 if runner.run(_run(pair, receiver, listener, admin_listener)) else 1


async def _run(
    pair: ServerPair, receiver: ReceiverProcess | None, listener: socket.socket, admin_listener: socket.socket
) -> bool:
    if receiver is None:
        return await pair.run(listener, admin_listener)
    if not await receiver.start():
        logger.error("the OTLP receiver cannot start")
        return False
    try:
        return await pair.run(listener, admin_listener)
    finally:
        await receiver.stopped()


def _receiver(config: ServeConfig, choice: Choice) -> ReceiverProcess | None:
    if not config.receiver_addresses:
        return None
    if choice.kind == "none":
        logger.warning("no OTLP is taken, because nothing is recorded: %s", choice.reason)
        return None
    return receiver_process(config, SystemClock())


def _proxy(config: ServeConfig) -> ReverseProxy:
    url = config.upstream_url
    authority = authority_of(url)
    failures = FailureLog(logger, SystemClock())
    return ReverseProxy(
        _upstream(config),
        default_authority=authority,
        authority=authority if config.upstream_host_header == "upstream" else None,
        outer_secret=config.outer_secret.encode() if config.outer_secret is not None else None,
        on_failure=lambda message: failures.failed(f"{message} ({url})"),
    )


def _upstream(config: ServeConfig) -> Upstream:
    url = config.upstream_url
    connect_s, read_s = config.upstream_connect_timeout_s, config.upstream_read_timeout_s
    if config.upstream_client == "native":
        return NativeUpstream(url, connect_timeout_s=connect_s, read_timeout_s=read_s)
    # Here, because httpx takes longer to import than the rest of the proxy's process.
    from infertap_sidecar.upstream.httpx_client import HttpxUpstream

    return HttpxUpstream(url, connect_timeout_s=connect_s, read_timeout_s=read_s)


class _Health:
    """Ready means: requests are recorded. Whether a destination can be reached does not matter."""

    def __init__(self, middleware: InferenceMiddleware, choice: Choice) -> None:
        self._middleware = middleware
        self._choice = choice
        self.stopping: Callable[[], bool] = lambda: False

    def problems(self) -> list[str]:
        """Why this process should get no traffic now."""
        if self.stopping():
            return ["stopping"]
        pipeline = self._middleware.pipeline
        if pipeline is None:
            return [] if self._choice.kind == "none" else ["starting"]
        problems = []
        if not pipeline.alive:
            problems.append("the worker that writes the spool has ended")
        # A folder that vanished is made again at the next write: only where that will fail is the spool the problem.
        if not pipeline.has_slot and not writable(self._choice.folder):
            problems.append(f"the spool {self._choice.folder} is not writable")
        return problems


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
