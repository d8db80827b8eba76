"""What a body would become is counted before it becomes it."""

import json
import random
from collections.abc import Callable

import pytest
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span

from infertap_sidecar.receiver import elements
from infertap_sidecar.receiver.elements import ELEMENTS_MAX, check_json, check_protobuf
from infertap_sidecar.receiver.errors import MalformedError, TooLargeError


def request(*spans: Span) -> bytes:
    scope_spans = ScopeSpans(spans=spans)
    return ExportTraceServiceRequest(resource_spans=[ResourceSpans(scope_spans=[scope_spans])]).SerializeToString()


def values(count: int) -> Span:
    array = ArrayValue(values=[AnyValue(string_value="")] * count)
    return Span(attributes=[KeyValue(key="k", value=AnyValue(array_value=array))])


@pytest.mark.parametrize(
    "body",
    [
        request(Span(events=[Span.Event()] * (ELEMENTS_MAX + 1))),
        request(Span(attributes=[KeyValue()] * (ELEMENTS_MAX + 1))),
        request(*[Span()] * (ELEMENTS_MAX + 1)),
        request(values(ELEMENTS_MAX + 1)),
        b"\x0a\x00" * (ELEMENTS_MAX + 1),
        b"\x38\x01" * (ELEMENTS_MAX + 1),
    ],
    ids=["events", "attributes", "spans", "values in a list", "resources", "one number again and again"],
)
def test_protobuf_with_too_many_elements_is_refused(body: bytes) -> None:
    """Wherever they are, and whatever they are."""
    with pytest.raises(TooLargeError, match=str(ELEMENTS_MAX)):
        check_protobuf(body)


@pytest.mark.parametrize("unit", [b"{}", b"[]", b"0", b'""', b'{"":0}', b'"\\\\"'])
def test_json_with_too_many_elements_is_refused(unit: bytes) -> None:
    """Objects, lists, numbers and texts alike."""
    with pytest.raises(TooLargeError, match=str(ELEMENTS_MAX)):
        check_json(b'{"resourceSpans":[' + (unit + b",") * ELEMENTS_MAX + unit + b"]}")


def test_a_text_is_one_element() -> None:
    """Prompts of megabytes pass, with whatever is written in them."""
    text = '{"a": ["\\\\", 1.5, "\\""]}, ' * 200_000
    check_json(json.dumps({"resourceSpans": [{"text": text}, text]}).encode())
    check_protobuf(request(Span(attributes=[KeyValue(key="k", value=AnyValue(string_value=text))])))


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Sets the limit."""
    return lambda limit: monkeypatch.setattr(elements, "ELEMENTS_MAX", limit)


def test_the_limit_itself_is_taken(counting: Callable[[int], None]) -> None:
    """The 3 messages around 1,000 empty events are elements as well."""
    body = request(Span(events=[Span.Event()] * 1000))
    counting(1003)
    check_protobuf(body)
    counting(1002)
    with pytest.raises(TooLargeError):
        check_protobuf(body + b"\x0a" + bytes([127]) + bytes(127))


def test_every_body_that_protobuf_reads_is_walked_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """The walk refuses nothing that protobuf reads: unknown fields and groups, and what damage made of a body."""
    monkeypatch.setattr(elements, "_FIELD_BYTES_MIN", 0)  # short ones are walked as well
    source = random.Random(7)
    whole = request(Span(trace_id=b"t" * 16, name="n" * 200, events=[Span.Event(name="e", time_unix_nano=1 << 40)]))
    whole += b"\x9b\x06\x08\x01\x9c\x06" + b"\x9d\x06" + bytes(4) + b"\x99\x06" + bytes(8)
    read = 0
    for _ in range(20_000):
        body = bytearray(whole)
        for _ in range(source.randrange(3)):
            body[source.randrange(len(body))] = source.randrange(256)
        try:
            ExportTraceServiceRequest.FromString(bytes(body))
        except DecodeError:
            continue
        read += 1
        check_protobuf(bytes(body))
    assert read > 1000


@pytest.mark.parametrize(
    "tail", [b"\x0a\x05ab", b"\x0a", b"\x08" + b"\xff" * 11, b"\x0f", b"\x0a\x02\x12\x05"],
    ids=["cut text", "cut length", "long number", "no such type", "longer than what is around it"],
)  # fmt: skip
def test_damage_is_malformed(tail: bytes) -> None:
    """The walk ends with the answer that the parser would give."""
    text = request(Span(name="n" * 2 * ELEMENTS_MAX))
    with pytest.raises(MalformedError):
        check_protobuf(text + tail)
