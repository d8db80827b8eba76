"""Query results on standard output: a table for people; JSON lines, CSV or Parquet for programs."""

import csv
import tempfile
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Any, Literal, TextIO

import orjson
from arro3.core import Table
from deltalake import write_deltalake
from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console
from rich.rule import Rule
from rich.table import Table as Grid
from rich.text import Text

from infertap.errors import InfertapError
from infertap.tables.query import rows

WIDTH = 100
_ROWS_SHOWN_MAX = 1000
_CELL_CHARACTERS_MAX = 200
_WIDTH_MIN = 6
_GAP = 3


def console(stream: TextIO) -> Console:
    """A console as wide as the terminal, and 100 columns where there is none."""
    return Console(file=stream, width=None if stream.isatty() else WIDTH, highlight=False)


def write_table(result: Table, stream: TextIO) -> None:
    """One line a row, or one line a value where there are too many columns. Long cells end in `…`.

    Of more than 1,000 rows the rest is only counted.
    """
    found = rows(result)
    shown = [[cell(row[name]) for name in result.column_names] for row in found[:_ROWS_SHOWN_MAX]]
    out = console(stream)
    if len(result.column_names) * (_WIDTH_MIN + _GAP) <= out.width:
        out.print(_side_by_side(result, found, shown, out.width))
    else:
        for number, cells in enumerate(shown, start=1):
            out.print(Rule(f"row {number}", align="left", style="dim"))
            out.print(_one_below_another(result.column_names, cells, out.width))
    more = f", the first {_ROWS_SHOWN_MAX:,} shown" if len(found) > _ROWS_SHOWN_MAX else ""
    out.print(Text(f"{len(found):,} row{'' if len(found) == 1 else 's'}{more}", "dim"))


def _side_by_side(
    result: Table, found: Sequence[Mapping[str, Any]], shown: Sequence[Sequence[str]], width_total: int
) -> Grid:
    widths = _widths(result.column_names, shown, width_total)
    grid = Grid(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for name, width in zip(result.column_names, widths, strict=True):
        numbers = any(isinstance(row[name], int | float) and not isinstance(row[name], bool) for row in found)
        justify: Literal["left", "right"] = "right" if numbers else "left"
        grid.add_column(Text(name), justify=justify, no_wrap=True, overflow="ellipsis", width=width)
    for cells in shown:
        grid.add_row(*(Text(text) for text in cells))
    return grid


def _one_below_another(names: Sequence[str], cells: Sequence[str], width_total: int) -> Grid:
    # Widths are given, because rich would rather shorten a name than a long value.
    width = max(cell_len(name) for name in names)
    grid = Grid.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True, width=width)
    grid.add_column(no_wrap=True, overflow="ellipsis", width=max(_WIDTH_MIN, width_total - width - 4))
    for name, text in zip(names, cells, strict=True):
        grid.add_row(name, Text(text))
    return grid


def _widths(names: Sequence[str], shown: Sequence[Sequence[str]], total: int) -> list[int]:
    """Short columns whole, long ones share what is left; a column is never narrower than a few letters."""
    natural = [max(cell_len(text) for text in (name, *column)) for name, column in _columns(names, shown)]
    room = total - _GAP * len(natural)
    widths = list(natural)
    # Cut the widest until it fits; equal ones shrink together.
    while sum(widths) > room and max(widths, default=0) > _WIDTH_MIN:
        widths[widths.index(max(widths))] -= 1
    return widths


def _columns(names: Sequence[str], shown: Sequence[Sequence[str]]) -> list[tuple[str, list[str]]]:
    return [(name, [cells[index] for cells in shown]) for index, name in enumerate(names)]


def write_jsonl(result: Table, stream: TextIO) -> None:
    """One object a row; timestamps as RFC 3339, dates as ISO 8601."""
    for row in rows(result):
        stream.write(_json(row).decode() + "\n")


def write_csv(result: Table, stream: TextIO) -> None:
    """RFC 4180 with a header line; lists and maps as JSON."""
    writer = csv.writer(stream, lineterminator="\n")
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
