"""SQL reads the tables and nothing else, and writes nothing."""

from collections.abc import Callable
from datetime import UTC, date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infertap.tables.delta import DeltaWriter
from infertap.tables.query import QueryError, check, query, rows
from infertap.targets import TableTarget


@pytest.fixture
def recorded(writer: DeltaWriter, make_rows: Callable[..., Any]) -> None:
    """A table with two rows."""
    made = make_rows(2, status_code=200, tags={"arm": "b"}, finish_reasons=["stop"])
    writer.commit(writer.encoder.encode(made), {"a1": 1})


@pytest.mark.usefixtures("recorded")
def test_rows_come_as_python_values(target: TableTarget) -> None:
    """Times are aware, days are dates, maps dicts, lists lists, and null is None."""
    sql = "SELECT request_id, request_time, request_date, tags, finish_reasons, request FROM inference LIMIT 1;"

    (row,) = rows(query(target, sql))

    assert row["request_id"] == "a1-1-0"
    assert row["request_time"].utcoffset() == UTC.utcoffset(None)
    assert type(row["request_date"]) is date
    assert (row["tags"], row["finish_reasons"], row["request"]) == ({"arm": "b"}, ["stop"], None)


@pytest.mark.usefixtures("recorded")
@pytest.mark.parametrize(
    "sql",
    [
        "select count(*) from inference",
        "WITH a AS (SELECT 1 AS x) SELECT x FROM a",
        "(SELECT 1)",
        "EXPLAIN SELECT 1",
        "EXPLAIN ANALYZE VERBOSE SELECT 1",
        "EXPLAIN FORMAT tree SELECT 1",
        "SELECT ';', 'COPY a TO b', 'it''s' AS \"drop \"\"it\"\"\" -- ; DROP TABLE inference",
        "SELECT tags['arm'], 1 / 2, 3 * 4, request_time::date FROM inference",
    ],
)
def test_reading_statements_pass(target: TableTarget, sql: str) -> None:
    """Everything that only reads is answered, whatever stands in its strings, names and line comments."""
    assert query(target, sql).num_rows >= 1


@pytest.mark.usefixtures("recorded")
@pytest.mark.parametrize(
    "sql",
    [
        "COPY inference TO '{out}'",
        "EXPLAIN ANALYZE COPY inference TO '{out}'",
        "explain analyze verbose copy (select 1) to '{out}'",
        "SELECT 1; COPY inference TO '{out}'",
        "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '/etc/passwd'",
        "WITH a AS (SELECT 1) INSERT INTO inference SELECT * FROM a",
        "SELECT * INTO copy FROM inference",
        "EXPLAIN ANALYZE CREATE TABLE t AS SELECT 1",
        "SET datafusion.catalog.information_schema = true",
        "SHOW TABLES",
        "PREPARE p AS SELECT 1",
        "VALUES (1)",
        "DROP TABLE inference",
        "/* SELECT */ COPY inference TO '{out}'",
        "SELECT /* 1 */ 2",
        "SELECT E'\\' || COPY inference TO '{out}'",
        "SELECT $$a$$",
        "SELECT 'not closed",
        ";",
        "",
    ],
)
def test_everything_else_is_refused_before_the_engine_sees_it(target: TableTarget, tmp_path: Path, sql: str) -> None:
    """The engine would run some of these; the gate lets none through, and no file appears."""
    before = sorted(tmp_path.rglob("*"))

    with pytest.raises(QueryError):
        check(sql.format(out=tmp_path / "out.parquet"))

    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.usefixtures("recorded")
@pytest.mark.parametrize("source", ["'/etc/passwd'", '"/etc/passwd"', "read_csv('/etc/passwd')", "read_parquet('/x')"])
def test_no_file_can_be_read(target: TableTarget, source: str) -> None:
    """The engine has no function that reads a file, and takes no path for a table."""
    with pytest.raises(QueryError):
        query(target, f"SELECT * FROM {source}")


@given(st.text(alphabet="';\"`-/*$ \nECOPYselect1", max_size=40))
def test_the_gate_answers_for_any_text(text: str) -> None:
    """Whatever is typed, it passes or is refused with our error; an unquoted COPY never passes."""
    try:
        check(text)
    except QueryError:
        return
    assert text.strip().upper().lstrip("( -\n").startswith("SELECT")


def test_a_table_that_does_not_exist_yet_is_named(target: TableTarget) -> None:
    """The error says which table, and where it would be."""
    with pytest.raises(QueryError, match=r"no table `ledger` yet.*inference_tables/ledger"):
        query(target, "SELECT * FROM ledger")


@pytest.mark.usefixtures("recorded")
def test_an_unknown_table_is_answered_with_the_known_ones(target: TableTarget) -> None:
    """A slip in the name costs one look at the message."""
    with pytest.raises(QueryError, match="there is no table `inferences`; did you mean `inference`"):
        query(target, "SELECT * FROM inferences")
    with pytest.raises(QueryError, match="inference, spans and ledger"):
        query(target, "SELECT * FROM requests")


@pytest.mark.usefixtures("recorded")
def test_columns_of_the_same_name_are_told_apart(target: TableTarget) -> None:
    """A join brings `path` twice; both values arrive."""
    sql = "SELECT a.path, b.path, a.method AS path_2 FROM inference a JOIN inference b ON a.request_id = b.request_id"
    assert list(rows(query(target, sql))[0]) == ["path", "path_2", "path_2_2"]


def test_values_that_python_cannot_hold_are_text_or_an_error(target: TableTarget, writer: DeltaWriter) -> None:
    """Nanoseconds are not cut, and an interval is no panic."""
    sql = "SELECT arrow_cast(1700000000123456789, 'Timestamp(Nanosecond, Some(\"+00:00\"))') AS at"
    assert rows(query(target, sql)) == [{"at": "2023-11-14T22:13:20.123456789+00:00"}]
    with pytest.raises(QueryError, match="`i` is an interval"):
        rows(query(target, "SELECT interval '1 day' AS i"))
