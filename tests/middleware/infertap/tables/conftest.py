"""What the tests of the tables share: rows as the drainer makes them, and a root to write them to."""

import json
import time
from collections.abc import Callable
from contextlib import chdir
from pathlib import Path
from typing import Any

import chdb
import pytest

from infertap.clock import SystemClock
from infertap.record import InferenceRecord
from infertap.tables.delta import DeltaWriter
from infertap.tables.rows import Row, SegmentHead, inference_row
from infertap.tables.schema import INFERENCE, TableSchema
from infertap.targets import TableTarget

RowFactory = Callable[..., list[Row]]


@pytest.fixture
def target(tmp_path: Path) -> TableTarget:
    """A local root that does not exist yet."""
    return TableTarget(str(tmp_path / "inference_tables"))


@pytest.fixture
def chdb_rows(target: TableTarget) -> Callable[..., list[dict[str, Any]]]:
    """Reads a table with an engine that is not delta-rs: `chdb_rows("inference", "request_id")`."""

    def chdb_rows(table: str, columns: str, rest: str = "ORDER BY 1") -> list[dict[str, Any]]:
        # chDB opens files below the working directory only.
        with chdir(target.uri):
            answer = chdb.query(f"SELECT {columns} FROM deltaLakeLocal('{target.uri}/{table}') {rest}", "JSONEachRow")
        return [json.loads(line) for line in str(answer).splitlines()]

    return chdb_rows


@pytest.fixture
def writer(target: TableTarget) -> DeltaWriter:
    """A writer of `inference` on an open handle."""
    writer = DeltaWriter(INFERENCE, target, SystemClock())
    writer.refresh()
    return writer


@pytest.fixture
def open_writer(target: TableTarget) -> Callable[[TableSchema], DeltaWriter]:
    """Makes further writers on the same root, each with a handle of its own."""

    def open_writer(table: TableSchema = INFERENCE) -> DeltaWriter:
        writer = DeltaWriter(table, target, SystemClock())
        writer.refresh()
        return writer

    return open_writer


@pytest.fixture
def make_rows() -> RowFactory:
    """Makes rows of `inference` for one segment; keywords are columns."""

    # One moment for a whole test: at midnight, the rows of one test would be in two partitions.
    now_us = time.time_ns() // 1000

    def make_rows(count: int, *, spool_id: str = "a1", segment_no: int = 1, **columns: Any) -> list[Row]:
        header = {"started_ns": now_us * 1000, "service_name": "scorer", "instance": "i-1", "schema_version": 1}
        head = SegmentHead.of(spool_id, segment_no, {**header, "resource": {"service.name": "scorer"}})
        records = [
            InferenceRecord(
                request_id=f"{spool_id}-{segment_no}-{n}", request_time=now_us + n, sequence_no=n, **columns
            )
            for n in range(count)
        ]
        return [inference_row(record.to_payload(), head) for record in records]

    return make_rows
