"""Payloads become rows, and stay as they are for the other destination."""

import json
import math
from typing import Any

import pytest

from infertap.tables.rows import SegmentHead, arrival_us, as_json, inference_row, span_row

HEAD = SegmentHead.of(
    "a1", 3, {"started_ns": 5_000, "service_name": "scorer", "resource": {"n": 2, "list": ["a"], "s": "x"}}
)
SPAN = {"trace_id": "t", "span_id": "s", "name": "n", "kind": "CLIENT", "start_ns": 86_400 * 10**9 + 1_999, "end_ns": 7}


def test_a_payload_is_not_changed() -> None:
    """The same map goes to the other destination."""
    payload = {"request_time": 86_400_000_000, "span": {"kind": "SERVER"}}

    row = inference_row(payload, HEAD)

    assert payload == {"request_time": 86_400_000_000, "span": {"kind": "SERVER"}}
    assert (row["request_date"], row["segment_no"], "span" in row) == (1, 3, False)


def test_a_resource_is_text_in_a_map_and_typed_in_json() -> None:
    """`inference` has a MAP of strings, `spans` a JSON object."""
    row = inference_row({"request_time": 0}, HEAD)

    assert row["resource"] == {"n": "2", "list": '["a"]', "s": "x"}
    assert json.loads(span_row(SPAN, HEAD, 0)["resource"]["attributes"]) == {"n": 2, "list": ["a"], "s": "x"}


def test_a_span_of_another_resource_keeps_it() -> None:
    """A receiver's segment holds spans of many services."""
    row = span_row({**SPAN, "resource": {"service.name": "other"}}, HEAD, 0)

    assert (row["service_name"], row["resource"]["attributes"]) == ("other", '{"service.name":"other"}')


def test_a_bare_span_is_complete() -> None:
    """What a payload leaves out is unset or empty; the time is cut to microseconds."""
    row = span_row(SPAN, HEAD, 4)

    assert (row["time"], row["date"], row["record_id"], row["kind"]) == (
        86_400_000_001,
        1,
        "a1-3-4",
        "SPAN_KIND_CLIENT",
    )
    assert (row["status"], row["attributes"], row["events"]) == ({"message": "", "code": "STATUS_CODE_UNSET"}, "{}", [])


@pytest.mark.parametrize(
    ("value", "expected"),
    [(None, "{}"), ({"b": b"\x00\xff"}, '{"b":"AP8="}'), ({"x": math.nan}, '{"x":null}'), ({1: ("a",)}, '{"1":["a"]}')],
)
def test_every_value_has_a_json_form(value: Any, expected: str) -> None:
    """Bytes are base64, what is no number is null, keys are strings."""
    assert as_json(value) == expected


def test_a_request_without_a_time_counts_where_its_segment_began() -> None:
    """It has no row, but it is counted as parked in some minute."""
    assert (arrival_us({"request_time": 9}, HEAD), arrival_us({}, HEAD)) == (9, 5)
