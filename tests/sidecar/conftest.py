"""Real servers on real sockets for the sidecar's tests: an event loop in a thread, raw upstreams, uvicorn in front."""

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

import pytest
import uvicorn

from infertap_sidecar.front_protocol import FrontProtocol
from infertap_sidecar.proxy import ReverseProxy
from infertap_sidecar.servers import Server
from infertap_sidecar.upstream.native_client import NativeUpstream
from infertap_sidecar.upstream.protocol import Upstream

T = TypeVar("T")
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Servers:
    """An event loop in a thread; every server started here is stopped at the end of the test."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._uvicorns: list[tuple[Server, Future[None]]] = []
        self._raw: list[asyncio.Server] = []
        self._handlers: set[asyncio.Task[None]] = set()
        self.make_upstream: Callable[..., Upstream] = NativeUpstream

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(timeout=60)

    def app(self, app: Any, **options: Any) -> int:
        """Serve an ASGI app with uvicorn; returns the port."""
        listener = socket.create_server(("127.0.0.1", 0))
        settings: dict[str, Any] = {
            "proxy_headers": False,
            "server_header": False,
            "date_header": False,
            "ws": "none",
            "http": FrontProtocol,
            "timeout_graceful_shutdown": 2,
        } | options
        started = threading.Event()
        server = Server(uvicorn.Config(app, log_config=None, access_log=False, **settings), started.set)
        task = asyncio.run_coroutine_threadsafe(server.serve(sockets=[listener]), self._loop)
        self._uvicorns.append((server, task))
        assert started.wait(60)
        return int(listener.getsockname()[1])

    def raw(self, handler: Handler) -> int:
        """Serve scripted bytes; returns the port."""

        async def guarded(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            self._handlers.add(task)
            try:
                with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                    await handler(reader, writer)
            finally:
                self._handlers.discard(task)
                writer.close()

        async def start() -> asyncio.Server:
            return await asyncio.start_server(guarded, "127.0.0.1", 0, limit=1 << 20)

        server = self.run(start())
        self._raw.append(server)
        return int(server.sockets[0].getsockname()[1])

    def proxy(self, upstream_port: int, *, wrap: Callable[[Any], Any] = lambda app: app, **timeouts: float) -> int:
        """The reverse proxy before the given port, under uvicorn."""
        limits: dict[str, Any] = {"connect_timeout_s": 60.0, "read_timeout_s": 60.0} | timeouts
        upstream = self.make_upstream(f"http://127.0.0.1:{upstream_port}", **limits)
        return self.app(wrap(ReverseProxy(upstream, default_authority=b"upstream")))

    def stop(self) -> None:
        for raw in self._raw:
            self._loop.call_soon_threadsafe(raw.close)
        self.run(_cancel(self._handlers))
        for server, _ in self._uvicorns:
            server.should_exit = True
        for _, task in self._uvicorns:
            task.result(timeout=60)
        # Closed transports say goodbye in the loop's next pass.
        self.run(asyncio.sleep(0))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=60)
        self._loop.close()


async def _cancel(tasks: set[asyncio.Task[None]]) -> None:
    for task in list(tasks):
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@pytest.fixture
def servers() -> Iterator[Servers]:
    """Start servers in a test; all end with it."""
    running = Servers()
    yield running
    running.stop()


class CommandLine:
    """Runs `infertap` as a process in one folder, without the settings of whoever runs the tests."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return self.python("-m", "infertap_sidecar", *arguments, **variables)

    def record(self, tables: str = "inference_tables", header_count: int = 0, **variables: str) -> None:
        """Three requests into the spool of the given tables."""
        done = self.python(str(Path(__file__).with_name("recorded.py")), tables, str(header_count), **variables)
        assert done.returncode == 0, done.stderr

    def python(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("INFERTAP_", "OTEL_"))}
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=self.folder,
            env={**clean, **variables},
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )


@pytest.fixture
def infertap(tmp_path: Path) -> CommandLine:
    """The command line in an empty folder."""
    return CommandLine(tmp_path)


@pytest.fixture(scope="session")
def delivered(tmp_path_factory: pytest.TempPathFactory) -> CommandLine:
    """The command line in a folder whose `inference_tables` hold three requests. Only for tests that read."""
    command = CommandLine(tmp_path_factory.mktemp("delivered"))
    command.record()
    drained = command("drain")
    assert drained.returncode == 0, drained.stderr
    return command
