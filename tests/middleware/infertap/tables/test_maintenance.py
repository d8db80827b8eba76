"""Upkeep keeps the log and the files few, is done by one maintainer an hour, and brings no content back."""

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable, write_deltalake

from infertap.errors import RetryableError
from infertap.tables.delta import DeltaWriter
from infertap.tables.maintenance import TableReport, maintain, make_checkpoint
from infertap.tables.rows import SegmentHead, span_row
from infertap.tables.schema import INFERENCE, SPANS
from infertap.targets import TableTarget

WEEK_NS = 7 * 24 * 3600 * 10**9
HOUR_NS = 3600 * 10**9
MARKER = "sensitive-0b5c1f"
LONG = MARKER + "x" * 100_000


def _commit(writer: DeltaWriter, make_rows: Callable[..., Any], first: int, last: int, **columns: Any) -> None:
    for number in range(first, last + 1):
        writer.refresh()
        writer.commit(writer.encoder.encode(make_rows(2, segment_no=number, **columns)), {"a1": number})


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def _of(reports: tuple[TableReport, ...], table: str) -> TableReport:
    return next(report for report in reports if report.table == table)


def test_many_small_files_become_one_and_no_row_is_lost(
    writer: DeltaWriter, target: TableTarget, make_rows, chdb_rows: Callable[..., list[dict[str, Any]]]
) -> None:
    """Compaction leaves the rows as they were, and the transaction ids, too."""
    _commit(writer, make_rows, 1, 12)
    before = chdb_rows("inference", "request_id, segment_no")

    report = _of(maintain(target, now_ns=time.time_ns(), force=False), "inference")

    assert (report.elected, report.files_removed, report.files_added) == (True, 12, 1)
    assert chdb_rows("inference", "request_id, segment_no") == before
    assert len(before) == 24
    writer.refresh()
    assert writer.committed("a1", started_ns=time.time_ns()) == 12


def test_tables_that_do_not_exist_are_left_alone(target: TableTarget) -> None:
    """Upkeep of an empty root makes nothing."""
    reports = maintain(target, now_ns=time.time_ns(), force=True)

    assert [(report.table, report.exists) for report in reports] == [
        ("inference", False),
        ("spans", False),
        ("ledger", False),
    ]
    assert not Path(target.uri).exists()


def test_one_maintainer_an_hour(writer: DeltaWriter, target: TableTarget, make_rows) -> None:
    """The second one of an hour does nothing, unless it is forced; the next hour's works again."""
    _commit(writer, make_rows, 1, 2)
    now_ns = time.time_ns()

    elected = [
        _of(maintain(target, now_ns=at, force=force), "inference").elected
        for at, force in ((now_ns, False), (now_ns, False), (now_ns, True), (now_ns + HOUR_NS, False))
    ]

    assert elected == [True, False, True, True]


def test_of_maintainers_that_start_together_at_most_one_works(
    writer: DeltaWriter, target: TableTarget, make_rows
) -> None:
    """The election is a compare-and-set on the table."""
    _commit(writer, make_rows, 1, 4)
    now_ns = time.time_ns()

    with ThreadPoolExecutor(4) as pool:
        runs = [pool.submit(maintain, target, now_ns=now_ns, force=False) for _ in range(4)]
        reports = [_of(run.result(), "inference") for run in runs]

    assert sum(report.elected for report in reports) == 1


def test_a_month_of_commits_leaves_as_few_files_as_a_day(writer: DeltaWriter, target: TableTarget, make_rows) -> None:
    """Active files grow by one a day, log files not at all: so a commit costs the same. Days pass by moving mtimes."""
    folder = Path(target.uri) / "inference"
    log_files: list[int] = []
    # The week's vacuum is one more commit: it falls on the second of these eight days, whenever the test runs.
    now_ns = time.time_ns() // WEEK_NS * WEEK_NS + 6 * 24 * HOUR_NS
    for day in range(8):
        _commit(writer, make_rows, day * 10 + 1, day * 10 + 10)
        maintain(target, now_ns=now_ns + day * 24 * HOUR_NS, force=False)
        log_files.append(len(_files(folder / "_delta_log")))
        for path in _files(folder):
            os.utime(path, ns=(0, path.stat().st_mtime_ns - 24 * HOUR_NS))

    assert max(log_files[4:]) <= log_files[3]
    assert len(DeltaTable(str(folder)).file_uris()) == 1
    assert DeltaTable(str(folder)).count() == 160


def test_files_of_refused_commits_are_deleted_when_they_are_old(
    writer: DeltaWriter, target: TableTarget, make_rows
) -> None:
    """The weekly full vacuum finds files that no log names, and leaves those alone that a writer may still commit."""
    _commit(writer, make_rows, 1, 1)
    partition = next((Path(target.uri) / "inference").glob("request_date=*"))
    old, young = partition / "part-old.parquet", partition / "part-young.parquet"
    for path in (old, young):
        path.write_bytes(b"PAR1")
    os.utime(old, (0, time.time() - 3 * 86_400))

    report = _of(maintain(target, now_ns=time.time_ns(), force=False), "inference")

    assert report.files_vacuumed == 1
    assert (old.exists(), young.exists()) == (False, True)


def test_a_checkpoint_is_due_every_twenty_commits(writer: DeltaWriter, target: TableTarget, make_rows) -> None:
    """The writer that crosses the mark is told, and the checkpoint is what the next reader starts from."""
    _commit(writer, make_rows, 1, 19)
    assert not writer.checkpoint_due
    _commit(writer, make_rows, 20, 20)
    assert writer.checkpoint_due

    assert make_checkpoint(INFERENCE, target) == 20

    hint = Path(target.uri) / "inference" / "_delta_log" / "_last_checkpoint"
    assert b'"version":20' in hint.read_bytes()


def test_no_content_is_in_log_or_footers_before_and_after_compaction(
    target: TableTarget, make_rows, open_writer
) -> None:
    """Bodies, header values, tags and attributes stand in no statistics: pages are compressed, statistics are not."""
    inference, spans = open_writer(INFERENCE), open_writer(SPANS)
    content = {"request": LONG, "response": LONG, "query": LONG, "error_message": LONG, "requester": LONG, "path": LONG}
    maps = {
        "request_headers": {"x": LONG},
        "response_headers": {LONG: ""},
        "tags": {"t": LONG},
        "finish_reasons": [LONG],
    }
    head = SegmentHead.of("a1", 1, {"resource": {"r": LONG}})
    span = {"trace_id": "1", "span_id": "2", "name": LONG, "kind": "SERVER", "start_ns": 1, "end_ns": 2}
    span |= {"attributes": {"a": LONG}, "events": [[LONG, 1, {"e": LONG}]], "status": ["ERROR", LONG]}

    for number in (1, 2):
        inference.refresh()
        inference.commit(inference.encoder.encode(make_rows(2, segment_no=number, **content, **maps)), {"a1": number})
        spans.refresh()
        spans.commit(spans.encoder.encode([span_row(span, head, number)]), {"a1": number})
    _assert_absent(target)
    maintain(target, now_ns=time.time_ns(), force=True)
    _assert_absent(target)


def test_another_program_that_appends_puts_no_content_into_the_log(
    writer: DeltaWriter, target: TableTarget, make_rows
) -> None:
    """The table itself names the columns with statistics, which binds writers that do not know our properties."""
    folder = Path(target.uri) / "inference"
    batch = writer.encoder.encode(make_rows(2, request=LONG, response=LONG, requester=LONG))

    write_deltalake(str(folder), batch, mode="append")

    (added,) = [line for line in (folder / "_delta_log" / f"{1:020}.json").read_text().splitlines() if '"add"' in line]
    assert MARKER not in added
    assert "a1-1-0" in added


def _assert_absent(target: TableTarget) -> None:
    found = _files(Path(target.uri))
    logs = [path for path in found if "_delta_log" in path.parts and path.suffix == ".json"]
    data = [path for path in found if path.suffix == ".parquet" and "_delta_log" not in path.parts]
    checkpoints = [path for path in found if path.suffix == ".parquet" and "_delta_log" in path.parts]
    assert logs
    assert data
    for path in logs + checkpoints:
        assert MARKER.encode() not in path.read_bytes(), path
    for path in data:
        content = path.read_bytes()
        footer_bytes = int.from_bytes(content[-8:-4], "little")
        assert MARKER.encode() not in content[-8 - footer_bytes :], path
        assert footer_bytes < 20_000


def test_a_broken_table_is_worth_a_retry(target: TableTarget) -> None:
    """A torn log file is reported without its text."""
    log = Path(target.uri) / "spans" / "_delta_log"
    log.mkdir(parents=True)
    (log / f"{0:020}.json").write_text(f'{{"metaData": "{MARKER}')

    with pytest.raises(RetryableError) as raised:
        maintain(target, now_ns=time.time_ns(), force=True)

    assert MARKER not in str(raised.value)
