"""One connection to the upstream: bytes in and out, flow control, and how long a silence may last.

1. Reading pauses while more than `WAITING_BYTES_MAX` of an answer wait for a slow client; writing waits for the server.
2. Silence counts only while it is the server's: not while the client is slow to send its body or to take the answer.
3. TLS that ends without its goodbye is cut off: such an answer is whole only if it says itself where it ends.
4. What had arrived before the connection broke is read after all: a server that answers early and closes resets it.
"""

import asyncio
import os
import select
import ssl
from collections.abc import Callable, Iterable
from typing import cast

from infertap_sidecar.upstream import failures
from infertap_sidecar.upstream.answer import AnswerReader
from infertap_sidecar.upstream.protocol import UpstreamError

WAITING_BYTES_MAX = 64 << 10
_RESUME_BYTES = WAITING_BYTES_MAX // 4
_RESCUED_BYTES_MAX = 8 << 20
_READ_BYTES = 256 << 10


class Connection(asyncio.Protocol):
    """Carries one exchange after the other.

    Args:
        read_timeout_s: Longest silence of the server, and longest stall of our body.
        on_lost: Called once, when the connection has ended.
    """

    def __init__(self, read_timeout_s: float, on_lost: Callable[["Connection"], None]) -> None:
        self.exchanges = 0
        self.sending = False
        """Somebody still sends a body, piece by piece."""
        self.lost = False
        self._loop = asyncio.get_running_loop()
        self._timeout_s = read_timeout_s
        self._on_lost = on_lost
        self._answer: AnswerReader | None = None
        self._failure: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._since_s = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._reading_paused = False
        self._writable: asyncio.Future[None] | None = None
        self._unsent_bytes = 0

    # The exchange's side.

    def begin(self, *, head_only: bool) -> AnswerReader:
        """A new exchange; the reader fills as the answer comes."""
        self.exchanges += 1
        self._answer = answer = AnswerReader(head_only=head_only)
        if self.lost:
            self._failure = failures.closed_early()
        return answer

    def write(self, pieces: Iterable[bytes]) -> None:
        """Send, or keep until the server takes it; see `drained`."""
        if not self._transport.is_closing():
            self._transport.writelines(pieces)

    async def drained(self) -> None:
        """Wait until the server has taken most of what was written, or no longer matters."""
        if self._writable is not None:
            self._since_s = self._loop.time()
            self._watch()
            await self._writable

    def sent(self) -> None:
        """Nobody sends any more: from now on silence is the server's."""
        self.sending = False
        self._since_s = self._loop.time()

    @property
    def answered(self) -> bool:
        """Whether nothing that is still sent could change the answer."""
        return self._answer is None or self._answer.complete or self._transport.is_closing()

    async def head(self) -> None:
        """Wait until the answer's head is there. Raises: whatever ended the exchange."""
        answer = self._answer
        assert answer is not None
        while not answer.status:
            await self._more()

    async def has_piece(self) -> bool:
        """Wait for the next piece of the answer's body; False at its end. Raises: whatever ended the exchange."""
        answer = self._answer
        assert answer is not None
        while not answer.pieces:
            if answer.complete:
                return False
            await self._more()
        return True

    def take(self) -> bytes:
        """The next piece, once there is one."""
        answer = self._answer
        assert answer is not None
        piece = answer.take()
        if self._reading_paused and answer.waiting_bytes <= _RESUME_BYTES:
            self._read_on()
        return piece

    def end(self) -> bool:
        """Leave the exchange. True: another one may follow; otherwise the connection is cut."""
        answer, self._answer = self._answer, None
        reusable = (
            answer is not None
            and answer.complete
            and answer.keep_alive
            and not answer.surplus
            and not self.sending
            and not self._transport.is_closing()
            # An answer to half a request: the rest of it would go before the next one.
            and not self._transport.get_write_buffer_size()
        )
        if not reusable:
            self.abort()
        elif self._reading_paused:
            self._read_on()
        return reusable

    def fail(self, error: Exception) -> None:
        """End the exchange with an error; the first one counts."""
        if self._failure is None:
            self._failure = error
        self.abort()
        self._wake()

    # The pool's side.

    def is_fresh(self) -> bool:
        """Whether the server has neither closed nor sent anything since the last answer, as far as the kernel knows."""
        return not (self.lost or self._transport.is_closing() or self._poll.poll(0))

    def close(self) -> None:
        """Part in order."""
        self._transport.close()

    def abort(self) -> None:
        """Part at once; what was not sent yet is not sent."""
        if not self.lost:
            self._transport.abort()

    # The transport's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports have all of its methods, and are none by type.
        self._transport = cast(asyncio.Transport, transport)
        self._fd = transport.get_extra_info("socket").fileno()
        self._poll = select.poll()
        self._poll.register(self._fd, select.POLLIN)

    def data_received(self, data: bytes) -> None:
        answer = self._answer
        if answer is None:
            # Nobody asked: a server out of step, which must not answer the next request.
            self.abort()
            return
        try:
            answer.feed(data)
        except UpstreamError as error:
            self.fail(error)
            return
        if answer.waiting_bytes > WAITING_BYTES_MAX and not self._reading_paused:
            self._reading_paused = True
            self._transport.pause_reading()
        if answer.status:
            self._wake()
        else:
            self._since_s = self._loop.time()

    def eof_received(self) -> None:
        if self._answer is None:
            return
        try:
            if self._is_cut_off():
                raise failures.closed_early()
            self._answer.eof()
        except UpstreamError as error:
            # Not left to the transport, which would first try to send what it still has.
            self.fail(error)
        else:
            self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        answer = self._answer
        if answer is not None and not answer.complete and self._failure is None:
            if exc is not None:
                self._rescue(answer)
            if not answer.complete and self._failure is None:
                self._failure = failures.closed_early() if exc is None else failures.broke(exc)
        self.lost = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._wake()
        self._on_lost(self)

    def pause_writing(self) -> None:
        self._writable = self._loop.create_future()
        self._unsent_bytes = self._transport.get_write_buffer_size()

    def resume_writing(self) -> None:
        self._release_writer()

    def _is_cut_off(self) -> bool:
        """Whether TLS ended without its goodbye, as anybody on the way can end it: asyncio tells of both alike."""
        tls = self._transport.get_extra_info("ssl_object")
        if tls is None or self._answer is None or self._answer.complete:
            return False
        try:
            return bool(tls.read(1))
        except ssl.SSLZeroReturnError:
            return False
        except ssl.SSLError:
            return True

    def _rescue(self, answer: AnswerReader) -> None:
        """Read what the kernel still holds: a failed write ends the transport with the answer unread."""
        if self._transport.get_extra_info("ssl_object") is not None:
            return
        rescued_bytes = 0
        try:
            while not answer.complete and rescued_bytes < _RESCUED_BYTES_MAX:
                data = os.read(self._fd, _READ_BYTES)
                if not data:
                    # After a reset the kernel says "end" as well: no proof of an orderly one.
                    return
                rescued_bytes += len(data)
                answer.feed(data)
        except OSError:
            return
        except UpstreamError as error:
            self._failure = error

    # Waiting.

    async def _more(self) -> None:
        if self._failure is not None:
            raise self._failure
        self._since_s = self._loop.time()
        self._watch()
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
        if self.answered or self._failure is not None:
            self._release_writer()

    def _read_on(self) -> None:
        self._reading_paused = False
        if not self._transport.is_closing():
            self._transport.resume_reading()

    def _release_writer(self) -> None:
        writable, self._writable = self._writable, None
        if writable is not None and not writable.done():
            writable.set_result(None)

    def _watch(self) -> None:
        # One timer for all waits of a connection: it looks when it goes off, and is set anew only if somebody waits.
        if self._timer is None:
            self._timer = self._loop.call_later(self._timeout_s, self._look)

    def _look(self) -> None:
        self._timer = None
        if self.lost or (self._waiter is None and self._writable is None):
            return
        now_s = self._loop.time()
        if self._writable is not None:
            unsent_bytes = self._transport.get_write_buffer_size()
            if unsent_bytes < self._unsent_bytes:
                self._unsent_bytes, self._since_s = unsent_bytes, now_s
        elif self.sending:
            # The client is slow to send its body; that is not the server's silence.
            self._since_s = now_s
        rest_s = self._since_s + self._timeout_s - now_s
        if rest_s > 0:
            self._timer = self._loop.call_later(rest_s, self._look)
        elif self._writable is not None:
            self.fail(failures.stalled(self._timeout_s))
        else:
            self.fail(failures.silent(self._timeout_s))
