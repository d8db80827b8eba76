"""SQL reads the tables and nothing else, and writes nothing."""

from collections.abc import Callable
from datetime import UTC, date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infertap.tables.delta import DeltaWriter
from infertap.tables.query import QueryError, check, lookup, query, rows
from infertap.tables.rows import SegmentHead, span_row
from infertap.tables.schema import SPANS
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
    with pytest.raises(QueryError, match="inference, spans and ledger"):
        query(target, "SELECT * FROM inferences")


def test_a_request_is_found_with_all_spans_of_its_trace(
    writer: DeltaWriter, open_writer: Callable[..., DeltaWriter], target: TableTarget, make_rows: Callable[..., Any]
) -> None:
    """Children know their trace but often not the request; both come, by start."""
    request_id = "0199f3c2-7a10-7c3e-8a51-8f0c2b9d4e11"
    day_us = (int(request_id.replace("-", "")[:12], 16)) * 1000
    made = make_rows(2, trace_id="t1")
    made[0] |= {"request_id": request_id, "request_time": day_us, "request_date": day_us // 86_400_000_000}
    writer.commit(writer.encoder.encode(made), {"a1": 1})
    spans, head = open_writer(SPANS), SegmentHead.of("a1", 1, {})
    base = {"trace_id": "t1", "name": "s", "kind": "INTERNAL", "start_ns": day_us * 1000, "end_ns": day_us * 1000}
    child = base | {"span_id": "2", "start_ns": base["start_ns"] + 5}
    server = base | {"span_id": "1", "request_id": request_id}
    other = base | {"span_id": "3", "trace_id": "t2"}
    encoded = spans.encoder.encode([span_row(span, head, n) for n, span in enumerate((child, server, other))])
    spans.commit(encoded, {"a1": 1})

    found = lookup(target, request_id.upper())

    assert found["inference"]["request_id"] == request_id
    assert [span["span_id"] for span in found["spans"]] == ["1", "2"]


@pytest.mark.usefixtures("recorded")
def test_what_is_no_request_id_is_refused_and_an_unknown_one_is_none(target: TableTarget) -> None:
    """An id goes into the query as a UUID only, so nothing can be smuggled in with it."""
    with pytest.raises(QueryError, match="not a request id"):
        lookup(target, "x' OR '1'='1")

    assert lookup(target, "0199f3c2-7a10-7c3e-8a51-8f0c2b9d4e11") == {"inference": None, "spans": []}
