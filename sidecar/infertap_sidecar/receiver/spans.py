"""A span as it came over the wire becomes one of ours; what OpenTelemetry forbids is refused, with the reason."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from infertap.record import SpanRecord
from infertap_sidecar.receiver.wire import WireSpan

_SPAN_BYTES = 2 << 10
"""What a span's own objects hold in memory beside its content, roughly."""
_VALUE_BYTES = 50
"""The same for each key and value in its attributes, events and links, and for its share of the resource."""
_COUNT_MAX = 10_000
"""Attributes, events and links of one span, each; OpenTelemetry's SDKs end at 128."""
_KINDS = {2: "SERVER", 3: "CLIENT", 4: "PRODUCER", 5: "CONSUMER"}
_STATUS = {Status.STATUS_CODE_OK: "OK", Status.STATUS_CODE_ERROR: "ERROR"}
_START_NS = range(946_684_800_000_000_000, 4_102_444_800_000_000_000)
"""The years 2000 to 2099: tables have a partition a day, and a broken clock shall not make them without end."""
_TIME_NS_MAX = 1 << 63
_HAS_IS_REMOTE, _IS_REMOTE = 0x100, 0x200
"""Bits of `Span.flags`: whether the sender knows where its parent is, and whether it is in another process."""
MARK = "infertap"
"""Key of the tracestate entry that says: an infertap further out writes the row."""


class InvalidSpanError(Exception):
    """OpenTelemetry forbids such a span."""


@dataclass(frozen=True, slots=True)
class ReceivedSpan:
    """A span of another process on its way to the worker (`PendingSpan`)."""

    record: SpanRecord
    """Raw content."""
    held_bytes: int
    is_local_root: bool
    """Whether it is the first of its trace in its process, as far as the sender says."""

    @property
    def start_ns(self) -> int:
        """Nanoseconds since the Unix epoch."""
        return self.record.start_ns

    @property
    def key(self) -> tuple[str, str]:
        """What makes it this span: trace and span id."""
        return self.record.trace_id, self.record.span_id

    @property
    def marked(self) -> bool:
        """Whether an infertap in front says that it writes the row."""
        return any(entry.partition("=")[0].strip() == MARK for entry in self.record.trace_state.split(","))

    def raw(self) -> SpanRecord:
        """The span with raw content; for the worker."""
        return self.record


def received(wire: WireSpan, resource: Mapping[str, Any]) -> ReceivedSpan:
    """The span of one wire span.

    Args:
        resource: The attributes of `wire.resource`, converted once for all its spans.

    Raises:
        InvalidSpanError: unreadable, or an id or a time that cannot be, or too many parts; the text says which.
    """
    span = wire.span
    if span is None:
        raise InvalidSpanError(wire.problem)
    if len(span.trace_id) != 16 or not any(span.trace_id):
        raise InvalidSpanError("invalid trace_id")
    if len(span.span_id) != 8 or not any(span.span_id):
        raise InvalidSpanError("invalid span_id")
    if len(span.parent_span_id) not in (0, 8) or span.parent_span_id == span.span_id:
        raise InvalidSpanError("invalid parent_span_id")
    if span.start_time_unix_nano not in _START_NS or span.end_time_unix_nano >= _TIME_NS_MAX:
        raise InvalidSpanError("invalid start or end time")
    for name, parts in (("attributes", span.attributes), ("events", span.events), ("links", span.links)):
        if len(parts) > _COUNT_MAX:
            raise InvalidSpanError(f"with over {_COUNT_MAX} {name}")
    parent = span.parent_span_id.hex() if any(span.parent_span_id) else None
    links = [link for link in span.links if _is_valid_link(link)]
    record = SpanRecord(
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_span_id=parent,
        name=span.name,
        kind=_KINDS.get(span.kind, "INTERNAL"),
        start_ns=span.start_time_unix_nano,
        end_ns=span.end_time_unix_nano or span.start_time_unix_nano,
        trace_state=span.trace_state,
        # What is exported was sampled; many senders leave the flag out.
        trace_flags=(span.flags & 0xFF) | 1,
        attributes=plain_attributes(span.attributes),
        events=[[event.name, event.time_unix_nano, plain_attributes(event.attributes)] for event in span.events],
        links=[
            [link.trace_id.hex(), link.span_id.hex(), link.flags & 0xFF, plain_attributes(link.attributes)]
            for link in links
        ],
        status=[_STATUS[span.status.code], span.status.message or None] if span.status.code in _STATUS else None,
        dropped_attributes_count=span.dropped_attributes_count,
        dropped_events_count=span.dropped_events_count,
        dropped_links_count=span.dropped_links_count + len(span.links) - len(links),
        scope_name=wire.scope.name,
        scope_version=wire.scope.version or None,
        # Without a name of its own, a reader would take it for a span of the receiver.
        resource={"service.name": "unknown_service", **resource},
    )
    values = sum(map(_values, (record.attributes, record.events, record.links))) + len(resource)
    held_bytes = _SPAN_BYTES + _VALUE_BYTES * values + span.ByteSize()
    return ReceivedSpan(record, held_bytes, _is_local_root(span, parent))


def plain_attributes(attributes: Iterable[KeyValue]) -> dict[str, Any]:
    """Attributes as Python values, types kept; those without a value are left out."""
    return {pair.key: plain(pair.value) for pair in attributes if pair.value.WhichOneof("value") is not None}


def plain(value: AnyValue) -> Any:
    """One value; an empty one, which only lists and maps can hold, is the empty text."""
    kind = value.WhichOneof("value")
    if kind is None:
        return ""
    if kind == "array_value":
        return [plain(item) for item in value.array_value.values]
    if kind == "kvlist_value":
        return {pair.key: plain(pair.value) for pair in value.kvlist_value.values}
    return getattr(value, kind)


def _values(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + len(value) + sum(map(_values, value.values()))
    if isinstance(value, list):
        return 1 + sum(map(_values, value))
    return 1


def _is_valid_link(link: Span.Link) -> bool:
    return len(link.trace_id) == 16 and any(link.trace_id) and len(link.span_id) == 8 and any(link.span_id)


def _is_local_root(span: Span, parent: str | None) -> bool:
    if parent is None:
        return True
    # Where the sender does not say, the parent is taken for a span of its own: no row is better than a wrong one.
    return bool(span.flags & _HAS_IS_REMOTE) and bool(span.flags & _IS_REMOTE)
