"""The payloads of spool frames become rows: values of the segment's head are added, typed attributes become JSON.

1. A payload is never changed: the other destination reads the same one.
2. Times are integers in the units of `arrow`: microseconds and days since the epoch.
3. Rows share the values that repeat from row to row, so nobody may change one in place.
"""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Self

import orjson

Payload = Mapping[str, Any]
Row = dict[str, Any]

_DAY_US = 86_400_000_000


@dataclass(frozen=True, slots=True)
class SegmentHead:
    """What all rows of one segment have in common."""

    spool_id: str
    segment_no: int
    started_ns: int
    """When the segment's OPEN frame was written; 0 where that frame is damaged."""
    service_name: str | None
    instance: str | None
    resource: dict[str, str]
    """The resource's attributes as text."""
    resource_struct: Row
    """The same as a value of the column `resource` of `spans`."""
    schema_version: int | None
    infertap_version: str | None

    @classmethod
    def of(cls, spool_id: str, segment_no: int, header: Payload) -> Self:
        """The head of a segment from its OPEN payload."""
        resource = header.get("resource") or {}
        return cls(
            spool_id=spool_id,
            segment_no=segment_no,
            started_ns=header.get("started_ns", 0),
            service_name=header.get("service_name"),
            instance=header.get("instance"),
            resource={str(key): as_text(value) for key, value in resource.items()},
            resource_struct=_attributes(as_json(resource)),
            schema_version=header.get("schema_version"),
            infertap_version=header.get("infertap_version"),
        )

    def at(self, segment_no: int) -> Self:
        """The same head for another segment of the slot."""
        return replace(self, segment_no=segment_no)


def arrival_us(request: Payload, head: SegmentHead) -> int:
    """When a request arrived, microseconds since the epoch; for a payload without it, when its segment began."""
    time_us = request.get("request_time")
    return time_us if isinstance(time_us, int) else head.started_ns // 1000


def inference_row(request: Payload, head: SegmentHead) -> Row:
    """The row of `inference` for one REQUEST payload."""
    row = dict(request)
    row.pop("span", None)
    row["request_date"] = request["request_time"] // _DAY_US
    if "service_name" not in row:
        # Most rows are of the process that spooled them; the others say whose they are.
        row.update(service_name=head.service_name, instance=head.instance, resource=head.resource)
    row.setdefault("instance", None)
    row.setdefault("resource", {})
    row["schema_version"] = head.schema_version
    row["infertap_version"] = head.infertap_version
    row["spool_id"] = head.spool_id
    row["segment_no"] = head.segment_no
    return row


def span_row(span: Payload, head: SegmentHead, position: int) -> Row:
    """The row of `spans` for one SPAN payload; `position` is its place among the segment's spans."""
    time_us = span["start_ns"] // 1000
    resource = span.get("resource")
    status = span.get("status") or ("UNSET", None)
    return {
        "record_id": f"{head.spool_id}-{head.segment_no}-{position}",
        "time": time_us,
        "date": time_us // _DAY_US,
        "service_name": (resource or {}).get("service.name", head.service_name),
        "trace_id": span["trace_id"],
        "span_id": span["span_id"],
        "trace_state": span.get("trace_state", ""),
        "parent_span_id": span.get("parent_span_id"),
        "flags": span.get("trace_flags"),
        "name": span["name"],
        "kind": f"SPAN_KIND_{span['kind']}",
        "start_time_unix_nano": span["start_ns"],
        "end_time_unix_nano": span["end_ns"],
        "attributes": as_json(span.get("attributes")),
        "dropped_attributes_count": span.get("dropped_attributes_count", 0),
        "events": [_event(*event) for event in span.get("events") or ()],
        "dropped_events_count": span.get("dropped_events_count", 0),
        "links": [_link(*link) for link in span.get("links") or ()],
        "dropped_links_count": span.get("dropped_links_count", 0),
        "status": _status(status[0], status[1] or ""),
        "resource": head.resource_struct if resource is None else _attributes(as_json(resource)),
        "resource_schema_url": "",
        "instrumentation_scope": _scope(span.get("scope_name", ""), span.get("scope_version") or ""),
        "span_schema_url": "",
        "request_id": span.get("request_id"),
        "spool_id": head.spool_id,
        "segment_no": head.segment_no,
    }


def as_json(value: Any) -> str:
    """`value` as JSON; an absent one is the empty object, bytes are base64, and what is no number becomes null."""
    return orjson.dumps(value or {}, default=_plain, option=orjson.OPT_NON_STR_KEYS).decode()


def as_text(value: Any) -> str:
    """A typed attribute as the text of a MAP's value: strings as they are, all else as JSON."""
    return value if isinstance(value, str) else orjson.dumps(value, default=_plain).decode()


def _event(name: str, time_unix_nano: int, attributes: Payload | None = None) -> Row:
    return {"time_unix_nano": time_unix_nano, "name": name, **_attributes(as_json(attributes))}


def _link(trace_id: str, span_id: str, trace_flags: int, attributes: Payload | None = None) -> Row:
    ids = {"trace_id": trace_id, "span_id": span_id, "trace_state": "", "flags": trace_flags}
    return {**ids, **_attributes(as_json(attributes))}


@lru_cache(maxsize=256)
def _status(code: str, message: str) -> Row:
    return {"message": message, "code": f"STATUS_CODE_{code}"}


@lru_cache(maxsize=256)
def _scope(name: str, version: str) -> Row:
    return {"name": name, "version": version, **_attributes("{}")}


def _attributes(json: str) -> Row:
    return {"attributes": json, "dropped_attributes_count": 0}


def _plain(value: Any) -> str | Sequence[Any]:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, tuple | set | frozenset):
        return list(value)
    return str(value)
