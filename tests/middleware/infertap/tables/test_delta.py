"""Each segment is in the table exactly once, whoever writes, and errors say what to do without quoting rows."""

import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from arro3.core import DataType, Field, Schema
from deltalake import DeltaTable
from deltalake import Field as DeltaField
from deltalake.schema import PrimitiveType

from infertap.clock import SystemClock
from infertap.errors import RetryableError
from infertap.tables.delta import DeltaWriter, table_properties
from infertap.tables.failures import RowsRefusedError, describe
from infertap.tables.schema import INFERENCE, TABLES, TableSchema
from infertap.targets import TableTarget

OpenWriter = Callable[..., DeltaWriter]
ChdbRows = Callable[..., list[dict[str, Any]]]


def _ids(chdb_rows: ChdbRows) -> list[str]:
    return [row["request_id"] for row in chdb_rows("inference", "request_id")]


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_an_absent_table_is_made_with_our_settings(table: TableSchema, target: TableTarget) -> None:
    """Partition, retention, checkpoint interval and columns with statistics are set when the table is made."""
    writer = DeltaWriter(table, target, SystemClock())

    writer.refresh()

    made = DeltaTable(f"{target.uri}/{table.name}")
    assert made.metadata().partition_columns == [table.partition_by]
    assert made.metadata().configuration == table_properties(table)
    assert tuple(field.name for field in made.schema().fields) == table.names


def test_rows_are_read_back_by_an_independent_engine(
    writer: DeltaWriter, target: TableTarget, make_rows, chdb_rows: ChdbRows
) -> None:
    """chDB sees the rows that delta-rs wrote, with maps and lists that are empty where there is nothing."""
    writer.commit(writer.encoder.encode(make_rows(3, request="é\n", tags={"arm": "b"})), {"a1": 1})

    assert _ids(chdb_rows) == ["a1-1-0", "a1-1-1", "a1-1-2"]
    row = chdb_rows("inference", "request, tags['arm'] AS arm, length(request_headers) AS n", "LIMIT 1")
    assert row == [{"request": "é\n", "arm": "b", "n": 0}]


def test_a_commit_says_which_segments_are_in(writer: DeltaWriter, open_writer: OpenWriter, make_rows) -> None:
    """One commit moves several slots, and every later handle knows it."""
    assert writer.committed("a1", started_ns=SystemClock().wall_ns()) == 0

    rows = make_rows(1) + make_rows(1, spool_id="b2", segment_no=7)
    writer.commit(writer.encoder.encode(rows), {"a1": 1, "b2": 7})

    other = open_writer()
    assert [other.committed(slot, started_ns=SystemClock().wall_ns()) for slot in ("a1", "b2", "c3")] == [1, 7, 0]


def test_a_writer_that_read_before_another_wrote_the_same_segment_is_refused(
    open_writer: OpenWriter, target: TableTarget, make_rows, chdb_rows: ChdbRows
) -> None:
    """Reading the number and writing on one handle is a compare-and-set."""
    first, second = open_writer(), open_writer()
    first.commit(first.encoder.encode(make_rows(2)), {"a1": 1})

    with pytest.raises(RetryableError, match="another drainer"):
        second.commit(second.encoder.encode(make_rows(2)), {"a1": 1})

    second.refresh()
    assert second.committed("a1", started_ns=SystemClock().wall_ns()) == 1
    assert _ids(chdb_rows) == ["a1-1-0", "a1-1-1"]


def test_writers_of_different_slots_do_not_disturb_each_other(
    open_writer: OpenWriter, target: TableTarget, make_rows, chdb_rows: ChdbRows
) -> None:
    """A stale handle is rebased where the slots differ."""
    first, second = open_writer(), open_writer()

    first.commit(first.encoder.encode(make_rows(1)), {"a1": 1})
    second.commit(second.encoder.encode(make_rows(1, spool_id="b2")), {"b2": 1})

    assert _ids(chdb_rows) == ["a1-1-0", "b2-1-0"]


RACER = """
import sys, time
from infertap.clock import SystemClock
from infertap.errors import RetryableError
from infertap.tables.delta import DeltaWriter
from infertap.tables.schema import INFERENCE
from infertap.targets import TableTarget

writer = DeltaWriter(INFERENCE, TableTarget(sys.argv[1]), SystemClock())
number = 1
while number <= 12:
    try:
        writer.refresh()
        number = writer.committed("a1", started_ns=time.time_ns()) + 1
        if number <= 12:
            row = {"request_id": f"{number:02}", "request_date": 20000, "spool_id": "a1", "segment_no": number}
            writer.commit(writer.encoder.encode([row]), {"a1": number})
    except RetryableError:
        pass
"""


def test_four_racing_processes_write_each_segment_once(target: TableTarget, chdb_rows: ChdbRows) -> None:
    """All four try to write the same twelve segments, the making of the table included."""
    racers = [subprocess.Popen([sys.executable, "-c", RACER, target.uri]) for _ in range(4)]

    assert [racer.wait(timeout=300) for racer in racers] == [0, 0, 0, 0]
    assert Counter(_ids(chdb_rows)) == {f"{number:02}": 1 for number in range(1, 13)}


def test_a_column_that_somebody_added_stays_and_does_not_stop_us(
    writer: DeltaWriter, target: TableTarget, make_rows, chdb_rows: ChdbRows
) -> None:
    """A new column under a handle that does not know it costs at most one retry; our rows are NULL in it."""
    DeltaTable(f"{target.uri}/inference").alter.add_columns([DeltaField("reviewed", PrimitiveType("string"))])

    for _ in range(2):
        try:
            writer.refresh()
            writer.commit(writer.encoder.encode(make_rows(1)), {"a1": 1})
            break
        except RetryableError:
            continue

    assert _ids(chdb_rows) == ["a1-1-0"]
    assert "reviewed" in [field.name for field in DeltaTable(f"{target.uri}/inference").schema().fields]


def test_a_not_null_column_of_somebody_else_is_a_refusal(target: TableTarget, make_rows) -> None:
    """Rows that cannot be written are refused, and the error does not quote them."""
    writer = DeltaWriter(INFERENCE, target, SystemClock())
    fields = [*writer.encoder.schema, Field("theirs", DataType.int64(), nullable=False)]
    DeltaTable.create(f"{target.uri}/inference", Schema(fields), partition_by=["request_date"])
    writer.refresh()

    with pytest.raises(RowsRefusedError) as raised:
        writer.commit(writer.encoder.encode(make_rows(1, request="SECRET")), {"a1": 1})

    assert "SECRET" not in str(raised.value)
    assert raised.value.__context__ is None


def test_an_old_slot_is_looked_up_in_its_rows(open_writer: OpenWriter, make_rows) -> None:
    """The table forgets transaction ids after 30 days; a segment that old must not be written again."""
    writer = open_writer()
    writer.commit(writer.encoder.encode(make_rows(1, spool_id="it's", segment_no=4)), {"another": 1})
    day_ns = 86_400 * 10**9

    assert writer.committed("it's", started_ns=SystemClock().wall_ns() - 19 * day_ns) == 0
    assert writer.committed("it's", started_ns=SystemClock().wall_ns() - 21 * day_ns) == 4


def test_a_root_that_cannot_be_written_is_worth_a_retry(tmp_path: Path) -> None:
    """A file where the root should be: the error says so, and the writer works once it is gone."""
    obstacle = tmp_path / "root"
    obstacle.write_text("")
    writer = DeltaWriter(INFERENCE, TableTarget(str(obstacle)), SystemClock())

    with pytest.raises(RetryableError, match="opening failed"):
        writer.refresh()

    obstacle.unlink()
    writer.refresh()
    assert writer.committed("a1", started_ns=SystemClock().wall_ns()) == 0


def test_an_unreachable_store_is_worth_a_retry_and_its_address_is_not_quoted() -> None:
    """Nobody listens on the discard port; the text of the error holds neither URL nor keys."""
    options = {
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_ALLOW_HTTP": "true", "AWS_REGION": "r",
        "AWS_ACCESS_KEY_ID": "KEYID", "AWS_SECRET_ACCESS_KEY": "SECRET", "max_retries": "0", "retry_timeout": "1s",
    }  # fmt: skip
    writer = DeltaWriter(INFERENCE, TableTarget("s3://bucket/root", options), SystemClock())

    with pytest.raises(RetryableError, match="cannot be reached") as raised:
        writer.refresh()

    assert not {"127.0.0.1", "KEYID", "SECRET"} & set(str(raised.value).replace("/", " ").split())


def test_a_handle_is_replaced_before_it_grows(writer: DeltaWriter) -> None:
    """After 100 commits the next refresh opens the table anew, and the count of commits goes on."""
    handle = writer.layout()
    empty = writer.encoder.encode([])
    for number in range(1, 101):
        writer.refresh()
        assert writer.layout() is handle
        writer.commit(empty, {"a1": number})

    writer.refresh()

    assert writer.layout() is not handle
    assert writer.committed("a1", started_ns=SystemClock().wall_ns()) == 100


def test_what_others_committed_is_seen_although_the_log_is_not_read_each_time(
    writer: DeltaWriter, open_writer: OpenWriter, make_rows, chdb_rows: ChdbRows
) -> None:
    """A writer trusts what it knows of its last commit, until a later version is there, or the table is gone."""
    now_ns = SystemClock().wall_ns()
    writer.commit(writer.encoder.encode(make_rows(1)), {"a1": 1})
    writer.refresh()
    assert writer.committed("a1", started_ns=now_ns) == 1

    other = open_writer()
    other.commit(other.encoder.encode(make_rows(1, segment_no=2)), {"a1": 2})
    writer.refresh()
    assert writer.committed("a1", started_ns=now_ns) == 2

    shutil.rmtree(writer.layout().table_uri.removeprefix("file://"))
    writer.refresh()
    assert writer.committed("a1", started_ns=now_ns) == 0
    writer.commit(writer.encoder.encode(make_rows(1, segment_no=3)), {"a1": 3})
    assert _ids(chdb_rows) == ["a1-3-0"]


def test_a_commit_behind_that_of_another_slot_knows_both(
    writer: DeltaWriter, open_writer: OpenWriter, make_rows
) -> None:
    """A commit that delta-rs put behind somebody else's leaves nothing in memory that is older than the handle."""
    now_ns = SystemClock().wall_ns()
    assert writer.committed("b2", started_ns=now_ns) == 0
    writer.commit(writer.encoder.encode(make_rows(1)), {"a1": 1, "b2": 1})
    other = open_writer()
    other.commit(other.encoder.encode(make_rows(1, spool_id="b2", segment_no=7)), {"b2": 7})

    writer.commit(writer.encoder.encode(make_rows(1, segment_no=2)), {"a1": 2})

    assert writer.committed("a1", started_ns=now_ns) == 2
    assert writer.committed("b2", started_ns=now_ns) == 7


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (Exception("x/SECRET: No space left on device (os error 28)"), "no space left"),
        (OSError(13, "SECRET"), "Permission denied"),
        (Exception("SECRET"), "(Exception)"),
    ],
)
def test_foreign_errors_are_said_in_our_words(error: Exception, expected: str) -> None:
    """What delta-rs says may quote rows, so only error numbers and classes come through."""
    described = describe(error, table="inference", doing="committing")

    assert isinstance(described, RetryableError)
    assert expected in str(described)
    assert "SECRET" not in str(described)


PANIC = """
import os, sys
from infertap.clock import SystemClock
from infertap.errors import RetryableError
from infertap.tables.delta import DeltaWriter
from infertap.tables.schema import LEDGER
from infertap.targets import TableTarget

writer = DeltaWriter(LEDGER, TableTarget(sys.argv[1]), SystemClock())
writer.refresh()
if (child := os.fork()) == 0:
    try:
        writer.commit(writer.encoder.encode([]), {})
    except RetryableError as error:
        os._exit(42 if "Panic" in str(error) else 43)
    os._exit(44)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_panic_of_the_rust_library_is_an_error_of_ours(target: TableTarget) -> None:
    """A handle that is used after a fork panics with a BaseException, which becomes a RetryableError."""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", PANIC, target.uri], capture_output=True, timeout=300)

    assert done.returncode == 42, done.stderr
