"""Both clients, and a server that says exactly what a script has it say, on sockets of its own."""

import asyncio
import contextlib
import fcntl
import socket
import ssl
import struct
import termios
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterator
from typing import Any, NamedTuple, TypeVar

import pytest
import uvloop

from infertap_sidecar.upstream.httpx_client import HttpxUpstream
from infertap_sidecar.upstream.native_client import NativeUpstream
from infertap_sidecar.upstream.protocol import Upstream, UpstreamRequest

T = TypeVar("T")
DEADLINE_S = 60.0


class Talk:
    """One accepted connection, seen by its script."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.socket.settimeout(DEADLINE_S)
        self._rest = b""

    def head(self) -> bytes:
        """The next request's head."""
        while b"\r\n\r\n" not in self._rest:
            self._rest += self._some()
        head, _, self._rest = self._rest.partition(b"\r\n\r\n")
        return head + b"\r\n\r\n"

    def body(self, size: int) -> bytes:
        """So many bytes more."""
        while len(self._rest) < size:
            self._rest += self._some()
        body, self._rest = self._rest[:size], self._rest[size:]
        return body

    def skip(self, size: int) -> None:
        """So many bytes more, which nobody looks at."""
        size -= len(self._rest)
        self._rest = b""
        while size > 0:
            size -= len(self._some())

    def until(self, end: bytes) -> bytes:
        """Everything up to and with `end`."""
        while end not in self._rest:
            self._rest += self._some()
        body, _, self._rest = self._rest.partition(end)
        return body + end

    def acknowledged(self) -> None:
        """Wait until the client's system has all that was sent: a reset throws away what has not gone out yet."""
        waiting = struct.pack("i", 1)
        deadline_s = time.monotonic() + DEADLINE_S
        while any(waiting) and time.monotonic() < deadline_s:
            waiting = fcntl.ioctl(self.socket, termios.TIOCOUTQ, waiting)
            time.sleep(0.001)

    def rest(self) -> bytes:
        """Everything until the client closes."""
        with contextlib.suppress(ConnectionError, EOFError):
            while True:
                self._rest += self._some()
        return self._rest

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def reset(self) -> None:
        """End with a RST, as a process that dies with unread data does."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def _some(self) -> bytes:
        data = self.socket.recv(1 << 16)
        if not data:
            raise EOFError
        return data


Script = Callable[[Talk], None]


class Scripted:
    """Runs the first script for the first connection, and so on; the last one again for all that follow."""

    def __init__(self, scripts: tuple[Script, ...], *, path: str | None, tls: ssl.SSLContext | None) -> None:
        self.accepted = 0
        self.failures: list[BaseException] = []
        self._scripts = scripts
        self._tls = tls
        self._listener = socket.socket(socket.AF_UNIX if path else socket.AF_INET)
        self._listener.bind(path or ("127.0.0.1", 0))
        self._listener.listen(128)
        self.url = f"unix:{path}" if path else self._tcp_url()
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _tcp_url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self._listener.getsockname()[1]}"

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            script = self._scripts[min(self.accepted, len(self._scripts) - 1)]
            self.accepted += 1
            thread = threading.Thread(target=self._run, args=(script, connection))
            self._threads.append(thread)
            thread.start()

    def _run(self, script: Script, connection: socket.socket) -> None:
        with connection:
            try:
                if self._tls is not None:
                    connection = self._tls.wrap_socket(connection, server_side=True)
                with connection:
                    script(Talk(connection))
            except (ConnectionError, EOFError, ssl.SSLError):
                pass  # the client has gone; what a test expects of it, its script keeps
            except BaseException as error:
                self.failures.append(error)

    def close(self) -> None:
        """Wait until all scripts have ended; what they kept is complete then."""
        if self._listener.fileno() != -1:
            self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
        for thread in self._threads:
            thread.join(DEADLINE_S)
            assert not thread.is_alive(), "a script hangs"
        assert not self.failures, self.failures


class Serve:
    """Starts scripted servers; a script that fails fails the test."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self._stack = stack

    def __call__(self, *scripts: Script, path: str | None = None, tls: ssl.SSLContext | None = None) -> Scripted:
        server = Scripted(scripts, path=path, tls=tls)
        self._stack.callback(server.close)
        return server

    def answering(self, *answers: bytes, tls: ssl.SSLContext | None = None) -> Scripted:
        """A server that reads a head, sends an answer, as often as there are answers, and closes."""

        def script(talk: Talk) -> None:
            for answer in answers:
                talk.head()
                talk.send(answer)

        return self(script, tls=tls)


@pytest.fixture
def serve() -> Iterator[Serve]:
    """`serve(script, ...)` and `serve.answering(bytes, ...)`."""
    with contextlib.ExitStack() as stack:
        yield Serve(stack)


class Answer(NamedTuple):
    """What a client made of an exchange."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes
    trailers: list[tuple[bytes, bytes]]


class Client:
    """One implementation on one event loop."""

    def __init__(self, name: str, loop_factory: Callable[[], asyncio.AbstractEventLoop], make: Any) -> None:
        self.name = name
        self.native = name.startswith("native")
        self._loop_factory = loop_factory
        self._make = make

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        with asyncio.Runner(loop_factory=self._loop_factory) as runner:
            return runner.run(coroutine)

    def ask(self, url: str, *requests: UpstreamRequest, **options: Any) -> list[Answer]:
        """One request after the other, on as few connections as the client likes."""

        async def all_of_them() -> list[Answer]:
            async with self.opened(url, **options) as upstream:
                return [await self.answer(upstream, request) for request in requests]

        return self.run(all_of_them())

    @contextlib.asynccontextmanager
    async def opened(self, url: str, **options: Any) -> AsyncIterator[Upstream]:
        """An open upstream, closed twice at the end: a second close does nothing."""
        upstream: Upstream = self._make(url, **({"connect_timeout_s": 60.0, "read_timeout_s": 60.0} | options))
        await upstream.open()
        try:
            yield upstream
        finally:
            await upstream.close()
            await upstream.close()

    @staticmethod
    async def answer(upstream: Upstream, request: UpstreamRequest) -> Answer:
        async with upstream.exchange(request) as response:
            body = b"".join([chunk async for chunk in response.chunks()])
            return Answer(response.status, list(response.headers), body, list(response.trailers))

    @staticmethod
    def request(
        method: str = "GET", *headers: tuple[bytes, bytes], body: bytes | AsyncGenerator[bytes, None] | None = None
    ) -> UpstreamRequest:
        """A request to `/`; a body of bytes brings its length along."""
        framing = [(b"content-length", b"%d" % len(body))] if isinstance(body, bytes) else []
        return UpstreamRequest(method, b"/", [(b"host", b"model"), *framing, *headers], body)

    @staticmethod
    def upload(body: AsyncGenerator[bytes, None], size: int | None = None) -> UpstreamRequest:
        """A POST whose body comes piece by piece, chunked unless its size is given."""
        framing = (b"transfer-encoding", b"chunked") if size is None else (b"content-length", b"%d" % size)
        return UpstreamRequest("POST", b"/", [(b"host", b"model"), framing], body)

    @staticmethod
    async def until(condition: Callable[[], bool]) -> None:
        """Poll; nothing here is judged by its time."""
        deadline_s = time.monotonic() + DEADLINE_S
        while not condition():
            assert time.monotonic() < deadline_s, "the condition never came true"
            await asyncio.sleep(0.01)


CLIENTS = {
    "native": Client("native", asyncio.new_event_loop, NativeUpstream),
    "native-uvloop": Client("native-uvloop", uvloop.new_event_loop, NativeUpstream),
    "httpx": Client("httpx", asyncio.new_event_loop, HttpxUpstream),
}


@pytest.fixture(params=CLIENTS)
def client(request: pytest.FixtureRequest) -> Client:
    """Each implementation in turn."""
    return CLIENTS[request.param]


@pytest.fixture(params=["native", "native-uvloop"])
def native(request: pytest.FixtureRequest) -> Client:
    """Only the client of our own: httpx does not promise what such a test asks."""
    return CLIENTS[request.param]


@pytest.fixture
def tls(certificates: Any) -> ssl.SSLContext:
    """A server's side of TLS for 127.0.0.1, signed by the tests' CA."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / "server.pem", certificates / "server.key")
    return context
