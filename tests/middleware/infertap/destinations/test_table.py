"""Segments reach the three tables exactly once, through crashes at every point between them."""

import json
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import chdir
from dataclasses import replace
from pathlib import Path
from typing import Any

import chdb
import pytest
from deltalake import DeltaTable

from infertap.clock import SystemClock
from infertap.destinations.table import TableDestination
from infertap.errors import RetryableError
from infertap.record import InferenceRecord, ServerSpanFacts, SpanRecord
from infertap.spool.reader import Segment
from infertap.targets import TableTarget

TRACE = "0af7651916cd43dd8448eb211c80319c"
MakeSegment = Callable[..., Segment]
ReadTable = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def target(tmp_path: Path) -> TableTarget:
    """A local root that does not exist yet."""
    return TableTarget(str(tmp_path / "inference_tables"))


@pytest.fixture
def open_destination(tmp_path: Path, target: TableTarget) -> Callable[[], TableDestination]:
    """Makes destinations on the same root, as one drainer after the other does."""

    def open_destination() -> TableDestination:
        destination = TableDestination(target, parked_dir=tmp_path / "parked", clock=SystemClock())
        destination.open()
        return destination

    return open_destination


@pytest.fixture
def read(target: TableTarget) -> ReadTable:
    """Reads a table with chDB, an engine that is not delta-rs."""

    def read(table: str, columns: str, rest: str = "ORDER BY ALL") -> list[dict[str, Any]]:
        # chDB opens files below the working directory only.
        with chdir(target.uri):
            answer = chdb.query(f"SELECT {columns} FROM deltaLakeLocal('{target.uri}/{table}') {rest}", "JSONEachRow")
        return [json.loads(line) for line in str(answer).splitlines()]

    return read


@pytest.fixture
def make_segment() -> MakeSegment:
    """Makes one segment: requests with a sampled span each, an app's span, and the cumulative ledger frame."""
    start_us = time.time_ns() // 1000

    def make_segment(number: int = 1, *, spool_id: str = "a1", requests: int = 3, **columns: Any) -> Segment:
        payloads = []
        for n in range(requests):
            facts = ServerSpanFacts(
                "SERVER", f"{number:08x}{n:08x}", None, "", 1, "1.1", "http", "", ["h", 80], None, [], []
            )
            record = InferenceRecord(
                request_id=f"{spool_id}-{number}-{n}", request_time=start_us, sequence_no=(number - 1) * requests + n,
                status_code=200, trace_id=TRACE, span_id=facts.span_id, method="POST", path="/score",
                request="prompt-0b5c1f", duration_ns=5_000_000, span=facts, **columns,
            )  # fmt: skip
            payloads.append(record.to_payload())
        span = SpanRecord(
            TRACE, "b7ad6b7169203331", "00f067aa0ba902b7", "rank", "INTERNAL", start_us * 1000, start_us * 1000 + 5,
            attributes={"n": 1, "f": 0.5, "ok": True, "names": ["a", "b"]}, events=[["hit", 7, {"k": 1}]],
            links=[[TRACE, "00f067aa0ba902b7", 1, {}]], status=["ERROR", "no"], scope_name="app",
            request_id=f"{spool_id}-{number}-0",
        )  # fmt: skip
        minute = start_us // 60_000_000
        counts = {
            "minutes": {str(minute): {"seen": number * requests + 1, "kept": number * requests, "lost/queue_full": 1}}
        }
        header = {
            "spool_id": spool_id, "segment_no": number, "schema_version": 1, "infertap_version": "0.1",
            "started_ns": start_us * 1000, "service_name": "scorer", "instance": "i-1",
            "resource": {"service.name": "scorer", "cores": 2},
        }  # fmt: skip
        return Segment(spool_id, number, header, tuple(payloads), (span.to_payload(),), (counts,), 1000, 0, ())

    return make_segment


def _sums(read: ReadTable) -> dict[str, int]:
    rows = read("ledger", "destination, outcome, cause, sum(count) AS n", "GROUP BY ALL")
    return {"/".join(str(row[name] or "-") for name in ("destination", "outcome", "cause")): row["n"] for row in rows}


def _exactly_once(read: ReadTable, segments: int) -> None:
    """Three requests, four spans a segment; the ledger's sums are those of the last frame."""
    assert [row["request_id"] for row in read("inference", "request_id")] == sorted(
        f"a1-{number}-{n}" for number in range(1, segments + 1) for n in range(3)
    )
    assert read("spans", "count() AS n, uniqExact(record_id) AS ids", "") == [{"n": 4 * segments, "ids": 4 * segments}]
    assert _sums(read) == {
        "-/seen/-": 3 * segments + 1,
        "-/kept/-": 3 * segments,
        "-/lost/queue_full": 1,
        "table/written/-": 3 * segments,
    }


def test_rows_spans_and_counts_arrive(open_destination, make_segment: MakeSegment, read: ReadTable) -> None:
    """One delivery fills all three tables, and says up to where."""
    receipt = open_destination().deliver([make_segment(1), make_segment(2), make_segment(9, spool_id="b2")], {})

    assert (dict(receipt.delivered), dict(receipt.outcomes)) == ({"a1": 2, "b2": 9}, {})
    (row,) = read(
        "inference",
        "service_name, instance, resource['cores'] AS cores, schema_version, infertap_version, spool_id, segment_no, "
        "sequence_no, toDate(request_time) = request_date AS day",
        "WHERE request_id = 'a1-2-1'",
    )
    assert row == {
        "service_name": "scorer", "instance": "i-1", "cores": "2", "schema_version": 1, "infertap_version": "0.1",
        "spool_id": "a1", "segment_no": 2, "sequence_no": 4, "day": 1,
    }  # fmt: skip
    assert read("inference", "count() AS n", "") == [{"n": 9}]


def test_an_apps_span_keeps_its_types_as_json(open_destination, make_segment: MakeSegment, read: ReadTable) -> None:
    """Attributes are JSON text, kinds and codes have OpenTelemetry's full names, events and links are structs."""
    open_destination().deliver([make_segment(1)], {})

    (span,) = read("spans", "*", "WHERE name = 'rank'")

    assert json.loads(span["attributes"]) == {"n": 1, "f": 0.5, "ok": True, "names": ["a", "b"]}
    assert (span["kind"], span["status"]) == ("SPAN_KIND_INTERNAL", {"message": "no", "code": "STATUS_CODE_ERROR"})
    assert span["events"] == [
        {"time_unix_nano": 7, "name": "hit", "attributes": '{"k":1}', "dropped_attributes_count": 0}
    ]
    assert span["links"][0]["span_id"] == "00f067aa0ba902b7"
    assert json.loads(span["resource"]["attributes"]) == {"service.name": "scorer", "cores": 2}
    assert (span["service_name"], span["instrumentation_scope"]["name"], span["request_id"]) == (
        "scorer",
        "app",
        "a1-1-0",
    )


def test_a_server_span_is_rendered_without_bodies(
    open_destination, make_segment: MakeSegment, read: ReadTable, target: TableTarget
) -> None:
    """A sampled request has its span, joined by id; the body stands in `inference` only."""
    open_destination().deliver([make_segment(1)], {})

    joined = read(
        "spans", "span_id, request_id, attributes, events", "WHERE kind = 'SPAN_KIND_SERVER' ORDER BY span_id"
    )

    assert [span["request_id"] for span in joined] == ["a1-1-0", "a1-1-1", "a1-1-2"]
    assert "prompt-0b5c1f" not in json.dumps(joined)
    assert read("inference", "request", "LIMIT 1") == [{"request": "prompt-0b5c1f"}]


def test_a_request_without_a_sampled_span_has_a_row_and_no_span(
    open_destination, make_segment: MakeSegment, read: ReadTable, target: TableTarget
) -> None:
    """Tables never hang off span sampling; without any span there is no commit to `spans`."""
    segment = make_segment(1)
    unsampled = [{key: value for key, value in request.items() if key != "span"} for request in segment.requests]

    open_destination().deliver([replace(segment, requests=tuple(unsampled), spans=())], {})

    assert read("inference", "count() AS n", "") == [{"n": 3}]
    assert DeltaTable(f"{target.uri}/spans").version() == 0


def test_the_same_segments_again_change_nothing(open_destination, make_segment: MakeSegment, read: ReadTable) -> None:
    """The same process, and a later one that lost its cursors, both bring old segments with new ones."""
    destination = open_destination()
    destination.deliver([make_segment(1), make_segment(2)], {})

    destination.deliver([make_segment(1), make_segment(2), make_segment(3)], {})
    receipt = open_destination().deliver([make_segment(1), make_segment(2), make_segment(3)], {})

    assert dict(receipt.delivered) == {"a1": 3}
    _exactly_once(read, 3)


DYING = """
import os, pickle, signal, sys
from pathlib import Path
import infertap.tables.delta as delta
from infertap.clock import SystemClock
from infertap.destinations.table import TableDestination
from infertap.targets import TableTarget

root, segments, table, point = sys.argv[1:]
commit, settle = delta.DeltaWriter.commit, delta.settle

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def commit_or_die(writer, batch, covered):
    here = writer.table.name == table
    if here and point == "before":
        die()
    if here and point == "unsettled":
        delta.settle = lambda *_: die()
    commit(writer, batch, covered)
    if here and point == "after":
        die()

delta.DeltaWriter.commit = commit_or_die
destination = TableDestination(TableTarget(root), parked_dir=Path(root).parent / "parked", clock=SystemClock())
destination.open()
destination.deliver(pickle.loads(Path(segments).read_bytes()), {})
"""


@pytest.mark.parametrize("point", ["before", "unsettled", "after"])
@pytest.mark.parametrize("table", ["spans", "inference", "ledger"])
def test_a_drainer_that_is_killed_between_the_tables_is_continued_exactly_once(
    table: str,
    point: str,
    open_destination,
    make_segment: MakeSegment,
    read: ReadTable,
    target: TableTarget,
    tmp_path: Path,
) -> None:
    """A process is killed around each of the three commits, twice; the next one finishes what it left."""
    segments = tmp_path / "segments"
    for last in (2, 3):
        segments.write_bytes(pickle.dumps([make_segment(number) for number in range(1, last + 1)]))
        dying = subprocess.run([sys.executable, "-c", DYING, target.uri, str(segments), table, point], timeout=300)
        assert dying.returncode == -signal.SIGKILL

    open_destination().deliver([make_segment(number) for number in range(1, 5)], {})

    _exactly_once(read, 4)


RACING = """
import pickle, sys, time
from pathlib import Path
from infertap.clock import SystemClock
from infertap.destinations.table import TableDestination
from infertap.errors import RetryableError
from infertap.targets import TableTarget

root, path = sys.argv[1:]
destination = TableDestination(TableTarget(root), parked_dir=Path(root).parent / "parked", clock=SystemClock())
destination.open()
segments = pickle.loads(Path(path).read_bytes())
deadline = time.monotonic() + 240
for last in range(1, len(segments) + 1):
    while time.monotonic() < deadline:
        try:
            destination.deliver(segments[:last], {})
            break
        except RetryableError:
            continue
"""


def test_four_racing_drainers_deliver_everything_once(
    open_destination, make_segment: MakeSegment, read: ReadTable, target: TableTarget, tmp_path: Path
) -> None:
    """The election should leave one; where it fails, the tables still hold every row once and the right counts."""
    segments = tmp_path / "segments"
    segments.write_bytes(pickle.dumps([make_segment(number) for number in range(1, 6)]))

    racers = [subprocess.Popen([sys.executable, "-c", RACING, target.uri, str(segments)]) for _ in range(4)]

    assert [racer.wait(timeout=300) for racer in racers] == [0, 0, 0, 0]
    _exactly_once(read, 5)


def test_counts_of_another_drainer_are_read_before_ours_go_on(
    open_destination, make_segment: MakeSegment, read: ReadTable
) -> None:
    """A drainer that finds its segments covered by another one does not count on from its own memory."""
    segments = [make_segment(number) for number in range(1, 5)]
    first, second = open_destination(), open_destination()
    first.deliver(segments[:2], {})
    second.deliver(segments[:3], {})
    first.deliver(segments[:3], {})
    first.deliver(segments, {})

    _exactly_once(read, 4)


def test_outcomes_of_the_drainer_reach_the_ledger_as_increments(
    open_destination, make_segment: MakeSegment, read: ReadTable
) -> None:
    """They are cumulative; they come with segments, with old segments, and without any after the owner has gone."""
    minute = make_segment(1).requests[0]["request_time"] // 60_000_000

    def outcomes(written: int, lost: int) -> Mapping[str, Mapping[tuple[int, str, str, str], int]]:
        return {"a1": {(minute, "otlp", "written", ""): written, (minute, "otlp", "lost", "rejected"): lost}}

    destination = open_destination()
    destination.deliver([make_segment(1)], outcomes(2, 0))
    destination.deliver([make_segment(1), make_segment(2)], outcomes(3, 1))
    destination.deliver([make_segment(2)], outcomes(4, 1))
    destination.deliver([], outcomes(5, 1))
    open_destination().deliver([], outcomes(5, 1))

    sums = _sums(read)
    assert (sums["otlp/written/-"], sums["otlp/lost/rejected"], sums["table/written/-"]) == (5, 1, 6)
    assert read("ledger", "DISTINCT service_name, instance") == [{"service_name": "scorer", "instance": "i-1"}]


def test_parked_rows_are_lost_for_the_table_and_not_written(
    open_destination, make_segment: MakeSegment, read: ReadTable, tmp_path: Path
) -> None:
    """The drainer hears of them, and its cumulative count comes back with the slot's next or last report."""
    segment = make_segment(1)
    broken = ({**segment.requests[0], "status_code": "SECRET"}, {"method": "GET"}, *segment.requests[2:])
    minute = segment.header["started_ns"] // 60_000_000_000
    destination = open_destination()

    receipt = destination.deliver([replace(segment, requests=broken)], {})
    destination.deliver([], receipt.outcomes)

    assert receipt.outcomes == {"a1": {(minute, "table", "lost", "parked"): 2}}
    sums = _sums(read)
    assert (sums["table/written/-"], sums["table/lost/parked"]) == (1, 2)
    assert read("inference", "request_id") == [{"request_id": "a1-1-2"}]
    assert "inference-refused-a1-000000000001.jsonl" in {path.name for path in (tmp_path / "parked").iterdir()}


def test_a_parked_row_is_reported_after_a_crash_between_rows_and_ledger(
    open_destination, make_segment: MakeSegment, read: ReadTable, target: TableTarget, tmp_path: Path
) -> None:
    """The next drainer does not write the rows again, and finds in the parked file what was left out."""
    segment = make_segment(1)
    segment = replace(segment, requests=({**segment.requests[0], "status_code": "no"}, *segment.requests[1:]))
    path = tmp_path / "segments"
    path.write_bytes(pickle.dumps([segment]))
    dying = subprocess.run([sys.executable, "-c", DYING, target.uri, str(path), "ledger", "before"], timeout=300)
    assert dying.returncode == -signal.SIGKILL

    receipt = open_destination().deliver([segment], {})

    assert list(receipt.outcomes["a1"].values()) == [1]
    assert _sums(read)["table/written/-"] == 2


def test_a_root_that_cannot_be_written_raises_and_recovers(tmp_path: Path, make_segment: MakeSegment) -> None:
    """A file stands where the root should be; once it is gone, the same segments are taken."""
    obstacle = tmp_path / "root"
    obstacle.write_text("")
    destination = TableDestination(TableTarget(str(obstacle)), parked_dir=tmp_path / "parked", clock=SystemClock())
    destination.open()
    with pytest.raises(RetryableError):
        destination.deliver([make_segment(1)], {})

    obstacle.unlink()

    assert dict(destination.deliver([make_segment(1)], {}).delivered) == {"a1": 1}


def test_upkeep_compacts_once_an_hour_and_writes_due_checkpoints(
    open_destination, make_segment: MakeSegment, read: ReadTable, target: TableTarget
) -> None:
    """Twenty deliveries become one file, and the rows stay."""
    destination = open_destination()
    for number in range(1, 21):
        destination.deliver([make_segment(number)], {})

    destination.maintain()
    destination.maintain()

    table = DeltaTable(f"{target.uri}/inference")
    assert len(table.file_uris()) == 1
    assert (Path(target.uri) / "inference" / "_delta_log" / "_last_checkpoint").exists()
    destination.deliver([make_segment(21)], {})
    _exactly_once(read, 21)


def test_a_backlog_gets_its_checkpoints_without_a_pause(
    open_destination, target: TableTarget, make_segment: MakeSegment
) -> None:
    """Where one delivery follows the other, nobody has time for upkeep, and the log must not grow for ever."""
    destination = open_destination()
    for number in range(1, 23):
        destination.deliver([make_segment(number)], {})

    for table in ("spans", "inference", "ledger"):
        assert list((Path(target.uri) / table / "_delta_log").glob("*.checkpoint*.parquet")), table
    assert DeltaTable(str(Path(target.uri) / "inference")).count() == 22 * 3


def test_nothing_heavy_is_imported_before_it_is_opened() -> None:
    """The module can be named by the app's process: Arrow and Delta come with `open`."""
    program = (
        "import sys, infertap.destinations.table\n"
        "sys.exit(bool({'deltalake', 'arro3', 'arro3.core', 'grpc', 'google.protobuf'} & set(sys.modules)))"
    )

    assert subprocess.run([sys.executable, "-c", program], timeout=300).returncode == 0


def test_a_destination_that_was_not_opened_can_be_closed(target: TableTarget, tmp_path: Path) -> None:
    """Closing needs no opening, may come twice, and deliveries after it are for a later drainer."""
    destination = TableDestination(target, parked_dir=tmp_path / "parked", clock=SystemClock())

    destination.close(deadline_s=1)
    destination.close(deadline_s=1)

    with pytest.raises(RetryableError):
        destination.deliver([], {})
