"""The queue between the event loop and the worker: bounded by bytes, appended to without waiting.

1. `ByteBudget` bounds the requests: their bodies from arrival on, headers and what the app sets from the end on. When
   even the bare records do not fit, they are refused.
2. Spans have a share of their own, under a lock, because any thread may end one.
"""

import threading
from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

from infertap.capture import ByteBudget, chunks_bytes
from infertap.handover import SpanBatch
from infertap.record import ErrorCode, Exchange, PendingSpan


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
        self.span_bytes = 0
        self._spans_dropped = 0
        self.queue: deque[Item] = deque()
        self.lock = threading.Lock()

    def put_exchange(self, exchange: Exchange) -> bool:
        """Queue a finished exchange; false where there is no room for its record. Event loop only."""
        budget = self.budget
        missing = exchange.held_bytes - exchange.granted_bytes
        if missing <= 0:
            budget.taken += missing
        elif not budget.take(missing):
            # Bodies go first: their room may be enough for the record.
            exchange = _without_bodies(exchange)
            missing = exchange.held_bytes - exchange.granted_bytes
            if missing <= 0:
                budget.give_back(-missing)
            elif not budget.take(missing):
                budget.give_back(exchange.granted_bytes)
                return False
        self.queue.append(exchange)
        return True

    def put_span(self, span: PendingSpan) -> bool:
        """Queue a finished span; false, and counted, where there is no room. Any thread."""
        size = span.held_bytes
        with self.lock:
            if self.span_bytes + size > self.span_bytes_max:
                self._spans_dropped += 1
                return False
            self.span_bytes += size
        self.queue.append(span)
        return True

    def put_batch(self, batch: SpanBatch) -> bool:
        """Queue all spans of a batch, or none where there is no room. Any thread."""
        size = batch.held_bytes
        with self.lock:
            if self.span_bytes + size > self.span_bytes_max:
                return False
            self.span_bytes += size
        self.queue.extend(Handed(batch, place) for place in range(len(batch.spans)))
        return True

    def take_dropped(self) -> int:
        """How many spans found no room since the last call."""
        with self.lock:
            dropped, self._spans_dropped = self._spans_dropped, 0
        return dropped

    def items(self) -> Iterator[Item]:
        """What waits, oldest first, taken as it is asked for. Worker only."""
        while self.queue:
            yield self.queue.popleft()

    def release(self, item: Item) -> int:
        """Give a span's bytes back; returns the bytes of a request that `budget.release` is to give back in time."""
        if isinstance(item, Exchange):
            return item.held_bytes
        with self.lock:
            self.span_bytes -= item.held_bytes
        return 0


def arrival_ns(item: Item) -> int:
    """When the request or the span began, nanoseconds since the epoch."""
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
