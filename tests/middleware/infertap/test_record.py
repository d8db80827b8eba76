"""The values all else speaks of: their ids and their wire form."""

import uuid

import ormsgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infertap.record import InferenceRecord, ServerSpanFacts, SpanRecord, request_id

_bits = st.integers(0, (1 << 256) - 1)
_times = st.integers(0, (1 << 48) * 1_000_000 - 1)


@given(at_ns=_times, bits=_bits)
def test_a_request_id_is_a_uuid_of_version_7(at_ns: int, bits: int) -> None:
    """With the arrival's milliseconds in front."""
    value = uuid.UUID(request_id(at_ns, bits))
    assert str(value) == request_id(at_ns, bits)
    assert value.variant == uuid.RFC_4122
    assert value.version == 7
    assert value.int >> 80 == at_ns // 1_000_000


@given(at_ns=_times, bits=_bits, later_ns=st.integers(1_000_000, 10**15))
def test_request_ids_sort_by_arrival(at_ns: int, bits: int, later_ns: int) -> None:
    """As text, to the millisecond."""
    later = min(at_ns + later_ns, (1 << 48) * 1_000_000 - 1)
    if later // 1_000_000 > at_ns // 1_000_000:
        assert request_id(at_ns, (1 << 256) - 1 - bits) < request_id(later, bits)


def test_request_ids_of_one_moment_differ_in_74_bits() -> None:
    """All that a UUIDv7 has beside version, variant and time."""
    assert len({request_id(5, 0), *(request_id(5, 1 << bit) for bit in range(256))}) == 1 + 74


def _facts() -> ServerSpanFacts:
    return ServerSpanFacts("SERVER", "a" * 16, None, "", 1, "1.1", "http", "", None, None, [], [])


@pytest.mark.parametrize(
    "record",
    [
        InferenceRecord("id", 5, request="", status_code=0, is_stream=False, span=_facts(), tags={}),
        _facts(),
        SpanRecord("t", "s", None, "n", "INTERNAL", 0, 0),
    ],
)
def test_a_payload_has_no_nulls_and_keeps_what_is_zero_or_empty_text(
    record: InferenceRecord | ServerSpanFacts | SpanRecord,
) -> None:
    """An empty body is no missing body."""
    payload = record.to_payload()
    assert ormsgpack.unpackb(ormsgpack.packb(payload)) == payload
    for name, value in vars(record).items():
        if value is None or value == [] or value == {}:
            assert name not in payload
        elif name != "span":
            assert payload[name] == value
            assert type(payload[name]) is type(value)


def test_the_span_is_in_the_payload_only_where_it_was_sampled() -> None:
    """Under its own key, as a map."""
    assert "span" not in InferenceRecord("id", 5).to_payload()
    assert InferenceRecord("id", 5, span=_facts()).to_payload()["span"] == _facts().to_payload()
