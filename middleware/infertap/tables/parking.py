"""Rows that a table refuses, and values without a column: kept beside the table, never silently dropped.

1. One file for each table and segment, written before the commit that leaves the rows out, and the same one again
   after a crash: so the files are also the exact count of what was parked.
2. A file holds lines of JSON, `{"table", "reason", "row"}`, mode 0600; the rows in it are redacted like all others.
"""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
from deltalake import DeltaTable, write_deltalake

from infertap.errors import RetryableError
from infertap.tables.delta import NO_HOOKS, DeltaWriter, call
from infertap.tables.failures import RowsRefusedError
from infertap.tables.local import write_private
from infertap.tables.rows import Row, SegmentHead, as_json

REFUSED = "refused"
"""Why a row is parked: it has no form that fits, or the table's owner forbids it."""

NO_COLUMN = "no_column"
"""Why a part of a row is parked: the row was written without it."""

Accepts = Callable[[Sequence[Row]], bool]


class Parking:
    """The folder `parked/` of a spool."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def park(self, table: str, reason: str, head: SegmentHead, rows: Sequence[Row]) -> None:
        """Write `rows` down as all that is parked of this segment for `reason`; durable when this returns.

        Raises: OSError: the folder cannot be written.
        """
        path = self._path(table, reason, head.spool_id, head.segment_no)
        if rows:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            lines = (as_json({"table": table, "reason": reason, "row": row}) for row in rows)
            write_private(path, ("\n".join(lines) + "\n").encode())
        elif path.exists():
            path.unlink()

    def parked(self, table: str, reason: str, head: SegmentHead) -> list[dict[str, Any]]:
        """The rows of this segment that are parked for `reason`; empty for almost every segment."""
        path = self._path(table, reason, head.spool_id, head.segment_no)
        if not path.exists():
            return []
        return [orjson.loads(line)["row"] for line in path.read_bytes().splitlines()]

    @contextmanager
    def trial(self, writer: DeltaWriter) -> Iterator[Accepts]:
        """A question, whether the table would take rows, asked of an empty table with the same rules beside it.

        The table itself cannot be asked without writing to it, and a row must not be written twice.
        """
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".trial-", dir=self._folder) as folder:
            handle = call(writer.table, "making a table for trial", lambda: _empty_copy(writer.layout(), folder))
            yield lambda rows: _takes(writer, handle, rows)

    def _path(self, table: str, reason: str, spool_id: str, segment_no: int) -> Path:
        return self._folder / f"{table}-{reason}-{spool_id}-{segment_no:012}.jsonl"


def sift(rows: Sequence[Row], accepts: Accepts) -> tuple[list[Row], list[Row]]:
    """`rows` in two: those that are accepted, and those that are refused when asked about alone; both in order."""
    if not rows or accepts(rows):
        return list(rows), []
    if len(rows) == 1:
        return [], list(rows)
    middle = len(rows) // 2
    good_first, bad_first = sift(rows[:middle], accepts)
    good_last, bad_last = sift(rows[middle:], accepts)
    return good_first + good_last, bad_first + bad_last


def _empty_copy(table: DeltaTable, folder: str) -> DeltaTable:
    schema = table.schema()
    required = [field.name for field in schema.fields if not field.nullable]
    if required:
        raise RetryableError(f"the table has NOT NULL columns that somebody added: {', '.join(required)}")
    copy = DeltaTable.create(folder, schema)
    rules = {
        key.removeprefix("delta.constraints."): value
        for key, value in table.metadata().configuration.items()
        if key.startswith("delta.constraints.")
    }
    if rules:
        copy.alter.add_constraint(rules)
    return copy


def _takes(writer: DeltaWriter, copy: DeltaTable, rows: Sequence[Row]) -> bool:
    batch = writer.encoder.encode(rows)
    try:
        call(
            writer.table,
            "trying rows",
            lambda: write_deltalake(
                copy, batch, mode="append", schema_mode="merge", post_commithook_properties=NO_HOOKS
            ),
        )
    except RowsRefusedError:
        return False
    return True
