"""Which request a span belongs to: known where it starts, needed where it ends, perhaps on another thread."""

import threading
from collections.abc import Mapping
from typing import NamedTuple

from opentelemetry.trace import SpanContext

from infertap.trace import current_server_span

RequestKey = tuple[int, int]
"""Arrival (nanoseconds since the epoch) and random bits of a request; `record.request_id` makes its id of them."""

_OPEN_SPANS_MAX = 20_000
"""Spans that are never ended must not fill the memory; beyond this the oldest are forgotten."""


class Belonging(NamedTuple):
    """Where a span belongs."""

    inside: bool
    """Whether it was made in a recorded request."""
    key: RequestKey | None
    """That request; None also where a sidecar in front writes the row."""


_OUTSIDE = Belonging(False, None)


class RequestKeys:
    """The spans that are open in this process, each with its request. Any thread.

    Args:
        sink: The pipeline. Spans in requests that another one of this process records are left to that one.
    """

    __slots__ = ("_lock", "_open", "_sink")

    def __init__(self, sink: object) -> None:
        self._sink = sink
        self._lock = threading.Lock()
        self._open: dict[tuple[int, int], Belonging] = {}

    def began(self, span: SpanContext, parent: SpanContext | None, context: Mapping[str, object] | None) -> None:
        """A span started: it belongs to the request whose context this is, else to its parent's."""
        server = (current_server_span(context) if context else None) or current_server_span()
        if server is not None and server.sink is not self._sink:
            return
        belonging = _OUTSIDE if server is None else Belonging(True, server.request_key)
        with self._lock:
            if server is None and parent is not None:
                belonging = self._open.get((parent.trace_id, parent.span_id), _OUTSIDE)
            while len(self._open) >= _OPEN_SPANS_MAX:
                del self._open[next(iter(self._open))]
            self._open[span.trace_id, span.span_id] = belonging

    def claim(self, trace_id: int, span_id: int, key: RequestKey | None) -> None:
        """A request joined this span, which began outside of it."""
        with self._lock:
            if (trace_id, span_id) in self._open:
                self._open[trace_id, span_id] = Belonging(True, key)

    def ended(self, span: SpanContext) -> Belonging | None:
        """Where the span belongs; None where its start was not seen."""
        with self._lock:
            return self._open.pop((span.trace_id, span.span_id), None)
