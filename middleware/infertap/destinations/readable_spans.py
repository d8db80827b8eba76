"""Turns spooled spans into the OpenTelemetry SDK's `ReadableSpan`, and says about how many bytes one takes on the wire.

1. Ids, times, types and drop counts are those of the frame.
2. A text over the value limit is withheld and named in `infertap.withheld_attributes`, never cut.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState

UNREADABLE = (KeyError, TypeError, ValueError, IndexError, AttributeError)
"""What `readable_span` raises for a payload that is none: an id that is no hex, a missing name."""

_SPAN_BYTES = 160
"""Ids, times, kind, status and framing of a span; 60 less in practice."""
_ENTRY_BYTES = 16
"""Framing of one attribute, event or link; at most so much below 2 MiB of value."""
_INT64 = range(-(2**63), 2**63)
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


def readable_span(payload: Mapping[str, Any], resource: Resource, value_length_max: int | None = None) -> ReadableSpan:
    """The SDK's span for a SPAN payload (`SpanRecord.to_payload()`).

    Args:
        payload: Keys as `SpanRecord`'s fields; empty ones may be missing.
        resource: The resource of the span's process.
        value_length_max: Longest text of an attribute, in characters.

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
        attributes=fitted(payload.get("attributes", {}), value_length_max),
        events=[
            Event(name, fitted(attributes, value_length_max), timestamp)
            for name, timestamp, attributes in payload.get("events", ())
        ],
        links=[_link(link, value_length_max) for link in payload.get("links", ())],
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


def fitted(attributes: Mapping[str, Any] | None, value_length_max: int | None) -> dict[str, Any]:
    """The attributes that OTLP can carry: too long texts withheld and named, too large integers as text."""
    fit: dict[str, Any] = {}
    withheld: list[str] = []
    for name, value in (attributes or {}).items():
        if value_length_max is not None and _longest(value) > value_length_max:
            withheld.append(name)
        elif type(value) is int and value not in _INT64:
            fit[name] = str(value)
        else:
            fit[name] = value
    if withheld:
        fit["infertap.withheld_attributes"] = withheld
        fit.setdefault("infertap.withheld", "value_length_limit")
    return fit


def size_estimate(span: ReadableSpan) -> int:
    """Bytes of the encoded span: never too few, rarely a fifth too many."""
    size = _SPAN_BYTES + _text_size(span.name) + _mapping_size(span.attributes)
    size += _text_size(span.status.description or "")
    for event in span.events:
        size += _ENTRY_BYTES + _text_size(event.name) + _mapping_size(event.attributes)
    for link in span.links:
        size += 64 + _mapping_size(link.attributes)
    context = span.get_span_context()
    return size + (_text_size(context.trace_state.to_header()) if context and context.trace_state else 0)


def _link(link: Sequence[Any], value_length_max: int | None) -> Link:
    trace_id, span_id, flags, attributes = link
    context = SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=TraceFlags(flags))
    return Link(context, fitted(attributes, value_length_max))


def _status(status: Sequence[Any] | None) -> Status:
    if not status:
        return Status(StatusCode.UNSET)
    code = StatusCode[status[0]]
    return Status(code, status[1] if code is StatusCode.ERROR else None)


def _longest(value: Any) -> int:
    if isinstance(value, str):
        return len(value)
    if isinstance(value, (list, tuple)):
        return max((_longest(item) for item in value), default=0)
    return 0


def _mapping_size(attributes: Mapping[str, Any] | None) -> int:
    if not attributes:
        return 0
    return sum(_ENTRY_BYTES + _text_size(name) + _value_size(value) for name, value in attributes.items())


def _value_size(value: Any) -> int:
    if isinstance(value, str):
        return _text_size(value)
    if isinstance(value, bytes):
        return len(value)
    if isinstance(value, Mapping):
        return _mapping_size({str(name): item for name, item in value.items()})
    if isinstance(value, Sequence):
        return sum(_ENTRY_BYTES + _value_size(item) for item in value)
    return 12


def _text_size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "replace"))
