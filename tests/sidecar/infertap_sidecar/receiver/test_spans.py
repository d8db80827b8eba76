"""Spans off the wire, in protobuf and in OTLP's JSON: the same span, and the same refusals."""

import base64
import json
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status

from infertap_sidecar.receiver.errors import MalformedError
from infertap_sidecar.receiver.spans import InvalidSpanError, received
from infertap_sidecar.receiver.wire import WireSpan, from_protobuf, spans_of, spans_of_json

TRACE, SPAN, PARENT = bytes(range(16)), bytes(range(1, 9)), bytes(range(2, 10))


def span(**fields: Any) -> Span:
    """A valid span, but for the given fields."""
    times = {"start_time_unix_nano": 1_764_000_000_000_000_000, "end_time_unix_nano": 1_764_000_000_000_001_000}
    return Span(**{"trace_id": TRACE, "span_id": SPAN, "name": "n", **times, **fields})


def attribute(key: str, **value: Any) -> KeyValue:
    return KeyValue(key=key, value=AnyValue(**value))


FULL = span(
    parent_span_id=PARENT,
    kind=Span.SPAN_KIND_CLIENT,
    trace_state="a=1,infertap=00",
    flags=0x301,
    status=Status(code=Status.STATUS_CODE_ERROR, message="why"),
    attributes=[
        attribute("text", string_value="ä"),
        attribute("yes", bool_value=True),
        attribute("count", int_value=-(1 << 62)),
        attribute("ratio", double_value=0.5),
        attribute("raw", bytes_value=b"\x00\xff"),
        attribute("list", array_value=ArrayValue(values=[AnyValue(int_value=1), AnyValue()])),
        attribute("map", kvlist_value=KeyValueList(values=[attribute("k", string_value="v")])),
        attribute("empty"),
    ],
    events=[Span.Event(name="e", time_unix_nano=7, attributes=[attribute("a", int_value=1)])],
    links=[Span.Link(trace_id=TRACE, span_id=PARENT, flags=1), Span.Link(trace_id=b"short", span_id=b"")],
    dropped_attributes_count=3,
)
REQUEST = ExportTraceServiceRequest(
    resource_spans=[
        ResourceSpans(
            resource=Resource(attributes=[attribute("service.name", string_value="s")]),
            scope_spans=[ScopeSpans(scope=InstrumentationScope(name="lib", version="1"), spans=[FULL])],
        )
    ]
)


def as_json(request: ExportTraceServiceRequest, *, enums_as_numbers: bool) -> dict[str, Any]:
    """What an OTLP/JSON sender makes of a request: protobuf's JSON, with ids in hex."""
    document: dict[str, Any] = MessageToDict(request, use_integers_for_enums=enums_as_numbers)

    def hex_ids(node: Any) -> None:
        if isinstance(node, dict):
            for key, value in node.items():
                if key in ("traceId", "spanId", "parentSpanId"):
                    node[key] = base64.b64decode(value).hex()
                else:
                    hex_ids(value)
        elif isinstance(node, list):
            for item in node:
                hex_ids(item)

    hex_ids(document)
    return document


def test_a_span_keeps_everything() -> None:
    """Ids, times, typed attributes, events, valid links, status, flags and counts arrive."""
    (wire,) = spans_of(from_protobuf(REQUEST.SerializeToString()))
    got = received(wire, {"service.name": "s"})
    record = got.record
    assert (record.trace_id, record.span_id, record.parent_span_id) == (TRACE.hex(), SPAN.hex(), PARENT.hex())
    assert (record.kind, record.status, record.trace_flags) == ("CLIENT", ["ERROR", "why"], 1)
    assert record.attributes == {
        "text": "ä", "yes": True, "count": -(1 << 62), "ratio": 0.5, "raw": b"\x00\xff", "list": [1, ""],
        "map": {"k": "v"},
    }  # fmt: skip
    assert record.events == [["e", 7, {"a": 1}]]
    assert record.links == [[TRACE.hex(), PARENT.hex(), 1, {}]]
    assert (record.dropped_attributes_count, record.dropped_links_count) == (3, 1)
    assert (record.scope_name, record.scope_version, record.resource) == ("lib", "1", {"service.name": "s"})
    assert got.is_local_root
    assert got.marked
    assert got.held_bytes > FULL.ByteSize()


@pytest.mark.parametrize("enums_as_numbers", [True, False])
def test_json_gives_the_same_span_as_protobuf(enums_as_numbers: bool) -> None:
    """Hex ids, int64 as text, base64 bytes, enums by name or number."""
    document = as_json(REQUEST, enums_as_numbers=enums_as_numbers)
    (from_json,) = spans_of_json(json.dumps(document).encode())
    (from_binary,) = spans_of(REQUEST)
    assert from_json == from_binary


def test_json_takes_numbers_for_int64_snake_case_and_unknown_fields() -> None:
    """What senders write beside the letter of the specification is understood."""
    document = as_json(REQUEST, enums_as_numbers=True)
    fields = document["resourceSpans"][0]["scopeSpans"][0]["spans"][0]
    fields["start_time_unix_nano"] = int(fields.pop("startTimeUnixNano"))
    fields["newInOtlp2"] = {"x": [1]}
    (wire,) = spans_of_json(json.dumps(document).encode())
    assert wire.span == FULL


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"trace_id": b""}, "trace_id"),
        ({"trace_id": bytes(16)}, "trace_id"),
        ({"trace_id": TRACE + b"x"}, "trace_id"),
        ({"span_id": bytes(8)}, "span_id"),
        ({"span_id": b"abc"}, "span_id"),
        ({"parent_span_id": b"abc"}, "parent_span_id"),
        ({"parent_span_id": SPAN}, "parent_span_id"),
        ({"start_time_unix_nano": 0}, "time"),
        ({"start_time_unix_nano": 1}, "time"),
        ({"start_time_unix_nano": 1 << 63}, "time"),
        ({"end_time_unix_nano": (1 << 64) - 1}, "time"),
    ],
)
def test_what_opentelemetry_forbids_is_refused_with_its_reason(fields: dict[str, Any], reason: str) -> None:
    """Ids and times that cannot be."""
    with pytest.raises(InvalidSpanError, match=reason):
        received(WireSpan(Resource(), InstrumentationScope(), span(**fields)), {})


@pytest.mark.parametrize(
    ("fields", "is_root"),
    [
        ({}, True),
        ({"parent_span_id": bytes(8)}, True),
        ({"parent_span_id": PARENT, "flags": 0x300}, True),
        ({"parent_span_id": PARENT, "flags": 0x100}, False),
        ({"parent_span_id": PARENT, "flags": 0x201}, False),
        ({"parent_span_id": PARENT}, False),
    ],
)
def test_a_local_root_has_no_parent_or_a_remote_one(fields: dict[str, Any], is_root: bool) -> None:
    """Where the sender does not say where the parent is, the span is no root."""
    assert received(WireSpan(Resource(), InstrumentationScope(), span(**fields)), {}).is_local_root is is_root


@pytest.mark.parametrize("state", ["", "a=1", "infertapped=1", "a=infertap"])
def test_only_our_own_entry_is_the_mark(state: str) -> None:
    """The key counts, whole."""
    assert not received(WireSpan(Resource(), InstrumentationScope(), span(trace_state=state)), {}).marked


def test_one_unreadable_span_in_json_leaves_the_others() -> None:
    """Wrong types, bad hex and deep nesting are the fault of one span."""
    deep: dict[str, Any] = {"stringValue": "x"}
    for _ in range(150):
        deep = {"arrayValue": {"values": [deep]}}
    good = as_json(REQUEST, enums_as_numbers=True)["resourceSpans"][0]["scopeSpans"][0]["spans"][0]
    bad = [
        {**good, "traceId": "not hex"},
        {**good, "traceId": 5},
        {**good, "kind": "SPAN_KIND_NONSENSE", "attributes": 1},
        {**good, "attributes": [{"key": "k", "value": deep}]},
        {**good, "links": [7]},
    ]
    body = json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [*bad, good]}]}]}).encode()
    wires = list(spans_of_json(body))
    assert [wire.span is None for wire in wires] == [True] * 5 + [False]


@pytest.mark.parametrize("name", ["resource", "scope"])
def test_what_surrounds_a_span_costs_its_own_spans_only(name: str) -> None:
    """A resource or scope nested 200 deep: its spans are refused with the reason, those of others are taken."""
    deep: dict[str, Any] = {"stringValue": "x"}
    for _ in range(200):
        deep = {"arrayValue": {"values": [deep]}}
    good = as_json(REQUEST, enums_as_numbers=True)["resourceSpans"][0]
    spans = good["scopeSpans"][0]["spans"]
    bad = json.loads(json.dumps(good))
    around = {"attributes": [{"key": "k", "value": deep}]}
    if name == "resource":
        bad["resource"] = around
    else:
        bad["scopeSpans"][0]["scope"] = around
    wires = list(spans_of_json(json.dumps({"resourceSpans": [bad, good]}).encode()))
    assert [wire.span is None for wire in wires] == [True] * len(spans) + [False] * len(spans)
    with pytest.raises(InvalidSpanError, match=name):
        received(wires[0], {})
    assert wires[-1].span == FULL


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (rb"half \ud83d of it", "half \ufffd of it"),
        (rb"\uDC00\ud83d\ude00", "\ufffd\U0001f600"),
        (rb"\ud83d\ud83d\ude00\\ud83d", "\ufffd\U0001f600\\ud83d"),
        (rb"\ud83d\\\ud83d\n", "\ufffd\\\ufffd\n"),
        (b"no \xff utf-8", "no \ufffd utf-8"),
    ],
)
def test_text_that_is_no_unicode_costs_no_span(written: bytes, read: str) -> None:
    """Half a surrogate pair becomes U+FFFD; whole pairs, and backslashes before something else, stay."""
    good = as_json(REQUEST, enums_as_numbers=True)["resourceSpans"][0]["scopeSpans"][0]["spans"][0]
    body = json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [{**good, "name": "NAME"}, good]}]}]}).encode()
    first, second = spans_of_json(body.replace(b"NAME", written))
    assert first.span is not None
    assert first.span.name == read
    assert second.span == FULL


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"\xff\xfe",
        b'{"resourceSpans": 1}',
        b'{"resourceSpans": [1]}',
        b'{"resourceSpans": [{"scopeSpans": {"spans": []}}]}',
        b"[" * 100_000,
    ],
    ids=["empty", "cut", "list", "no text", "number", "numbers", "map", "deep"],
)
def test_a_document_that_is_none_is_malformed(body: bytes) -> None:
    """Nothing is guessed from it."""
    with pytest.raises(MalformedError):
        list(spans_of_json(body))


def field(number: int, content: bytes) -> bytes:
    """A length-delimited field of a protobuf message."""
    size, length = bytearray(), len(content)
    while length > 0x7F:
        size.append(length & 0x7F | 0x80)
        length >>= 7
    return bytes([number << 3 | 2, *size, length]) + content


def test_protobuf_that_is_none_is_malformed() -> None:
    """Truncated and random bytes, and nesting that the parser refuses."""
    value = b""
    for _ in range(10_000):
        value = field(5, field(1, value))  # an AnyValue with an ArrayValue
    attribute_bytes = field(9, field(1, b"k") + field(2, value))
    deep = field(1, field(2, field(2, span().SerializeToString() + attribute_bytes)))
    for body in (REQUEST.SerializeToString()[:-5], b"\xff" * 40, b"<html>", deep):
        with pytest.raises(MalformedError):
            from_protobuf(body)


@pytest.mark.parametrize(
    ("name", "part"), [("attributes", KeyValue(key="k")), ("events", Span.Event()), ("links", Span.Link())]
)
def test_a_span_has_a_bounded_number_of_parts(name: str, part: Any) -> None:
    """Ten thousand of a kind are taken, one more is refused with the kind's name."""
    assert received(WireSpan(Resource(), InstrumentationScope(), span(**{name: [part] * 10_000})), {})
    with pytest.raises(InvalidSpanError, match=f"with over 10000 {name}"):
        received(WireSpan(Resource(), InstrumentationScope(), span(**{name: [part] * 10_001})), {})


def test_a_span_is_charged_for_what_it_becomes() -> None:
    """An event of two bytes becomes a list with a text, a time and a map; a resource is held by each of its spans."""
    bare = received(WireSpan(Resource(), InstrumentationScope(), span()), {}).held_bytes
    with_events = received(WireSpan(Resource(), InstrumentationScope(), span(events=[Span.Event()] * 1000)), {})
    assert with_events.held_bytes - bare >= 200_000
    resource = {f"k{number}": number for number in range(1000)}
    assert received(WireSpan(Resource(), InstrumentationScope(), span()), resource).held_bytes - bare == 50_000
