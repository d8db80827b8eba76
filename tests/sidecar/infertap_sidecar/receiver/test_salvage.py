"""Requests in protobuf of which one part cannot be read: what is around it is taken."""

import random

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span

from infertap_sidecar.receiver.errors import MalformedError
from infertap_sidecar.receiver.salvage import spans_of_protobuf

MARK, BROKEN = "~~", b"\xff\xfe"


def text(value: str) -> KeyValue:
    return KeyValue(key="k", value=AnyValue(string_value=value))


def request(resource: str = "r", scope: str = "s", names: tuple[str, ...] = ("a", "b", "c")) -> ResourceSpans:
    spans = [Span(name=name, attributes=[text(f"of {name}")]) for name in names]
    scope_spans = ScopeSpans(scope=InstrumentationScope(name=scope), spans=spans)
    return ResourceSpans(resource=Resource(attributes=[text(resource)]), scope_spans=[scope_spans])


def body(*parts: ResourceSpans) -> bytes:
    """Each mark in a text becomes bytes that are no UTF-8."""
    return ExportTraceServiceRequest(resource_spans=parts).SerializeToString().replace(MARK.encode(), BROKEN)


def read(data: bytes) -> list[tuple[str, str, str]]:
    """Of each span its resource's text, its scope's name, and its own name or what is wrong with it."""
    return [
        (
            "".join(pair.value.string_value for pair in wire.resource.attributes),
            wire.scope.name,
            wire.span.name if wire.span is not None else wire.problem,
        )
        for wire in spans_of_protobuf(data)
    ]


def test_a_text_that_is_no_utf8_costs_its_span() -> None:
    """In a name or in an attribute; the others come with their resource and scope, in order."""
    name = read(body(request(names=("a", MARK, "c")), request("r2", names=("d",))))
    assert name == [("r", "s", "a"), ("r", "s", "unreadable"), ("r", "s", "c"), ("r2", "s", "d")]
    assert read(body(request(names=("a", f"b{MARK}")))) == [("r", "s", "a"), ("r", "s", "unreadable")]


def test_a_resource_or_scope_that_cannot_be_read_costs_its_spans() -> None:
    """All of its own and no others."""
    found = read(body(request(MARK, names=("a", "b")), request(scope=MARK, names=("c",)), request(names=("d",))))
    assert [words for *_, words in found] == [
        "with an unreadable resource", "with an unreadable resource", "with an unreadable scope", "d"
    ]  # fmt: skip


def test_a_whole_request_is_read_alike() -> None:
    """Piece by piece gives what protobuf gives at once, also where a message came in two parts."""
    whole = body(request(), request("r2"))
    halves = body(request(names=("a",))) + body(request(names=(MARK,)))
    assert read(whole + halves) == [*read(whole), ("r", "s", "a"), ("r", "s", "unreadable")]


@pytest.mark.parametrize(
    "data",
    [
        b"\xff" * 40,
        body(request())[:-1],
        body(request(names=(MARK,)))[:-1],
        b"GET / HTTP/1.1",
        b'{"resourceSpans": []}',
        b"\x0a\x04\x0a\x02\x0a\xff",
    ],
)
def test_a_damaged_frame_is_no_request(data: bytes) -> None:
    """As before: nothing of it is taken."""
    with pytest.raises(MalformedError):
        read(data)


def test_whatever_comes_is_spans_or_no_request() -> None:
    """Bytes changed, cut and doubled at random never raise anything else."""
    chance = random.Random(4)
    good = body(request(), request("r2"))
    outcomes = set()
    for _ in range(3_000):
        data = bytearray(good)
        for _ in range(chance.randint(1, 4)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        try:
            outcomes.add(len(read(bytes(data[: chance.choice((len(data), chance.randrange(len(data))))]))) > 0)
        except MalformedError:
            outcomes.add(None)
    assert outcomes >= {True, None}
