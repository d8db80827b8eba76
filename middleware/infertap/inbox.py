"""The queue between the event loop and the worker: bounded by bytes, appended to without waiting.

1. `ByteBudget` bounds the requests: their bodies from arrival on, headers and what the app sets from the end on. When
   even the bare records do not fit, they are refused.
2. Spans have a share of their own, and any thread may end one: the event loop's are counted apart from the others',
   because a lock would be a tenth of what a span costs it.
"""

import threading
from collections import deque
from collections.abc import Iterator
from threading import get_ident
from typing import NamedTuple, cast

from infertap.capture import SEALED_GRANTED, SEALED_HELD, SEALED_SPAN, ByteBudget, Sealed, chunks_bytes, opened
from infertap.handover import SpanBatch
from infertap.record import ErrorCode, Exchange, PendingSpan
from infertap.trace import ServerSpan


class Handed(NamedTuple):
    """One span of another process's batch."""

    batch: SpanBatch
    place: int

    @property
    def span(self) -> PendingSpan:
        return self.batch.spans[self.place].span

    @property
    def is_request(self) -> bool:
        return self.batch.spans[self.place].is_request

    @property
    def held_bytes(self) -> int:
        return self.span.held_bytes

    @property
    def start_ns(self) -> int:
        return self.span.start_ns


Item = Exchange | PendingSpan | Handed


class Inbox:
    """Exchanges and spans that wait for the worker.

    Args:
        bytes_max: For requests, from their arrival until they are on the disk.
        span_bytes_max: For spans, beside them.
    """

    def __init__(self, bytes_max: int, span_bytes_max: int) -> None:
        self.budget = ByteBudget(bytes_max)
        self.span_bytes_max = span_bytes_max
        self.queue: deque[Item | Sealed] = deque()
        self._loop: int | None = None
        # Of spans: each number has one thread that writes it, or the lock.
        self._from_loop = self._from_others = self._given_back = 0
        self._spans_dropped = 0
        self._lock = threading.Lock()

    def belongs_to_this_thread(self) -> None:
        """Most spans will end here, on the event loop: they are put without the lock. The first caller has it."""
        if self._loop is None:
            self._loop = get_ident()

    @property
    def span_bytes(self) -> int:
        """Bytes that spans hold, from their end until they are on the disk."""
        return self._from_loop + self._from_others - self._given_back

    def put_exchange(self, sealed: Sealed) -> bool:
        """Queue a finished exchange; false where there is no room for its record. Event loop only."""
        budget = self.budget
        missing = sealed[SEALED_HELD] - sealed[SEALED_GRANTED]
        if missing <= 0:
            budget.taken += missing
        elif not budget.take(missing):
            # Bodies go first: their room may be enough for the record.
            exchange = _without_bodies(opened(sealed))
            missing = exchange.held_bytes - exchange.granted_bytes
            if missing <= 0:
                budget.give_back(-missing)
            elif not budget.take(missing):
                budget.give_back(exchange.granted_bytes)
                return False
            self.queue.append(exchange)
            return True
        self.queue.append(sealed)
        return True

    def put_span(self, span: PendingSpan) -> bool:
        """Queue a finished span; false, and counted, where there is no room. Any thread."""
        if get_ident() == self._loop:
            taken = self._from_loop + span.held_bytes
            if taken + self._from_others - self._given_back <= self.span_bytes_max:
                self._from_loop = taken
                self.queue.append(span)
                return True
        elif self._take(span.held_bytes):
            self.queue.append(span)
            return True
        with self._lock:
            self._spans_dropped += 1
        return False

    def put_batch(self, batch: SpanBatch) -> bool:
        """Queue all spans of a batch, or none where there is no room. Any thread."""
        if not self._take(batch.held_bytes):
            return False
        self.queue.extend(Handed(batch, place) for place in range(len(batch.spans)))
        return True

    def _take(self, size: int) -> bool:
        with self._lock:
            if self.span_bytes + size > self.span_bytes_max:
                return False
            self._from_others += size
        return True

    def take_dropped(self) -> int:
        """How many spans found no room since the last call."""
        with self._lock:
            dropped, self._spans_dropped = self._spans_dropped, 0
        return dropped

    def items(self) -> Iterator[Item]:
        """What waits, oldest first, taken as it is asked for. Worker only."""
        while self.queue:
            item = self.queue.popleft()
            yield opened(item) if type(item) is tuple else cast("Item", item)

    def release(self, item: Item) -> int:
        """Give a span's bytes back; returns the bytes of a request that `budget.release` is to give back in time."""
        if isinstance(item, Exchange):
            return item.held_bytes
        self._given_back += item.held_bytes
        return 0


def arrival_ns(item: Item | Sealed) -> int:
    """When the request or the span began, nanoseconds since the epoch."""
    if type(item) is tuple:
        span: ServerSpan = item[SEALED_SPAN]
        return span.started_at_ns
    item = cast("Item", item)
    return item.started_at_ns if isinstance(item, Exchange) else item.start_ns


def _without_bodies(exchange: Exchange) -> Exchange:
    codes = exchange.codes
    if exchange.request_chunks:
        codes += (ErrorCode.REQUEST_OVER_BUDGET.value,)
    if exchange.response_chunks:
        codes += (ErrorCode.RESPONSE_OVER_BUDGET.value,)
    bodies = chunks_bytes(exchange.request_chunks) + chunks_bytes(exchange.response_chunks)
    return exchange._replace(
        request_chunks=(), response_chunks=(), codes=codes, held_bytes=exchange.held_bytes - bodies
    )
