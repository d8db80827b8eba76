"""One request, found by what a person has at hand."""

from collections.abc import Callable
from typing import Any

import pytest

from infertap.tables.delta import DeltaWriter
from infertap.tables.lookup import AmbiguousError, Found, lookup
from infertap.tables.query import QueryError
from infertap.tables.rows import SegmentHead, span_row
from infertap.tables.schema import SPANS
from infertap.targets import TableTarget

IDS = (
    "0199f3c2-7a10-7c3e-8a51-8f0c2b9d4e11",
    "0199f3c2-7a10-7c3e-8a51-8f0c2b9d4e22",
    "0199f3c2-8b00-7c3e-8a51-8f0c2b9d4e33",
)
TRACES = ("4bf92f3577b34da6a3ce929d0e0e4736", "4bf92f3577b34da6a3ce929d0e0e4736", "5cf92f3577b34da6a3ce929d0e0e4736")


def time_us(request_id: str) -> int:
    return int(request_id.replace("-", "")[:12], 16) * 1000


@pytest.fixture
def recorded(
    writer: DeltaWriter, open_writer: Callable[..., DeltaWriter], make_rows: Callable[..., Any]
) -> list[dict[str, Any]]:
    """Three requests, two of them of one trace; three spans of that trace, out of order, and one of a lonely trace."""
    made = make_rows(3)
    for row, request_id, trace_id in zip(made, IDS, TRACES, strict=True):
        at = time_us(request_id)
        row |= {"request_id": request_id, "trace_id": trace_id, "request_time": at}
        row |= {"request_date": at // 86_400_000_000}
    writer.commit(writer.encoder.encode(made), {"a1": 1})
    at = time_us(IDS[0]) * 1000
    base = {"trace_id": TRACES[0], "name": "s", "kind": "INTERNAL", "start_ns": at, "end_ns": at}
    made_spans = (
        base | {"span_id": "2", "start_ns": at + 5},
        base | {"span_id": "1", "request_id": IDS[0]},
        base | {"span_id": "3", "trace_id": "0" * 31 + "1"},
    )
    spans, head = open_writer(SPANS), SegmentHead.of("a1", 1, {})
    spans.commit(spans.encoder.encode([span_row(span, head, n) for n, span in enumerate(made_spans)]), {"a1": 1})
    return made


@pytest.mark.usefixtures("recorded")
@pytest.mark.parametrize(
    ("given", "found"),
    [
        (IDS[0], IDS[0]),
        (IDS[0].upper(), IDS[0]),
        (IDS[1].replace("-", ""), IDS[1]),
        ("0199f3c2-8", IDS[2]),
        ("0199F3C28B", IDS[2]),
        (TRACES[2], IDS[2]),
        ("5cf9", IDS[2]),
        (None, IDS[2]),
    ],
)
def test_a_request_is_found(target: TableTarget, given: str | None, found: str) -> None:
    """By its id, by a beginning of it with and without dashes, by its trace, and as the newest."""
    row = lookup(target, given).inference
    assert row is not None
    assert row["request_id"] == found


@pytest.mark.usefixtures("recorded")
def test_all_spans_of_its_trace_come_with_it(target: TableTarget) -> None:
    """Children know their trace but often not the request; both come, by start."""
    assert [span["span_id"] for span in lookup(target, IDS[0]).spans] == ["1", "2"]


@pytest.mark.usefixtures("recorded")
def test_a_trace_without_a_request_has_its_spans(target: TableTarget) -> None:
    """As after a collector that only took spans."""
    found = lookup(target, "0" * 31 + "1")
    assert found.inference is None
    assert [span["span_id"] for span in found.spans] == ["3"]


@pytest.mark.usefixtures("recorded")
@pytest.mark.parametrize("given", ["0199f3c2", TRACES[0], "4bf92f"])
def test_several_that_fit_are_listed(target: TableTarget, given: str) -> None:
    """Newest first, each with its id, so that one can be named."""
    with pytest.raises(AmbiguousError) as caught:
        lookup(target, given)
    lines = str(caught.value).splitlines()
    assert "requests fit" in lines[0]
    assert [line.split()[0] for line in lines[-2:]] == [IDS[1], IDS[0]]


@pytest.mark.usefixtures("recorded")
@pytest.mark.parametrize("given", ["x' OR '1'='1", "", "019", "%", "0199f3c2_", "-" * 8, IDS[0] + "0"])
def test_what_is_no_id_is_refused(target: TableTarget, given: str) -> None:
    """Only hex digits go into the query, so nothing can be smuggled in with them."""
    with pytest.raises(QueryError, match="not a request id"):
        lookup(target, given)


@pytest.mark.usefixtures("recorded")
@pytest.mark.parametrize(
    "given",
    [
        "0199f3c2-7a10-7c3e-8a51-8f0c2b9d4e99",
        "ffffffff-ffff-7fff-bfff-ffffffffffff",
        "00000000-0000-7000-8000-000000000000",
        "f" * 32,
        "ffff",
    ],
)
def test_an_unknown_one_is_nothing(target: TableTarget, given: str) -> None:
    """Also where the id's time is long past, or after the end of all calendars."""
    assert lookup(target, given) == Found(None, [])
