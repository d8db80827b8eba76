"""`infertap query` on real tables, in each format."""

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from deltalake import QueryBuilder

SQL = "SELECT path, status_code, response, logging_error_codes FROM inference ORDER BY status_code"


def test_a_pipe_gets_json_lines(delivered: Any) -> None:
    """Without a terminal, the default is one object a row."""
    result = delivered("query", SQL)
    assert result.returncode == 0
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert [(row["path"], row["status_code"]) for row in rows] == [
        ("/v1/good", 200), ("/v1/missing", 404), ("/v1/broken", 500),
    ]  # fmt: skip
    assert rows[0]["response"] == '{"answer": "[b]200[/b]"}'
    assert rows[0]["logging_error_codes"] == []


def test_csv_has_a_header_and_json_for_lists(delivered: Any) -> None:
    """Any CSV reader takes it."""
    result = delivered("query", SQL, "--format", "csv")
    lines = list(csv.reader(io.StringIO(result.stdout)))
    assert lines[0] == ["path", "status_code", "response", "logging_error_codes"]
    assert lines[1] == ["/v1/good", "200", '{"answer": "[b]200[/b]"}', "[]"]


def test_a_table_fits_100_columns_and_keeps_brackets(delivered: Any) -> None:
    """Text in brackets is data, not markup; few columns stand side by side, many below one another."""
    narrow = delivered("query", SQL, "--format", "table").stdout
    assert "[b]200[/b]" in narrow
    assert "3 rows" in narrow
    wide = delivered("query", "SELECT * FROM inference", "--format", "table").stdout
    assert "row 3" in wide
    assert "status_code" in wide
    assert max(len(line) for line in (narrow + wide).splitlines()) <= 100


def test_parquet_is_a_parquet_file(delivered: Any, tmp_path: Path) -> None:
    """The bytes on standard output are one file that an engine reads."""
    command = [sys.executable, "-m", "infertap_sidecar", "query", "SELECT * FROM inference", "--format", "parquet"]
    done = subprocess.run(command, cwd=delivered.folder, capture_output=True, check=True, timeout=300)
    assert done.stdout[:4] == done.stdout[-4:] == b"PAR1"
    path = tmp_path / "result.parquet"
    path.write_bytes(done.stdout)
    query = f"CREATE EXTERNAL TABLE r STORED AS PARQUET LOCATION '{path}'"
    builder = QueryBuilder()
    builder.execute(query).read_all()
    assert builder.execute("SELECT count(*) FROM r WHERE path LIKE '/v1/%'").read_all().column(0).to_pylist() == [3]


def test_the_statement_may_come_from_standard_input(delivered: Any) -> None:
    """`-` reads it there."""
    command = [sys.executable, "-m", "infertap_sidecar", "query", "-"]
    done = subprocess.run(
        command, cwd=delivered.folder, input="SELECT count(*) AS n FROM inference", capture_output=True, text=True,
        check=True, timeout=300,
    )  # fmt: skip
    assert json.loads(done.stdout) == {"n": 3}


def test_other_tables_are_named_by_a_flag(delivered: Any, infertap: Any) -> None:
    """`--tables` reads a root elsewhere, whatever the settings record to now."""
    tables = str(delivered.folder / "inference_tables")
    result = infertap("query", SQL, "--tables", tables, INFERTAP_DESTINATION="none")
    assert len(result.stdout.splitlines()) == 3


def test_refusals_are_messages(delivered: Any, infertap: Any) -> None:
    """A failed query is exit code 1 and no traceback; a statement that may not be and a wrong flag are 2."""
    refused = {
        "DROP TABLE inference": (2, "only reading statements are allowed"),
        "COPY inference TO 'out.csv'": (2, "only reading statements are allowed"),
        "SELECT 1; SELECT 2": (2, "one statement at a time"),
        "SELECT stats_code FROM inference": (1, "there is no column `stats_code`; did you mean `status_code`?"),
        "SELECT * FROM inferenc": (1, "there is no table `inferenc`; did you mean `inference`?"),
        "SELECT count(path FROM inference": (1, "this SQL is not understood at line 1, column 19"),
        "SELECT path FROM inference GROUP BY status_code": (1, "column `path` must be in GROUP BY"),
        "SELECT sum(path) FROM inference": (1, "no function takes these types: sum("),
        "SELECT foo(path) FROM inference": (1, "there is no function `foo`"),
        "SELECT interval '1 day' AS i": (1, "column `i` is an interval"),
        "SELECT CAST(chr(27) || '[2J' AS INT)": (1, "Cannot cast string '␛[2J'"),
    }
    for statement, (code, words) in refused.items():
        result = delivered("query", statement)
        assert result.returncode == code, statement
        assert result.stderr.startswith(f"infertap query: {words}"), result.stderr
        assert result.stderr.count("\n") == 1
    assert not (delivered.folder / "out.csv").exists()
    assert "nothing was recorded" in infertap("query", SQL).stderr
    assert infertap("query", SQL, "--format", "xml").returncode == 2
    assert infertap("query", SQL, "--tabels", "x").returncode == 2


def test_a_reader_that_stops_early_is_no_failure(delivered: Any) -> None:
    """`infertap query ... | head` ends quietly."""
    sql = "SELECT r.path FROM inference r, inference a, inference b, inference c, inference d, inference e, inference f"
    wide = f"{sql}, inference g, inference h, inference i"
    command = [sys.executable, "-m", "infertap_sidecar", "query", wide]
    process = subprocess.Popen(command, cwd=delivered.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait(timeout=300) == 0
    process.stderr.close()


@pytest.mark.parametrize(
    "command", [("query", "SELECT * FROM inference", "--format", "table"), ("show",), ("doctor", "--all")]
)
def test_a_closed_pipe_ends_what_is_for_people_quietly_too(delivered: Any, command: tuple[str, ...]) -> None:
    """Nobody reads at all: exit code 0 (or doctor's finding), and not a word on standard error."""
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "infertap_sidecar", *command], cwd=delivered.folder, stdout=writer,
        stderr=subprocess.PIPE, check=False, timeout=300,
    )  # fmt: skip
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")
