"""What the proxy asks of a client to the model server: one exchange, streaming both ways, bytes untouched.

1. An `Upstream` adds no header, drops none, follows no redirect, keeps no cookie and decodes no body.
2. Failures arrive as `UpstreamError`; their texts never quote what either side sent.
3. It closes a body that comes piece by piece as soon as it will read no more of it.
4. What reading the request's body raises, it raises.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import NamedTuple, Protocol

from infertap.errors import InfertapError
from infertap.record import EndReason

_IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})

HeaderList = Sequence[tuple[bytes, bytes]]


class UpstreamRequest(NamedTuple):
    """A request as it shall stand on the wire. `headers` already frame the body, and `target` is path and query."""

    method: str
    target: bytes
    headers: HeaderList
    body: bytes | AsyncGenerator[bytes, None] | None
    """Whole, where all of it is there; piece by piece otherwise; None where the request has no body at all."""

    @property
    def may_be_repeated(self) -> bool:
        """Whether it may be sent again after a connection died without an answer (RFC 9110 section 9.2.2).

        The server may have acted on the first one, so only where twice is the same as once, and only if the body can
        be had again. A POST, as most inference requests are, never.
        """
        return self.method in _IDEMPOTENT and (self.body is None or isinstance(self.body, bytes))


class UpstreamResponse(Protocol):
    """An answer whose head has arrived."""

    @property
    def status(self) -> int:
        """The status code."""

    @property
    def headers(self) -> HeaderList:
        """As received: order, case, repetitions."""

    def chunks(self) -> AsyncIterator[bytes]:
        """The body as it comes, once. Raises: UpstreamError."""

    @property
    def ended(self) -> bool:
        """Whether it is known that no further chunk will come."""

    @property
    def trailers(self) -> HeaderList:
        """After the body: the fields behind it, as received; none from a client that cannot see them."""


class Upstream(Protocol):
    """The model server, seen from the proxy. All calls come from one event loop."""

    async def open(self) -> None:
        """Get ready; never raises for a server that is not there yet."""

    def exchange(self, request: UpstreamRequest) -> AbstractAsyncContextManager[UpstreamResponse]:
        """Send the request and yield the answer's head; leaving early aborts the exchange. Raises: UpstreamError."""

    async def close(self) -> None:
        """Cut all connections, also those in use. Safe without `open`, and twice."""


class UpstreamError(InfertapError):
    """The model server gave no answer, or no whole one.

    Args:
        error_type: The failure's name, for the column `error_type`.
        message: What happened, without a byte of the exchange.
    """

    end_reason = EndReason.UPSTREAM_ERROR
    status = 502

    def __init__(self, error_type: str, message: str) -> None:
        self.error_type = error_type
        super().__init__(message)


class UpstreamTimeoutError(UpstreamError):
    """The model server did not do its part in time."""

    end_reason = EndReason.UPSTREAM_TIMEOUT
    status = 504


class UnforwardableError(InfertapError):
    """The client's request cannot be written as valid HTTP/1.1."""
