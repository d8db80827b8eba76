"""Which request a span belongs to: known where it starts, needed where it ends, perhaps on another thread."""

import threading
from collections.abc import Mapping

from opentelemetry.trace import SpanContext

from infertap.trace import current_server_span

RequestKey = tuple[int, int]
"""Arrival (nanoseconds since the epoch) and random bits of a request; `record.request_id` makes its id of them."""

_OPEN_SPANS_MAX = 20_000
"""Spans that are never ended must not fill the memory; beyond this the oldest are forgotten."""
_NOT_SEEN: tuple[RequestKey | None, bool] = (None, False)


class RequestKeys:
    """The spans that are open in this process, each with its request. Any thread."""

    __slots__ = ("_lock", "_open")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: dict[tuple[int, int], RequestKey | None] = {}

    def began(self, span: SpanContext, parent: SpanContext | None, context: Mapping[str, object] | None) -> None:
        """A span started: it belongs to the request whose context this is, else to its parent's."""
        server = (current_server_span(context) if context else None) or current_server_span()
        key = None if server is None else server.request_key
        with self._lock:
            if key is None and parent is not None:
                key = self._open.get((parent.trace_id, parent.span_id))
            while len(self._open) >= _OPEN_SPANS_MAX:
                del self._open[next(iter(self._open))]
            self._open[span.trace_id, span.span_id] = key

    def claim(self, trace_id: int, span_id: int, key: RequestKey) -> None:
        """A request joined this span, which began outside of it."""
        with self._lock:
            if (trace_id, span_id) in self._open:
                self._open[trace_id, span_id] = key

    def ended(self, span: SpanContext) -> tuple[RequestKey | None, bool]:
        """(the span's request, whether its start was seen)."""
        with self._lock:
            identity = (span.trace_id, span.span_id)
            if identity not in self._open:
                return _NOT_SEEN
            return self._open.pop(identity), True
