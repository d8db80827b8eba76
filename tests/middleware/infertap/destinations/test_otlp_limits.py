"""What a platform does not take: withheld and named, never cut, and a span always fits."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.resources import Resource

from infertap.destinations.otlp_limits import Fit, shrunk
from infertap.destinations.readable_spans import readable_span
from infertap.destinations.span_size import size_estimate
from infertap.targets import OtlpLimits

SPAN = {"trace_id": "1", "span_id": "2", "name": "n", "kind": "SERVER", "start_ns": 1, "end_ns": 2}
VALUES = st.integers(0, 900).map("x".__mul__) | st.integers() | st.lists(st.text(max_size=5), max_size=5)
ATTRIBUTES = st.dictionaries(st.text(max_size=5), VALUES, max_size=8)
SMALLEST_BYTES = 1_600
"""Labels of 200 characters in UTF-8, the name of the request, and the mark."""


def test_value_limit_counts_characters_of_texts_only() -> None:
    """Exactly the limit fits; numbers have no length; integers beyond 64 bits become texts."""
    attributes = {"at": "é" * 20, "over": "x" * 21, "number": 10**25 % 2**62, "large": 2**64}
    fit = Fit(value_length_max=20)
    assert fit.attributes(attributes) == {
        "at": "é" * 20,
        "number": 10**25 % 2**62,
        "large": str(2**64),
        "infertap.withheld_attributes": ["over"],
        "infertap.withheld": "value_length_limit",
    }
    assert fit.attributes(None) == {}


def test_a_platforms_value_limit_counts_bytes_of_each_item() -> None:
    """Exactly the limit fits; a list is as long as its longest item."""
    fit = Fit(OtlpLimits(attribute_bytes_max=4))
    assert fit.attributes({"at": "éé", "list": ["abcd", "ef"]}) == {"at": "éé", "list": ["abcd", "ef"]}
    over = fit.attributes({"over": "ééé", "list": ["abcde"], "mine": 1})
    assert over == {
        "mine": 1,
        "infertap.withheld_attributes": ["over", "list"],
        "infertap.withheld": "platform_limit",
    }


@pytest.mark.parametrize(
    ("value", "carried"),
    [
        ({"a": [1]}, '{"a":[1]}'),
        ([1, "a"], '[1,"a"]'),
        ([{"role": "user"}], '[{"role":"user"}]'),
        (["x"] * 64, ["x"] * 64),
        (["x"] * 65, '["' + '","'.join("x" * 65) + '"]'),
        (b"\xff", '"\\\\xff"'),
        (["a", "b"], ["a", "b"]),
        ([], []),
        (1.5, 1.5),
    ],
)
def test_types_that_a_platform_refuses_go_as_json(value: Any, carried: Any) -> None:
    """Maps, mixed and long arrays are carried as text, whole."""
    assert Fit(OtlpLimits(array_items_max=64, plain_values=True)).attributes({"a": value}) == {"a": carried}
    if value != ["x"] * 65:
        assert Fit().attributes({"a": value}) == {"a": value}


def test_too_long_names_are_named_short() -> None:
    """The mark fits the limits itself, whatever was withheld."""
    limits = OtlpLimits(name_bytes_max=255, array_items_max=64)
    fitted = Fit(limits).attributes({"n" * 255: 1, **{f"{'n' * 256}{number}": 1 for number in range(100)}})
    assert fitted.pop("n" * 255) == 1
    assert len(fitted["infertap.withheld_attributes"]) == 32
    assert max(map(len, fitted["infertap.withheld_attributes"])) < 110


def test_the_largest_attribute_goes_first() -> None:
    """What fits stays, the request's id stays longest, and events lose theirs, too."""
    payload = {
        **SPAN,
        "attributes": {"infertap.request_id": "r" * 900, "big": "b" * 700, "small": "s"},
        "events": [["e", 1, {"text": "t" * 800, "n": 1}]],
    }
    span = shrunk(payload, 1_000)
    assert span["attributes"] == {
        "infertap.request_id": "r" * 900,
        "small": "s",
        "infertap.withheld": "platform_limit",
        "infertap.withheld_attributes": ["text", "big"],
    }
    assert span["events"] == [["e", 1, {"n": 1}]]
    assert payload["events"][0][2]["text"] == "t" * 800


@given(
    attributes=ATTRIBUTES,
    events=st.lists(st.tuples(st.text(max_size=5), st.just(1), ATTRIBUTES).map(list), max_size=20),
    name=st.integers(1, 3000).map("ü".__mul__),
    bytes_max=st.integers(SMALLEST_BYTES, 6_000),
)
def test_every_span_fits(attributes: dict[str, Any], events: list[Any], name: str, bytes_max: int) -> None:
    """Whatever is on a span, what is left of it is within the limit, and gone events are counted."""
    payload = {**SPAN, "name": name, "attributes": attributes, "events": events, "status": ["ERROR", name]}
    over = size_estimate(readable_span(payload, Resource({}))) - bytes_max
    if over <= 0:
        return
    small = shrunk(payload, over)
    assert size_estimate(readable_span(small, Resource({}))) <= bytes_max
    assert len(small["events"]) + small.get("dropped_events_count", 0) == len(events)
