"""Rows that a table refuses are found and parked, and the others are written."""

import json
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable

from infertap.errors import RetryableError
from infertap.tables.appending import Appender
from infertap.tables.delta import DeltaWriter
from infertap.tables.parking import NO_COLUMN, REFUSED, Parking
from infertap.tables.rows import SegmentHead
from infertap.targets import TableTarget

HEAD = SegmentHead.of("a1", 1, {"started_ns": 1})
ChdbRows = Callable[..., list[dict[str, Any]]]


def _ids(chdb_rows: ChdbRows) -> list[str]:
    return [row["request_id"] for row in chdb_rows("inference", "request_id")]


def _parked(folder: Path) -> dict[str, list[Any]]:
    return {
        path.name: [json.loads(line) for line in path.read_text().splitlines()] for path in sorted(folder.iterdir())
    }


def test_rows_that_break_a_constraint_are_parked_and_the_rest_is_written(
    writer: DeltaWriter, target: TableTarget, tmp_path: Path, make_rows, chdb_rows: ChdbRows
) -> None:
    """A CHECK that somebody added costs the rows that break it, once, and nothing else."""
    DeltaTable(f"{target.uri}/inference").alter.add_constraint({"ok": "status_code < 500 OR status_code IS NULL"})
    rows = make_rows(9, status_code=200)
    rows[3]["status_code"] = rows[8]["status_code"] = 503
    appender = Appender(writer, Parking(tmp_path / "parked"))

    for _ in range(2):
        appender.append([HEAD], lambda head: (list(rows), []))

    assert _ids(chdb_rows) == [f"a1-1-{n}" for n in range(9) if n not in (3, 8)]
    parked = _parked(tmp_path / "parked")
    assert list(parked) == ["inference-refused-a1-000000000001.jsonl"]
    lines = parked["inference-refused-a1-000000000001.jsonl"]
    assert [line["row"]["request_id"] for line in lines] == ["a1-1-3", "a1-1-8"]
    assert stat.S_IMODE((tmp_path / "parked").stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "parked").iterdir()} == {0o600}


def test_a_not_null_column_of_somebody_else_keeps_everything_in_the_spool(
    target: TableTarget, tmp_path: Path, make_rows, open_writer
) -> None:
    """It would refuse every row, so no row is parked: the error names the column, and all is tried again later."""
    from arro3.core import DataType, Field, Schema

    from infertap.tables.arrow import BatchEncoder
    from infertap.tables.schema import INFERENCE

    fields = [*BatchEncoder(INFERENCE).schema, Field("theirs", DataType.int64(), nullable=False)]
    DeltaTable.create(f"{target.uri}/inference", Schema(fields), partition_by=["request_date"])
    appender = Appender(open_writer(), Parking(tmp_path / "parked"))

    with pytest.raises(RetryableError, match="theirs"):
        appender.append([HEAD], lambda head: (make_rows(2), []))

    assert list((tmp_path / "parked").iterdir()) == []


def test_values_that_do_not_fit_are_parked_before_the_table_sees_them(
    writer: DeltaWriter, tmp_path: Path, make_rows, chdb_rows: ChdbRows
) -> None:
    """One row with a wrong value costs that row."""
    rows = make_rows(3)
    rows[1]["chunk_count"] = "many"
    parking = Parking(tmp_path / "parked")

    Appender(writer, parking).append([HEAD], lambda head: (rows, []))

    assert _ids(chdb_rows) == ["a1-1-0", "a1-1-2"]
    assert [row["chunk_count"] for row in parking.parked("inference", REFUSED, HEAD)] == ["many"]


def test_a_key_without_a_column_is_parked_with_its_row_and_the_row_is_written(
    writer: DeltaWriter, tmp_path: Path, make_rows, chdb_rows: ChdbRows
) -> None:
    """What a newer version would store is not silently dropped, and is no loss of the row."""
    rows = make_rows(2)
    rows[0]["novelty"] = 1
    parking = Parking(tmp_path / "parked")

    Appender(writer, parking).append([HEAD], lambda head: (rows, []))

    assert _ids(chdb_rows) == ["a1-1-0", "a1-1-1"]
    assert [row["novelty"] for row in parking.parked("inference", NO_COLUMN, HEAD)] == [1]
    assert parking.parked("inference", REFUSED, HEAD) == []
