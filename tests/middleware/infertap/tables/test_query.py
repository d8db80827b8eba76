"""SQL reads the tables and nothing else, and writes nothing."""

from collections.abc import Callable
from datetime import UTC, date
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable
from deltalake.schema import Field
from hypothesis import given
from hypothesis import strategies as st

from infertap.tables.delta import DeltaWriter
from infertap.tables.query import QueryError, StatementError, check, query, rows
from infertap.tables.schema import INFERENCE, SPANS, TableSchema
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


ANSWERED_WITHOUT_THE_ENGINE = ("SHOW TABLES",)


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
        "SHOW TABLES; COPY inference TO '{out}'",
        "DESCRIBE SELECT 1",
        "DESCRIBE inference; COPY inference TO '{out}'",
        "DESCRIBE '/etc/passwd'",
        "SHOW ALL",
        "SHOW COLUMNS FROM inference LIKE 'a'",
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
    if sql not in ANSWERED_WITHOUT_THE_ENGINE:
        with pytest.raises(StatementError):
            query(target, sql.format(out=tmp_path / "out.parquet"))

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
@pytest.mark.parametrize("scheme", ["", "file://"])
def test_a_table_in_place_of_the_root_is_recognised(target: TableTarget, scheme: str) -> None:
    """The folder above is named, and nobody is told that nothing was recorded."""
    root = f"{scheme}{target.uri}"
    with pytest.raises(QueryError, match=f"inference is a table itself; name the root, .*: {root}$"):
        query(TableTarget(f"{root}/inference"), "SELECT * FROM inference")


@pytest.mark.usefixtures("recorded")
def test_an_unknown_table_is_answered_with_the_known_ones(target: TableTarget) -> None:
    """A slip in the name costs one look at the message."""
    with pytest.raises(QueryError, match="there is no table `inferences`; did you mean `inference`"):
        query(target, "SELECT * FROM inferences")
    with pytest.raises(QueryError, match="inference, spans and ledger"):
        query(target, "SELECT * FROM requests")


@pytest.mark.usefixtures("recorded")
def test_tables_are_listed(target: TableTarget) -> None:
    """All three, and which of them exist yet."""
    expected = [{"table": name, "exists": name == "inference"} for name in ("inference", "spans", "ledger")]
    assert rows(query(target, "show tables ;")) == expected


@pytest.mark.parametrize(
    "sql",
    [
        "DESCRIBE spans",
        "desc spans;",
        "describe table SPANS",
        'DESCRIBE "spans"',
        "SHOW COLUMNS\nFROM spans",
        "show columns in `spans`",
    ],
)
def test_columns_are_listed_before_there_is_a_table(target: TableTarget, sql: str) -> None:
    """Name, SQL type and meaning of each, in the table's order."""
    found = rows(query(target, sql))
    assert [(row["column"], row["type"]) for row in found] == [(column.name, column.type) for column in SPANS.columns]
    assert all(row["meaning"] for row in found)


@pytest.mark.usefixtures("recorded")
def test_columns_of_users_are_listed_too(target: TableTarget) -> None:
    """Behind infertap's own, with their SQL type."""
    own = len(INFERENCE.columns)
    assert query(target, "DESCRIBE inference").num_rows == own
    DeltaTable(f"{target.uri}/inference").alter.add_columns([Field("team", "string"), Field("cost", "long")])
    added = rows(query(target, "DESCRIBE inference"))[own:]
    assert [(row["column"], row["type"]) for row in added] == [("team", "STRING"), ("cost", "BIGINT")]


def test_an_unknown_table_has_no_columns(target: TableTarget) -> None:
    """The nearest name is offered, as in a query."""
    with pytest.raises(QueryError, match="there is no table `inferenc`; did you mean `inference`"):
        query(target, "DESCRIBE inferenc")


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


JSON_WORDS = 'regexp_match(attributes, \'"http.route":"([^"]*)"\')[1]'


@pytest.mark.usefixtures("recorded")
@pytest.mark.parametrize(
    ("condition", "words"),
    [
        ("request_time > '2026-11-28 20:56'", "a time has seconds: write '2026-11-28 20:56:00' for '2026-11-28 20:56'"),
        ("request_time > TIMESTAMP '2026-11-28 20:58'", "write '2026-11-28 20:58:00'"),
        ("request_time > '2026-11-28T20:58Z'", "write '2026-11-28T20:58:00Z'"),
        ("request_time > '2026-11-28 20:58+01:00'", "write '2026-11-28 20:58:00+01:00'"),
        ("request_time > '2026-11-28 20'", "write '2026-11-28 20:00:00'"),
        (
            "request_time > 'yesterday'",
            "'yesterday' is no time: write it as '2026-01-31 14:03:00', or now() - INTERVAL",
        ),
        ("request_time > 1700000000", "a time is compared with a time only: write '2026-01-31 14:03:00'"),
        ("request_time > now() - '5 minutes'", "a duration is written INTERVAL '5 minutes'"),
        ("request_time LIKE '2026-11-28 20:58%'", "this is a time: compare it with a range of times"),
        ("request_date LIKE '2026-11%'", "this is a date: compare it with dates"),
        ("status_code LIKE '5%'", "CAST(... AS VARCHAR) LIKE"),
        ("request_date = '28.11.2026'", "'28.11.2026' is no date: write it as '2026-11-28'"),
        ("request_date = '31.13.2026'", "'31.13.2026' is no date: write it as '2026-01-31'"),
        ("request_time > '2026-11-28 25:00'", "'2026-11-28 25:00' is no time: write it as '2026-01-31 14:03:00'"),
        ("request_date = DATE 'today'", "'today' is no date: write it as '2026-01-31'"),
        ("is_stream > 17", "these types cannot be compared: Boolean > Int64; a CAST may help"),
    ],
)
def test_what_the_engine_cannot_compare_comes_with_what_to_write(
    target: TableTarget, condition: str, words: str
) -> None:
    """Times, dates and LIKE, as people write them at first."""
    with pytest.raises(QueryError) as raised:
        query(target, f"SELECT path FROM inference WHERE {condition}")
    assert words in str(raised.value)
    assert "caused by" not in str(raised.value)


@pytest.fixture
def spans(open_writer: Callable[[TableSchema], DeltaWriter]) -> None:
    """An empty table of spans."""
    open_writer(SPANS).commit(open_writer(SPANS).encoder.encode([]), {"a1": 1})


@pytest.mark.usefixtures("recorded", "spans")
@pytest.mark.parametrize(
    ("sql", "words"),
    [
        ("SELECT events[1].name FROM spans", "write ['name'] for .name behind a bracket"),
        ("SELECT request_id FROM inference i JOIN spans s ON i.request_id = s.request_id", "name the table before it"),
        ("SELECT attributes->>'http.route' FROM spans", JSON_WORDS),
        ("SELECT attributes->'http.route' FROM spans", JSON_WORDS),
        ("SELECT attributes['http.route'] FROM spans", JSON_WORDS),
        ("SELECT json_extract_string(attributes, '.a') FROM spans", JSON_WORDS),
        ("SELECT get_json_object(attributes, 'a') FROM spans", JSON_WORDS),
    ],
)
def test_what_lies_inside_a_value_comes_with_the_way_to_it(target: TableTarget, sql: str, words: str) -> None:
    """Elements of lists, columns of two tables, and JSON, for which the engine has no functions."""
    with pytest.raises(QueryError) as raised:
        query(target, sql)
    assert words in str(raised.value)
    assert "did you mean" not in str(raised.value)


@pytest.mark.usefixtures("recorded", "spans")
@pytest.mark.parametrize(
    "sql",
    [
        f"SELECT {JSON_WORDS} FROM spans",
        "SELECT events[1]['name'] FROM spans",
        "SELECT path FROM inference WHERE request_time >= '2026-01-31 14:03:00' AND request_time < now()",
        "SELECT path FROM inference WHERE request_time > '2026-11-28T20:58:00Z'",
        "SELECT path FROM inference WHERE request_time > '2026-11-28 20:58:00+01:00'",
        "SELECT path FROM inference WHERE request_time > now() - INTERVAL '1 day' OR request_date = '2026-01-31'",
        "SELECT path FROM inference WHERE request_time > to_timestamp_seconds(1700000000)",
    ],
)
def test_what_is_written_instead_is_understood(target: TableTarget, sql: str) -> None:
    """Each form that an error recommends."""
    query(target, sql)


@pytest.mark.usefixtures("recorded")
def test_the_recommended_pattern_finds_a_value_in_json(target: TableTarget) -> None:
    """As the tables write it."""
    sql = f"""SELECT {JSON_WORDS} AS route FROM (SELECT '{{"a":1,"http.route":"/v1/x"}}' AS attributes)"""
    assert rows(query(target, sql)) == [{"route": "/v1/x"}]
