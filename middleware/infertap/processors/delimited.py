"""Redact a table as text (CSV): the columns whose header is a secret's name.

1. A table without such a header stays as it is; with one, a table that cannot be read strictly is refused.
2. Where a value goes, its row is written anew, and all other rows with it.
"""

import csv
import io
from collections.abc import Callable

from infertap.processors.secret_names import MARK

_DELIMITERS = ",;\t|"
_ROW_CHARACTERS_MAX = 64 << 10
"""So much of the first row is read to find out what separates its cells."""


def redact_delimited(text: str, secret: Callable[[str], bool]) -> tuple[str, int]:
    """The text without the values in secret columns, and how many there were.

    Raises:
        ValueError: a header is a secret's name, and the rows below it cannot be read as its.
    """
    table = text.lstrip("\ufeff\r\n")
    first = table[:_ROW_CHARACTERS_MAX].partition("\n")[0]
    delimiter = max(_DELIMITERS, key=first.count)
    columns = [index for index, name in enumerate(_cells(first, delimiter)) if secret(name.strip(" \t\"'"))]
    if not columns:
        return text, 0
    rows: list[list[str]] = []
    count = 0
    try:
        for row in csv.reader(io.StringIO(table, newline=""), delimiter=delimiter, strict=True):
            if rows:
                count += _redact_row(row, columns, len(rows[0]))
            rows.append(row)
    except csv.Error as error:
        raise ValueError("a table that cannot be read") from error
    if count == 0:
        return text, 0
    shown = io.StringIO(newline="")
    csv.writer(shown, delimiter=delimiter, lineterminator="\r\n" if "\r\n" in table else "\n").writerows(rows)
    return shown.getvalue(), count


def _cells(line: str, delimiter: str) -> list[str]:
    try:
        return next(csv.reader([line], delimiter=delimiter), [])
    except csv.Error:
        return line.split(delimiter)


def _redact_row(row: list[str], columns: list[int], width: int) -> int:
    if any(row[width:]):
        raise ValueError("a row with more cells than the header")
    count = 0
    for index in columns:
        if index >= len(row):
            break
        if row[index].strip() not in ("", MARK):
            row[index] = MARK
            count += 1
    return count
