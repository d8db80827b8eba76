"""A finished span of the OpenTelemetry SDK on its way to the worker: converted there, not where the app made it."""

from collections.abc import Mapping
from typing import Any

from opentelemetry.sdk.trace import ReadableSpan

from infertap.record import SpanRecord, request_id
from infertap.sizes import attributes_bytes, value_bytes

_SPAN_BYTES, _PART_BYTES = 2 << 10, 500
"""What a span holds in memory without its content, and what each of its events and links holds."""
_UNKNOWN_SERVICE = "unknown_service"


class FinishedSpan:
    """A `PendingSpan` made of a `ReadableSpan`.

    Args:
        span: Ended; it does not change any more.
        request_key: Arrival and random bits of the request it belongs to, where known.
        resource: The resource attributes of this process as infertap records them.
        table_only: See `SpanRecord.table_only`.
    """

    __slots__ = ("_request_key", "_resource", "_span", "_table_only", "held_bytes", "start_ns")

    def __init__(
        self, span: ReadableSpan, request_key: tuple[int, int] | None, resource: Mapping[str, Any], *, table_only: bool
    ) -> None:
        self._span = span
        self._request_key = request_key
        self._resource = resource
        self._table_only = table_only
        self.start_ns = span.start_time or 0
        self.held_bytes = _held_bytes(span)

    def raw(self) -> SpanRecord:
        """The span with raw content; for the worker."""
        span, context, parent = self._span, self._span.context, self._span.parent
        scope = span.instrumentation_scope
        return SpanRecord(
            trace_id=f"{context.trace_id:032x}",
            span_id=f"{context.span_id:016x}",
            parent_span_id=f"{parent.span_id:016x}" if parent is not None else None,
            name=span.name,
            kind=span.kind.name,
            start_ns=self.start_ns,
            end_ns=span.end_time or self.start_ns,
            trace_state=context.trace_state.to_header() if context.trace_state else "",
            trace_flags=int(context.trace_flags),
            attributes=dict(span.attributes or {}),
            events=[[event.name, event.timestamp, dict(event.attributes or {})] for event in span.events],
            links=[
                [
                    f"{link.context.trace_id:032x}",
                    f"{link.context.span_id:016x}",
                    int(link.context.trace_flags),
                    dict(link.attributes or {}),
                ]
                for link in span.links
            ],
            status=[span.status.status_code.name, span.status.description],
            dropped_attributes_count=span.dropped_attributes,
            dropped_events_count=span.dropped_events,
            dropped_links_count=span.dropped_links,
            scope_name=scope.name if scope is not None else "",
            scope_version=scope.version if scope is not None else None,
            resource=_differing(span.resource.attributes, self._resource),
            request_id=request_id(*self._request_key) if self._request_key is not None else None,
            table_only=self._table_only or None,
        )


def _held_bytes(span: ReadableSpan) -> int:
    own = value_bytes(span.name) + attributes_bytes(span.attributes) + value_bytes(span.status.description)
    parts = [attributes_bytes(event.attributes) for event in span.events]
    parts += [attributes_bytes(link.attributes) for link in span.links]
    return _SPAN_BYTES + own + _PART_BYTES * len(parts) + sum(parts)


def _differing(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> dict[str, Any] | None:
    """Their resource upon ours, None where it says nothing else.

    What names the SDK, or a random instance, differs between two providers of one process and says nothing.
    """
    said = {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in theirs.items()
        if not name.startswith("telemetry.")
        and name != "service.instance.id"
        and not (name == "service.name" and str(value).startswith(_UNKNOWN_SERVICE))
    }
    if all(ours.get(name) == value for name, value in said.items()):
        return None
    return {**ours, **said}
