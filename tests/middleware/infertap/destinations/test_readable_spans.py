"""Spans of the SDK made from spooled ones: the size on the wire is never estimated too small."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.resources import Resource

from infertap.destinations.readable_spans import UNREADABLE, Resources, readable_span
from infertap.destinations.span_size import size_estimate
from infertap.record import SpanRecord

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
NUMBERS = st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.booleans()
VALUES = st.recursive(
    TEXTS | NUMBERS | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
ATTRIBUTES = st.dictionaries(TEXTS, VALUES, max_size=5)
IDS = st.integers(1, 2**64 - 1).map(lambda number: f"{number:016x}")
TIMES = st.integers(0, 2**63)


@st.composite
def span_payloads(draw: Any) -> dict[str, Any]:
    """Payloads of SPAN frames."""
    return SpanRecord(
        trace_id=draw(IDS) + draw(IDS),
        span_id=draw(IDS),
        parent_span_id=draw(st.none() | IDS),
        name=draw(TEXTS),
        kind=draw(st.sampled_from(["SERVER", "INTERNAL", "CLIENT"])),
        start_ns=draw(TIMES),
        end_ns=draw(TIMES),
        trace_state=draw(st.sampled_from(["", "a=1", "a=1,b=2"])),
        attributes=draw(ATTRIBUTES),
        events=draw(st.lists(st.tuples(TEXTS, TIMES, ATTRIBUTES).map(list), max_size=3)),
        links=draw(st.lists(st.tuples(st.just("1" * 32), IDS, st.just(1), ATTRIBUTES).map(list), max_size=3)),
        status=draw(st.none() | st.just(["ERROR", "why"])),
        dropped_attributes_count=draw(st.integers(0, 2**31)),
    ).to_payload()


@given(st.lists(span_payloads(), min_size=1, max_size=4))
def test_estimate_is_never_too_small(payloads: list[dict[str, Any]]) -> None:
    """The encoded spans take at most the estimated bytes, whatever is on them."""
    spans = [readable_span(payload, Resource({})) for payload in payloads]
    (of_resource,) = encode_spans(spans).resource_spans
    encoded = sum(scope.ByteSize() for scope in of_resource.scope_spans)
    assert encoded <= sum(map(size_estimate, spans))


@pytest.mark.parametrize("characters", [1_000, 100_000, 3_000_000])
def test_estimate_of_a_body_is_close(characters: int) -> None:
    """For bodies the estimate is exact to some hundred bytes, also beyond ASCII."""
    for text in ("x" * characters, "ü" * characters):
        span = readable_span(
            {"trace_id": "1", "span_id": "2", "name": "n", "kind": "SERVER", "start_ns": 1, "end_ns": 2}
            | {"attributes": {"input.value": text}},
            Resource({}),
        )
        encoded = encode_spans([span]).ByteSize()
        assert encoded <= size_estimate(span) <= encoded + 300


@pytest.mark.parametrize(
    "change",
    [
        {"trace_id": "no hex"},
        {"span_id": None},
        {"kind": "SIDEWAYS"},
        {"events": [[1]]},
        {"links": [["1"]]},
        {"status": ["X"]},
    ],
)
def test_what_is_no_span_is_refused(change: dict[str, Any]) -> None:
    """A payload with nonsense in it raises one of the documented errors."""
    payload = {"trace_id": "1", "span_id": "2", "name": "n", "kind": "SERVER", "start_ns": 1, "end_ns": 2, **change}
    with pytest.raises(UNREADABLE):
        readable_span(payload, Resource({}))


def test_equal_resources_are_one_object() -> None:
    """Segments of one process share their resource, so that the encoder groups them."""
    resources = Resources()
    one = resources.of({"service.name": "a", "list": ["x"]})
    assert resources.of({"list": ["x"], "service.name": "a"}) is one
    assert resources.of({"service.name": "b"}) != one
    assert dict(one.attributes) == {"service.name": "a", "list": ("x",)}
    assert hash(one) == hash(one) == hash(Resource({"service.name": "a", "list": ["x"]}))
