"""Rows become Arrow batches whose values are the rows' values, and errors never quote one."""

from datetime import UTC, date, datetime
from typing import Any

import pytest

from infertap.tables.arrow import BatchEncoder, UnencodableError, column_type
from infertap.tables.schema import INFERENCE, SPANS, TABLES, TableSchema


def test_every_type_comes_back_as_it_went_in() -> None:
    """Text with NUL and emoji, whole numbers at their limits, times, days, lists and maps survive."""
    row = {
        "request_id": "id",
        "request_date": 20_000,
        "request_time": 1_700_000_000_123_456,
        "status_code": 2**31 - 1,
        "sampling_fraction": 0.25,
        "execution_duration_ms": -(2**63),
        "request": "a\0b 🦜 'quoted'",
        "is_stream": True,
        "finish_reasons": ["stop", "length"],
        "request_headers": {"accept": "*/*", "x": ""},
    }

    batch = BatchEncoder(INFERENCE).encode([row])

    got = {name: batch[name].to_pylist()[0] for name in row}
    assert got | {"request_headers": dict(got["request_headers"])} == row | {
        "request_date": date(2024, 10, 4),
        "request_time": datetime.fromtimestamp(1_700_000_000, UTC).replace(microsecond=123_456),
    }


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_what_is_missing_is_null_or_empty(table: TableSchema) -> None:
    """A missing plain value is NULL; a missing map, list or struct is never NULL."""
    batch = BatchEncoder(table).encode([{}])

    for column in table.columns:
        value = batch[column.name].to_pylist()[0]
        assert (value is None) == ("<" not in column.type), column.name


def test_lists_of_structs_keep_their_members_in_place() -> None:
    """Events of several rows do not move into each other."""
    events = [[{"name": "a", "time_unix_nano": 1}, {"name": "b", "time_unix_nano": 2}], [], [{"name": "c"}]]

    batch = BatchEncoder(SPANS).encode([{"events": of_row} for of_row in events])

    names = [[event["name"] for event in of_row] for of_row in batch["events"].to_pylist()]
    assert names == [["a", "b"], [], ["c"]]


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("status_code", "SECRET"),
        ("status_code", 2**31),
        ("chunk_count", 1.5),
        ("request", 7),
        ("request", "SECRET\ud800"),
        ("is_stream", 1),
        ("finish_reasons", "SECRET"),
        ("finish_reasons", [1]),
        ("tags", {"SECRET": 1}),
        ("tags", ["SECRET"]),
    ],
)
def test_a_value_that_does_not_fit_is_refused_by_the_columns_name(column: str, value: Any) -> None:
    """The error names the column, and neither it nor what is chained to it holds the value."""
    with pytest.raises(UnencodableError, match=f"`{column}`") as raised:
        BatchEncoder(INFERENCE).encode([{column: value}])

    assert "SECRET" not in str(raised.value)
    assert raised.value.__context__ is None
    assert raised.value.__cause__ is None


def test_types_nest_to_any_depth() -> None:
    """A type's arguments are split where no inner bracket encloses the comma."""
    nested = column_type("ARRAY<STRUCT<a MAP<STRING,STRING>, b ARRAY<BIGINT>>>")

    got = nested.build([[{"a": {"k": "v"}, "b": [1, 2]}, {}]]).to_pylist()

    assert got == [[{"a": [("k", "v")], "b": [1, 2]}, {"a": [], "b": []}]]
