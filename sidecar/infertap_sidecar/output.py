"""Query results on standard output: a table for people; JSON lines, CSV or Parquet for programs."""

import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Any, Literal, TextIO

import orjson
from arro3.core import Table
from deltalake import write_deltalake
from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.rule import Rule
from rich.table import Table as Grid
from rich.text import Text

from infertap.errors import InfertapError, UsageError
from infertap.tables.query import rows
from infertap.words import plural
from infertap_sidecar.terminal import console, harmless, harmless_json

_ROWS_SHOWN_MAX = 1000
_CELL_CHARACTERS_MAX = 200
_ROWS_AT_ONCE = 1000
"""As Python values, which take far more memory than the engine's."""
_WIDTH_MIN = 6
_COMFORT = 18
"""A column that is cut below this shows too little of a timestamp, a path or an id."""
_GAP = 3
_PLAN = ["plan_type", "plan"]
_NULL = "NULL"
"""Apart from empty text: a body that is NULL was withheld."""


def write_table(result: Table, stream: TextIO) -> None:
    """One line a row, or one line a value where there are too many columns. Long cells end in `…`, NULL is `NULL`.

    Of more than 1,000 rows the rest is only counted.
    """
    out = console(stream)
    if result.column_names == _PLAN:
        for row in rows(result):
            out.print(Text(f"{row['plan_type']}\n", "bold") + Text(harmless(str(row["plan"]))), soft_wrap=True)
        return
    found = rows(result.slice(0, min(_ROWS_SHOWN_MAX, result.num_rows)))
    shown = [[cell(row[name]) for name in result.column_names] for row in found]
    widths = _widths(result.column_names, found, shown, out.width)
    if widths is not None:
        out.print(_side_by_side(result.column_names, widths, found, shown))
    else:
        for number, cells in enumerate(shown, start=1):
            out.print(Rule(f"row {number}", align="left", style="dim"))
            out.print(_one_below_another(result.column_names, found[number - 1], cells, out.width))
    more = f", the first {_ROWS_SHOWN_MAX:,} shown" if result.num_rows > _ROWS_SHOWN_MAX else ""
    out.print(Text(f"{plural(result.num_rows, 'row')}{more}", "dim"))


def _side_by_side(
    names: Sequence[str], widths: Sequence[int], found: Sequence[Mapping[str, Any]], shown: Sequence[Sequence[str]]
) -> Grid:
    grid = Grid(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for name, width in zip(names, widths, strict=True):
        numbers = any(isinstance(row[name], int | float) and not isinstance(row[name], bool) for row in found)
        justify: Literal["left", "right"] = "right" if numbers else "left"
        grid.add_column(Text(harmless(name)), justify=justify, no_wrap=True, overflow="ellipsis", width=width)
    for row, cells in zip(found, shown, strict=True):
        grid.add_row(*(_shade(row[name], text) for name, text in zip(names, cells, strict=True)))
    return grid


def _one_below_another(names: Sequence[str], row: Mapping[str, Any], cells: Sequence[str], width_total: int) -> Grid:
    # Widths are given, because rich would rather shorten a name than a long value.
    width = min(max(cell_len(name) for name in names), width_total // 2)
    grid = Grid.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True, overflow="ellipsis", width=width)
    grid.add_column(overflow="fold", width=max(_WIDTH_MIN, width_total - width - 4))
    for name, text in zip(names, cells, strict=True):
        grid.add_row(Text(harmless(name)), _shade(row[name], text))
    return grid


def _shade(value: Any, text: str) -> Text:
    """The text NULL and the value NULL differ in colour alone; formats for programs tell them apart."""
    return Text(text, "dim" if value is None else "")


def _widths(
    names: Sequence[str], found: Sequence[Mapping[str, Any]], shown: Sequence[Sequence[str]], total: int
) -> list[int] | None:
    """Short columns whole, long ones share what is left; None where the columns had to be too narrow to be read.

    Times and numbers are of no use without their end, nor are ids: they are cut only where no text is left to give way.
    """
    natural = [max(cell_len(text) for text in (name, *column)) for name, column in _columns(names, shown)]
    room = total - _GAP * len(natural)
    plain = [_is_plain([row[name] for row in found]) for name in names]
    ids = [name.endswith("_id") for name in names]
    for firm in ([one or other for one, other in zip(plain, ids, strict=True)], plain, [False] * len(names)):
        needed = sum(width if keeps else min(width, _COMFORT) for width, keeps in zip(natural, firm, strict=True))
        if needed <= room:
            return _shared(natural, firm, room)
    return None


def _is_plain(values: Sequence[Any]) -> bool:
    """Whether it is a column of times or numbers."""
    return all(value is None or isinstance(value, date | int | float) for value in values)


def _shared(natural: Sequence[int], firm: Sequence[bool], room: int) -> list[int]:
    """Cut the widest column that is not firm until all fit; equal ones shrink together."""
    widths = list(natural)
    while sum(widths) > room:
        widest = max((index for index, keeps in enumerate(firm) if not keeps), key=lambda index: widths[index])
        widths[widest] -= 1
    return widths


def _columns(names: Sequence[str], shown: Sequence[Sequence[str]]) -> list[tuple[str, list[str]]]:
    return [(name, [cells[index] for cells in shown]) for index, name in enumerate(names)]


def write_jsonl(result: Table, stream: TextIO) -> None:
    """One object a row; timestamps as RFC 3339, dates as ISO 8601, bytes in hex, decimals as text."""
    guard = harmless_json if stream.isatty() else str
    for row in _in_turn(result):
        stream.write(guard(_json(row).decode()) + "\n")


def write_csv(result: Table, stream: TextIO) -> None:
    """RFC 4180 with a header line; lists and maps as JSON. NULL is an empty field, empty text is `""`."""
    guard = harmless if stream.isatty() else str
    stream.write(guard(",".join(_quoted(name) for name in result.column_names)) + "\n")
    for row in _in_turn(result):
        stream.write(guard(",".join(_flat(value) for value in row.values())) + "\n")


def _in_turn(result: Table) -> Iterator[Mapping[str, Any]]:
    for start in range(0, result.num_rows, _ROWS_AT_ONCE):
        yield from rows(result.slice(start, min(_ROWS_AT_ONCE, result.num_rows - start)))


def write_parquet(result: Table, stream: TextIO) -> None:
    """One Parquet file.

    Raises:
        UsageError: the stream is a terminal.
        InfertapError: a column type has no place in it.
    """
    if stream.isatty():
        raise UsageError("Parquet is nothing for a terminal; write it into a file: --format parquet > result.parquet")
    with tempfile.TemporaryDirectory() as folder:
        # The only Parquet writer that is installed anyway is the tables' own; its data file is what is wanted.
        try:
            write_deltalake(folder, result, target_file_size=1 << 40)
        except Exception as error:  # the border to the engine, which raises plain Exceptions
            raise InfertapError("a column of the result has no place in Parquet; cast it in the query") from error
        for path in sorted(Path(folder).glob("*.parquet")):
            with path.open("rb") as file:
                shutil.copyfileobj(file, stream.buffer)


def cell(value: Any) -> str:
    """One value as people read it, on one line."""
    if value is None:
        return _NULL
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
    if isinstance(value, float):
        return _float_text(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    text = value if isinstance(value, str) else _text(value)
    # A body may have megabytes, and only its beginning is shown.
    text = " ".join(text[: 2 * _CELL_CHARACTERS_MAX].split())
    return harmless(text if len(text) <= _CELL_CHARACTERS_MAX else text[: _CELL_CHARACTERS_MAX - 1] + "…")


def _float_text(value: float) -> str:
    if value == 0 or abs(value) >= 0.001:
        return f"{value:.3f}".rstrip("0").rstrip(".")
    return f"{value:.3g}"


def _flat(value: Any) -> str:
    """A field of CSV."""
    if value is None:
        return ""
    if isinstance(value, str):
        return _quoted(value)
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else _quoted(_text(value))


def _quoted(text: str) -> str:
    special = not text or any(character in text for character in ',"\r\n')
    return '"' + text.replace('"', '""') + '"' if special else text


def _text(value: Any) -> str:
    """What is no text and no number, as JSON has it; text within without its quotes."""
    written = _json(value).decode()
    return orjson.loads(written) if written.startswith('"') else written


def _json(value: Any) -> bytes:
    return orjson.dumps(value, default=_as_text, option=orjson.OPT_NON_STR_KEYS)


def _as_text(value: Any) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)
