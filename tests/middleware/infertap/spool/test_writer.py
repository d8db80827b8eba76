"""The writer: durable after `flush`, every request in exactly one count, and no harm from disks, forks or deletions."""

import logging
import os
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import pytest

from infertap.errors import SpoolError, SpoolFullError
from infertap.record import LossCause
from infertap.spool.folder import OPEN, SpoolFolder, list_segments
from infertap.spool.frames import Kind, pack, scan, unpack
from infertap.spool.page import KEPT, LOST, SEEN, PageView
from infertap.spool.reader import Segment, read_segment
from infertap.spool.recovery import adopt
from infertap.spool.segment import SegmentWriter
from infertap.spool.slot import Slot
from infertap.spool.writer import SpoolWriter

MakeWriter = Callable[..., SpoolWriter]


def _append(writer: SpoolWriter, clock: Any, *numbers: int, body_bytes: int = 100) -> None:
    for number in numbers:
        payload = pack({"sequence_no": number, "request_time": clock.wall_ns() // 1000, "request": "x" * body_bytes})
        writer.append([(Kind.REQUEST, payload)], minutes=[clock.minute])
        writer.counters[SEEN] += 1


def _slot(writer: SpoolWriter) -> Slot:
    assert writer.slot is not None
    return writer.slot


def _open_rows(writer: SpoolWriter) -> list[int]:
    paths = list_segments(_slot(writer).path, OPEN)
    frames = [frame for path in paths for frame in scan(path.read_bytes()).frames]
    return [unpack(frame.payload)["sequence_no"] for frame in frames if frame.kind == Kind.REQUEST]


def _sealed(writer: SpoolWriter) -> list[Segment]:
    return [read_segment(path) for path in list_segments(_slot(writer).path)]


def _numbers(segments: Sequence[Segment]) -> list[int]:
    return [row["sequence_no"] for segment in segments for row in segment.requests]


def _sums(segments: Sequence[Segment]) -> Counter[str]:
    last: dict[tuple[str, str], int] = {}
    for segment in segments:
        for payload in segment.ledger:
            for minute, outcomes in payload["minutes"].items():
                for outcome, count in outcomes.items():
                    last[minute, outcome] = count
    sums: Counter[str] = Counter()
    for (_, outcome), count in last.items():
        sums[outcome] += count
    return sums


def test_after_flush_the_rows_are_in_the_file(make_writer: MakeWriter, clock: Any) -> None:
    """Buffered frames touch no disk; flushed ones are there, with the count that covers them."""
    writer = make_writer()
    _append(writer, clock, 1, 2)
    assert writer.buffered_bytes > 200
    assert _open_rows(writer) == []
    writer.flush()
    assert writer.buffered_bytes == 0
    assert _open_rows(writer) == [1, 2]
    assert PageView.read(_slot(writer).path / "page").kept == 2
    writer.seal("stop")
    (segment,) = _sealed(writer)
    assert segment.segment_no == 1
    assert segment.header["service_name"] == "svc"
    assert segment.ledger == ({"minutes": {str(clock.minute): {"seen": 2, "kept": 2}}, "settled": 2},)


def test_an_idle_writer_writes_nothing(make_writer: MakeWriter, clock: Any) -> None:
    """Without requests there is no segment, however often it flushes, ticks and seals."""
    writer = make_writer()
    writer.flush()
    clock.now_s += 100
    writer.tick()
    writer.seal("stop")
    assert list_segments(_slot(writer).path) + list_segments(_slot(writer).path, OPEN) == []
    assert PageView.read(_slot(writer).path / "page").beat_ns == clock.wall_ns()


def test_segments_end_by_size_and_are_numbered_without_gaps(make_writer: MakeWriter, clock: Any) -> None:
    """One large group becomes several segments; each is over the size by at most one frame."""
    writer = make_writer(segment_bytes_max=10_000)
    _append(writer, clock, *range(100), body_bytes=1000)
    writer.flush()
    writer.seal("stop")
    segments = _sealed(writer)
    assert [segment.segment_no for segment in segments] == list(range(1, len(segments) + 1))
    assert len(segments) >= 10
    assert max(segment.size_bytes for segment in segments) < 10_000 + 1500
    assert _numbers(segments) == list(range(100))
    assert _sums(segments) == {"seen": 100, "kept": 100}


def test_segments_end_by_age(make_writer: MakeWriter, clock: Any) -> None:
    """A tick seals what is old enough, and flushes first."""
    writer = make_writer(segment_age_s_max=5.0)
    _append(writer, clock, 1)
    writer.flush()
    clock.now_s += 4.9
    writer.tick()
    assert _sealed(writer) == []
    _append(writer, clock, 2)
    clock.now_s += 0.2
    writer.tick()
    assert _numbers(_sealed(writer)) == [1, 2]


def test_losses_without_rows_reach_the_spool(make_writer: MakeWriter, clock: Any) -> None:
    """What only the ledger knows is written by the tick."""
    writer = make_writer()
    writer.ledger.lose(clock.minute, LossCause.QUEUE_FULL, 3)
    writer.tick()
    clock.now_s += 10
    writer.tick()
    (segment,) = _sealed(writer)
    assert (segment.requests, _sums([segment])) == ((), {"seen": 3, "lost/queue_full": 3})


def test_a_group_without_room_is_lost_whole_and_counted(
    make_writer: MakeWriter, clock: Any, file_bytes_max: Callable[[int], AbstractContextManager[None]]
) -> None:
    """Over the limit nothing is half-written, what was durable is sealed with the count, and later rows are kept."""
    writer = make_writer()
    _append(writer, clock, 1, 2)
    writer.flush()
    _append(writer, clock, 3, 4, 5, body_bytes=5000)
    with file_bytes_max(4000), pytest.raises(SpoolFullError):
        writer.flush()
    (segment,) = _sealed(writer)
    assert _numbers([segment]) == [1, 2]
    assert _sums([segment]) == {"seen": 5, "kept": 2, "lost/spool_full": 3}
    assert writer.counters[LOST[LossCause.SPOOL_FULL]] == 3
    _append(writer, clock, 6)
    writer.flush()
    writer.seal("stop")
    assert _numbers(_sealed(writer)) == [1, 2, 6]
    assert _sums(_sealed(writer)) == {"seen": 6, "kept": 3, "lost/spool_full": 3}


def _flush_until_full(writer: SpoolWriter, clock: Any) -> int:
    """The number of the first row that did not fit."""
    for number in range(1, 100):
        _append(writer, clock, number, body_bytes=3000)
        try:
            writer.flush()
        except SpoolFullError:
            return number
    raise AssertionError("the disk never became full")


def test_a_full_disk_costs_only_what_does_not_fit(
    make_writer: MakeWriter,
    small_disk: SpoolFolder,
    clock: Any,
    fill_disk: Callable[[int], None],
    free_disk: Callable[[], None],
) -> None:
    """On a really full disk the durable rows are sealed by means of the reserve; with room everything goes on."""
    writer = make_writer(folder=small_disk)
    fill_disk(100_000)
    number = _flush_until_full(writer, clock)
    kept = list(range(1, number))
    assert 20 < len(kept) < 40
    assert _numbers(_sealed(writer)) == kept
    assert _sums(_sealed(writer)) == {"seen": number, "kept": len(kept), "lost/spool_full": 1}
    # Cutting a group back may leave room for another one, but not for many.
    lost = 1
    for _ in range(20):
        number += 1
        _append(writer, clock, number, body_bytes=3000)
        try:
            writer.flush()
        except SpoolFullError:
            lost += 1
        else:
            kept.append(number)
    assert lost > 10
    writer.tick()
    free_disk()
    number += 1
    _append(writer, clock, number)
    writer.flush()
    writer.seal("stop")
    segments = _sealed(writer)
    assert _numbers(segments) == [*kept, number]
    assert [segment.segment_no for segment in segments] == list(range(1, len(segments) + 1))
    assert _sums(segments) == {"seen": number, "kept": len(kept) + 1, "lost/spool_full": lost}
    assert writer.counters[LOST[LossCause.SPOOL_FULL]] == lost


def test_a_failed_sync_moves_the_group_to_a_new_segment(
    make_writer: MakeWriter, clock: Any, break_sync: Callable[[SegmentWriter], None]
) -> None:
    """The group is not lost, not doubled, and the numbers have no gap."""
    writer = make_writer()
    _append(writer, clock, 1)
    writer.flush()
    assert writer._journal.segment is not None
    break_sync(writer._journal.segment)
    _append(writer, clock, 2)
    writer.flush()
    writer.seal("stop")
    segments = _sealed(writer)
    assert [(segment.segment_no, _numbers([segment])) for segment in segments] == [(1, [1]), (2, [2])]
    assert _sums(segments) == {"seen": 2, "kept": 2}


def test_a_folder_deleted_under_an_open_segment(
    make_writer: MakeWriter, folder: SpoolFolder, clock: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """The next write makes a new slot, keeps its own rows and counts the unsealed ones as lost, with one warning."""
    writer = make_writer()
    _append(writer, clock, 1)
    writer.flush()
    old = _slot(writer).spool_id
    shutil.rmtree(folder.path)
    _append(writer, clock, 2)
    writer.flush()
    assert _slot(writer).spool_id != old
    assert _slot(writer).still_there()
    writer.seal("stop")
    assert _numbers(_sealed(writer)) == [2]
    assert _sums(_sealed(writer)) == {"seen": 2, "kept": 1, "lost/spool_unwritable": 1}
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert writer.counters[SEEN] == 2


def test_a_deleted_open_segment_is_a_vanished_slot(make_writer: MakeWriter, folder: SpoolFolder, clock: Any) -> None:
    """The old slot's numbers would have a gap: its sealed segments stay, a new slot goes on, all is counted once."""
    writer = make_writer()
    _append(writer, clock, 1)
    writer.seal()
    _append(writer, clock, 2)
    writer.flush()
    old = _slot(writer)
    os.unlink(list_segments(old.path, OPEN)[0])
    _append(writer, clock, 3)
    writer.flush()
    writer.seal()
    adopted = adopt(folder, old.spool_id)
    assert adopted is not None
    left = [read_segment(path) for path in list_segments(old.path)]
    adopted.close()
    assert (_numbers(left), _numbers(_sealed(writer))) == ([1], [3])
    assert _sums(left) + _sums(_sealed(writer)) == {"seen": 3, "kept": 2, "lost/spool_unwritable": 1}


def test_a_vanished_slot_is_told_by_name_where_nothing_logs(
    make_writer: MakeWriter,
    folder: SpoolFolder,
    clock: Any,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An app that configures no logging sees who is speaking."""
    monkeypatch.setattr(logging.getLogger("infertap.spool"), "propagate", False)
    writer = make_writer()
    _append(writer, clock, 1)
    writer.flush()
    shutil.rmtree(folder.path)
    _append(writer, clock, 2)
    writer.flush()
    assert capsys.readouterr().err.startswith("infertap: the spool's slot in ")


def test_a_deleted_folder_is_not_made_again_without_need(
    make_writer: MakeWriter, folder: SpoolFolder, clock: Any
) -> None:
    """A tick notices the deletion, but only a record makes a new folder."""
    writer = make_writer()
    made = writer.slots_made
    _append(writer, clock, 1)
    writer.flush()
    shutil.rmtree(folder.path.parent)
    writer.tick()
    clock.now_s += 10
    writer.tick()
    writer.close()
    assert writer.slot is None
    assert not folder.path.exists()
    _append(writer, clock, 2)
    writer.flush()
    assert writer.slots_made == made + 1
    assert _open_rows(writer) == [2]


def test_an_unwritable_place_counts_and_recovers(
    make_writer: MakeWriter, folder: SpoolFolder, clock: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Rows that meet no folder are lost by name, and the next ones are kept as soon as it can be made."""
    writer = make_writer()
    shutil.rmtree(folder.path.parent)
    folder.path.parent.write_text("in the way")
    _append(writer, clock, 1)
    with pytest.raises(SpoolError) as caught:
        writer.flush()
    assert not isinstance(caught.value, SpoolFullError)
    assert writer.counters[LOST[LossCause.SPOOL_UNWRITABLE]] == 1
    folder.path.parent.unlink()
    _append(writer, clock, 2)
    writer.flush()
    writer.seal("stop")
    assert _sums(_sealed(writer)) == {"seen": 2, "kept": 1, "lost/spool_unwritable": 1}


def test_a_forked_child_makes_its_own_slot(
    make_writer: MakeWriter, folder: SpoolFolder, clock: Any, run_child: Callable[..., int]
) -> None:
    """The child neither writes its parent's buffer nor counts for it, and the parent goes on undisturbed."""
    writer = make_writer()
    _append(writer, clock, 1)
    writer.flush()
    _append(writer, clock, 2)
    parents = _slot(writer).path
    made = writer.slots_made

    def use() -> None:
        assert writer.slots_made != made
        _append(writer, clock, 100)
        writer.flush()
        assert _slot(writer).path != parents
        assert _open_rows(writer) == [100]
        assert (writer.counters[SEEN], writer.counters[KEPT]) == (1, 1)
        writer.seal("stop")

    assert run_child(use) == 0
    assert writer.slots_made == made
    writer.flush()
    assert _open_rows(writer) == [1, 2]
    assert len(folder.slot_ids()) == 2
    assert writer.counters[SEEN] == 2


def test_close_seals_and_leaves(make_writer: MakeWriter, clock: Any) -> None:
    """After the close the slot is an orphan with sealed segments, and a second close changes nothing."""
    writer = make_writer()
    _append(writer, clock, 1)
    path = _slot(writer).path
    writer.close()
    writer.close()
    assert [read_segment(segment).requests[0]["sequence_no"] for segment in list_segments(path)] == [1]
    assert writer.slot is None
    writer.counters[SEEN] += 1
    assert PageView.read(path / "page").seen == 2


def test_the_cap_is_told_not_enforced(make_writer: MakeWriter, clock: Any) -> None:
    """`room` says whether the folder is below its cap; whether that matters is the caller's to know."""
    writer = make_writer(spool_bytes_max=2000)
    assert writer.room()
    _append(writer, clock, 1, body_bytes=3000)
    writer.flush()
    clock.now_s += 1
    assert not writer.room()
    _append(writer, clock, 2)
    writer.flush()
    assert _open_rows(writer) == [1, 2]
    writer.seal()
    os.unlink(list_segments(_slot(writer).path)[0])
    clock.now_s += 1
    assert writer.room()
