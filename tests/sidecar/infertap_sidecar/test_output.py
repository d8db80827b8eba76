"""Results in each format: nothing lost, nothing that a terminal obeys, within its columns."""

import csv
import io
import json
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest
from arro3.core import Table
from deltalake import QueryBuilder

from infertap.errors import InfertapError, UsageError
from infertap_sidecar.output import cell, write_csv, write_jsonl, write_parquet, write_table


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def result(sql: str) -> Table:
    return QueryBuilder().execute(sql).read_all()


def written(write: Callable[[Table, Any], None], sql: str, stream: io.StringIO | None = None) -> str:
    stream = stream or io.StringIO()
    write(result(sql), stream)
    return stream.getvalue()


VALUES = """
    SELECT arrow_cast(1700000000123456, 'Timestamp(Microsecond, Some("UTC"))') AS at, DATE '2026-01-02' AS day,
           map(['k'], ['v']) AS tags, make_array('a', 'b') AS list, NULL AS nothing, '' AS empty, true AS yes,
           9007199254740993 AS large, 0.1 AS small, CAST(1.50 AS DECIMAL(9, 2)) AS dec, sha256('') AS bytes
"""


def test_jsonl_is_exact() -> None:
    """Microseconds, maps as objects, lists, null and empty text apart, integers over 2^53."""
    assert json.loads(written(write_jsonl, VALUES)) == {
        "at": "2023-11-14T22:13:20.123456+00:00", "day": "2026-01-02", "tags": {"k": "v"}, "list": ["a", "b"],
        "nothing": None, "empty": "", "yes": True, "large": 9007199254740993, "small": 0.1, "dec": "1.50",
        "bytes": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    }  # fmt: skip


def test_csv_is_exact() -> None:
    """The same; NULL is an empty field and empty text a quoted one."""
    head, line, end = written(write_csv, VALUES).split("\n")
    assert end == ""
    assert head == "at,day,tags,list,nothing,empty,yes,large,small,dec,bytes"
    assert line == (
        '2023-11-14T22:13:20.123456+00:00,2026-01-02,"{""k"":""v""}","[""a"",""b""]",,"",true,9007199254740993,0.1,1.50,'
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    )


@pytest.mark.parametrize("text", ['a "quote"', "a, comma", "two\nlines", "cr\r", "'", " space ", "=1+1"])
def test_csv_comes_back_as_it_was(text: str) -> None:
    """Any reader of RFC 4180 gets the text that was stored."""
    sql = f"SELECT '{text.replace(chr(39), chr(39) * 2)}' AS t, 1 AS n"
    assert list(csv.reader(io.StringIO(written(write_csv, sql), newline=""))) == [["t", "n"], [text, "1"]]


@pytest.mark.parametrize("write", [write_jsonl, write_csv, write_table])
def test_many_rows_come_in_order(write: Callable[[Table, Any], None]) -> None:
    """All of them where programs read, the first thousand and the number where people do."""
    text = written(write, "SELECT value AS n FROM generate_series(1, 2500) ORDER BY 1")
    numbers = [int(part) for part in text.replace('{"n":', " ").replace("}", " ").split() if part.isdigit()]
    assert numbers == list(range(1, 1001 if write is write_table else 2501))
    assert write is not write_table or "2,500 rows, the first 1,000 shown" in text


EVIL = "SELECT chr(27) || '[2J' || chr(155) || '31m' AS evil, make_array(chr(8238)) AS list"


@pytest.mark.parametrize("write", [write_jsonl, write_csv, write_table])
def test_nothing_that_a_terminal_obeys_reaches_one(write: Callable[[Table, Any], None]) -> None:
    """In whatever format it is asked for."""
    assert not set(written(write, EVIL, Terminal())) & set("\x1b\x9b\u202e") - set("\x1b" * (write is write_table))
    assert "\x1b[2J" not in written(write, EVIL, Terminal())


def test_a_pipe_gets_what_was_stored() -> None:
    """Programs read it."""
    assert "\x1b[2J\x9b31m" in written(write_csv, EVIL)
    assert json.loads(written(write_jsonl, EVIL))["evil"] == "\x1b[2J\x9b31m"


def test_parquet_is_no_text() -> None:
    """Nothing binary on a terminal, and a type that it does not take is a sentence."""
    with pytest.raises(UsageError, match="into a file"):
        write_parquet(result("SELECT 1 AS n"), Terminal())
    with pytest.raises(InfertapError, match="cast it in the query"):
        write_parquet(result("SELECT interval '1 day' AS i"), io.TextIOWrapper(io.BytesIO()))


def test_columns_that_would_be_too_narrow_stand_below_one_another() -> None:
    """Eight long ones do not fit into 100 columns, eight short ones do."""
    long = ", ".join(f"repeat('x', 30) AS c{n}" for n in range(8))
    assert "row 1" in written(write_table, f"SELECT {long}")
    assert "row 1" not in written(write_table, f"SELECT {long.replace('30', '3')}")


def test_a_plan_is_shown_as_it_is() -> None:
    """EXPLAIN has lines of its own."""
    text = written(write_table, "EXPLAIN SELECT value FROM generate_series(1, 2) WHERE value > 1")
    assert "\n  " in text
    assert "physical_plan" in text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "NULL"),
        ("", ""),
        (1234567, "1234567"),
        (0.5, "0.5"),
        (1234.5678, "1234.568"),
        (0.00001, "1e-05"),
        (True, "true"),
        (datetime(2026, 1, 2, 3, 4, 5, 678_901, UTC), "2026-01-02 03:04:05.678"),
        (date(2026, 1, 2), "2026-01-02"),
        (Decimal("1.50"), "1.50"),
        (b"\x00\xff", "00ff"),
        ("two\n lines", "two lines"),
        ("x" * 1000, "x" * 199 + "…"),
        ({"a": [1]}, '{"a":[1]}'),
    ],
)
def test_one_value_on_one_line(value: Any, text: str) -> None:
    """As people read it."""
    assert cell(value) == text


@pytest.mark.parametrize("more", ["", ", ".join(["", *(f"repeat('x', 30) AS c{n}" for n in range(8))])])
def test_null_and_empty_text_are_told_apart(monkeypatch: pytest.MonkeyPatch, more: str) -> None:
    """Side by side and below one another, in a pipe without colour; on a terminal NULL is dim and the text NULL not."""
    sql = f"SELECT NULL AS withheld, '' AS empty, 'NULL' AS said{more}"
    text = written(write_table, sql)
    assert text.count("NULL") == 2
    assert "\x1b" not in text
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    dim, plain = (written(write_table, f"SELECT {one} AS a{more}", Terminal()) for one in ("NULL", "'NULL'"))
    assert "\x1b[2mNULL" in dim
    assert "\x1b[2mNULL" not in plain


def test_times_numbers_and_ids_keep_their_width_and_text_gives_way() -> None:
    """In 100 columns beside a long text: nothing of them is cut, the text is."""
    sql = """
        SELECT arrow_cast(1700000000123456, 'Timestamp(Microsecond, Some("UTC"))') AS request_time,
               repeat('0af7651916cd43dd', 2) AS trace_id, 123456789012 AS bytes, repeat('text ', 40) AS tags
    """
    text = written(write_table, sql)
    assert "2023-11-14 22:13:20.123" in text
    assert "0af7651916cd43dd0af7651916cd43dd" in text
    assert "123456789012" in text
    assert "text t" in text
    assert max(map(len, text.splitlines())) <= 100


def test_ids_give_way_before_times_where_there_is_no_text() -> None:
    """Four ids beside a time do not fit: they are cut, the time is not."""
    ids = ", ".join(f"repeat('0af7651916cd43dd', 2) AS {name}_id" for name in "abcd")
    sql = f"""SELECT arrow_cast(1700000000123456, 'Timestamp(Microsecond, Some("UTC"))') AS request_time, {ids}"""
    line = next(line for line in written(write_table, sql).splitlines() if "2023" in line)
    assert "2023-11-14 22:13:20.123" in line
