"""Query results on standard output: a table for people; JSON lines, CSV or Parquet for programs."""

import csv
import tempfile
from collections.abc import Mapping
from datetime import date, datetime
from pathlib import Path
from typing import Any, TextIO

import orjson
from arro3.core import Table
from deltalake import write_deltalake
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table as Grid

from infertap.errors import InfertapError
from infertap.tables.query import rows

WIDTH = 100
_ROWS_SHOWN_MAX = 1000
_CELL_CHARACTERS_MAX = 200


def console(stream: TextIO) -> Console:
    """A console as wide as the terminal, and 100 columns where there is none."""
    return Console(file=stream, width=None if stream.isatty() else WIDTH, highlight=False)


def write_table(result: Table, stream: TextIO) -> None:
    """Aligned columns; long cells are cut with `…`, and more than 1,000 rows are only counted."""
    found = rows(result)
    grid = Grid(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for name in result.column_names:
        numbers = any(isinstance(row[name], int | float) and not isinstance(row[name], bool) for row in found)
        grid.add_column(name, justify="right" if numbers else "left", overflow="ellipsis")
    for row in found[:_ROWS_SHOWN_MAX]:
        grid.add_row(*(_escape(cell(row[name])) for name in result.column_names))
    out = console(stream)
    out.print(grid)
    more = f", the first {_ROWS_SHOWN_MAX:,} shown" if len(found) > _ROWS_SHOWN_MAX else ""
    out.print(f"[dim]{len(found):,} row{'' if len(found) == 1 else 's'}{more}[/dim]")


def write_jsonl(result: Table, stream: TextIO) -> None:
    """One object a row; timestamps as RFC 3339, dates as ISO 8601."""
    for row in rows(result):
        stream.write(_json(row).decode() + "\n")


def write_csv(result: Table, stream: TextIO) -> None:
    """RFC 4180 with a header line; lists and maps as JSON."""
    writer = csv.writer(stream)
    writer.writerow(result.column_names)
    for row in rows(result):
        writer.writerow([_flat(row[name]) for name in result.column_names])


def write_parquet(result: Table, stream: TextIO) -> None:
    """One Parquet file. Raises: InfertapError for a column type that it does not take."""
    with tempfile.TemporaryDirectory() as folder:
        # The only Parquet writer that is installed anyway is the tables' own; its data file is what is wanted.
        try:
            write_deltalake(folder, result, target_file_size=1 << 40)
        except Exception as error:  # the border to the engine, which raises plain Exceptions
            raise InfertapError("a column of the result has no place in Parquet; cast it in the query") from error
        for path in sorted(Path(folder).glob("*.parquet")):
            stream.buffer.write(path.read_bytes())


def cell(value: Any) -> str:
    """One value as people read it."""
    if value is None:
        return ""
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
    if isinstance(value, float):
        return f"{value:,.3f}".rstrip("0").rstrip(".")
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    text = value if isinstance(value, str) else _json(value).decode()
    text = " ".join(text.split())
    return text if len(text) <= _CELL_CHARACTERS_MAX else text[: _CELL_CHARACTERS_MAX - 1] + "…"


def _flat(value: Any) -> Any:
    if isinstance(value, datetime | date):
        return value.isoformat()
    return _json(value).decode() if isinstance(value, list | Mapping) else value


def _json(value: Any) -> bytes:
    return orjson.dumps(value, default=str, option=orjson.OPT_NON_STR_KEYS)


def _escape(text: str) -> str:
    return text.replace("[", "\\[")
