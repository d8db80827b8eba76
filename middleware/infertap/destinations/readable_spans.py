"""Turns spooled spans into the OpenTelemetry SDK's `ReadableSpan`.

1. Ids, times, types and drop counts are those of the frame.
2. Nothing is cut or left out; what a receiver takes is decided before (`otlp_limits`).
"""

from collections.abc import Mapping, Sequence
from typing import Any

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState

UNREADABLE = (KeyError, TypeError, ValueError, IndexError, AttributeError)
"""What `readable_span` raises for a payload that is none: an id that is no hex, a missing name."""

_RESOURCES_MAX = 256


class _FinishedSpan(ReadableSpan):
    """A `ReadableSpan` whose drop counts are known; the SDK takes them from its own containers only."""

    drops: tuple[int, int, int] = (0, 0, 0)

    @property
    def dropped_attributes(self) -> int:
        return self.drops[0]

    @property
    def dropped_events(self) -> int:
        return self.drops[1]

    @property
    def dropped_links(self) -> int:
        return self.drops[2]


class _HashedResource(Resource):
    """A resource that is hashed once: the encoder hashes it for each span, and the SDK's hash is a JSON document."""

    def __hash__(self) -> int:
        known: int | None = self.__dict__.get("_known_hash")
        if known is None:
            known = self.__dict__["_known_hash"] = super().__hash__()
        return known

    def __eq__(self, other: object) -> bool:
        return self is other or super().__eq__(other)


class Resources:
    """The resource objects of the segments at hand: equal attributes give the same object."""

    def __init__(self) -> None:
        self._known: dict[str, Resource] = {}

    def of(self, attributes: Mapping[str, Any]) -> Resource:
        """The resource with these attributes, and no others from the environment."""
        key = repr(sorted(attributes.items()))
        resource = self._known.get(key)
        if resource is None:
            if len(self._known) >= _RESOURCES_MAX:
                self._known.clear()
            resource = self._known[key] = _HashedResource(dict(attributes))
        return resource


def readable_span(payload: Mapping[str, Any], resource: Resource) -> ReadableSpan:
    """The SDK's span for a SPAN payload (`SpanRecord.to_payload()`).

    Args:
        payload: Keys as `SpanRecord`'s fields; empty ones may be missing.
        resource: The resource of the span's process.

    Raises:
        UNREADABLE: the payload is no span.
    """
    trace_id = int(payload["trace_id"], 16)
    parent_span_id = payload.get("parent_span_id")
    kind = SpanKind[payload["kind"]]
    state = TraceState.from_header([payload["trace_state"]]) if payload.get("trace_state") else TraceState()
    flags = TraceFlags(payload.get("trace_flags", 1))
    parent = None
    if parent_span_id:
        parent = SpanContext(trace_id, int(parent_span_id, 16), is_remote=kind is SpanKind.SERVER, trace_flags=flags)
    span = _FinishedSpan(
        name=payload["name"],
        context=SpanContext(trace_id, int(payload["span_id"], 16), False, flags, state),
        parent=parent,
        resource=resource,
        attributes=payload.get("attributes", {}),
        events=[Event(name, attributes, timestamp) for name, timestamp, attributes in payload.get("events", ())],
        links=[_link(link) for link in payload.get("links", ())],
        kind=kind,
        status=_status(payload.get("status")),
        start_time=payload["start_ns"],
        end_time=payload["end_ns"],
        instrumentation_scope=InstrumentationScope(payload.get("scope_name", ""), payload.get("scope_version")),
    )
    span.drops = (
        payload.get("dropped_attributes_count", 0),
        payload.get("dropped_events_count", 0),
        payload.get("dropped_links_count", 0),
    )
    return span


def _link(link: Sequence[Any]) -> Link:
    trace_id, span_id, flags, attributes = link
    context = SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=TraceFlags(flags))
    return Link(context, attributes)


def _status(status: Sequence[Any] | None) -> Status:
    if not status:
        return Status(StatusCode.UNSET)
    code = StatusCode[status[0]]
    return Status(code, status[1] if code is StatusCode.ERROR else None)
