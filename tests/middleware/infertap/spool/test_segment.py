"""A segment holds whole frames only, whatever the disk does."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from infertap.errors import SpoolError, SpoolFullError
from infertap.spool.folder import OPEN, list_segments
from infertap.spool.frames import Frame, Kind, pack, scan, unpack
from infertap.spool.segment import SegmentWriter, SyncFailedError

Limit = Callable[[int], AbstractContextManager[None]]
ROW = pack({"request": "x" * 1000})


@pytest.fixture
def segment(tmp_path: Path) -> SegmentWriter:
    """Segment 1 of a slot in the temporary folder."""
    return SegmentWriter.create(tmp_path, 1, pack({"segment_no": 1}))


def _frames(slot_dir: Path) -> list[Frame]:
    paths = list_segments(slot_dir) + list_segments(slot_dir, OPEN)
    assert len(paths) == 1
    buffer = paths[0].read_bytes()
    result = scan(buffer)
    assert (result.damaged, result.good_end) == (0, len(buffer))
    return result.frames


def test_a_sealed_segment_says_what_it_holds(segment: SegmentWriter, tmp_path: Path) -> None:
    """OPEN first, SEAL with the counts last, and the name changes with the seal."""
    segment.write([(Kind.REQUEST, ROW), (Kind.SPAN, b"\x80"), (Kind.REQUEST, ROW)])
    segment.sync()
    assert list_segments(tmp_path) == []
    segment.seal("age")
    frames = _frames(tmp_path)
    assert [frame.kind for frame in frames] == [Kind.OPEN, Kind.REQUEST, Kind.SPAN, Kind.REQUEST, Kind.SEAL]
    assert unpack(frames[-1].payload) == {"reason": "age", "requests": 2, "spans": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["000000000001.seg"]
    assert (tmp_path / "000000000001.seg").stat().st_mode & 0o777 == 0o600


def test_more_frames_than_one_system_call_takes(segment: SegmentWriter, tmp_path: Path) -> None:
    """A group of any length is written whole."""
    segment.write([(Kind.REQUEST, b"%d" % number) for number in range(3000)])
    segment.sync()
    assert [frame.payload for frame in _frames(tmp_path)[1:]] == [b"%d" % number for number in range(3000)]
    segment.close()


@pytest.mark.parametrize("free_bytes", [0, 5, 24, 30, 1500, 700_000])
def test_a_group_that_does_not_fit_leaves_no_trace(
    segment: SegmentWriter, tmp_path: Path, file_bytes_max: Limit, free_bytes: int
) -> None:
    """A short write is cut back to the last whole frame, wherever it ended, and writing goes on afterwards."""
    segment.write([(Kind.REQUEST, ROW)])
    with file_bytes_max(segment.size_bytes + free_bytes), pytest.raises(SpoolFullError):
        segment.write([(Kind.REQUEST, ROW)] * 1500)
    assert [frame.payload for frame in _frames(tmp_path)[1:]] == [ROW]
    segment.write([(Kind.SPAN, b"after")])
    segment.seal("size")
    frames = _frames(tmp_path)
    assert frames[2] == (Kind.SPAN, b"after")
    assert unpack(frames[-1].payload)["requests"] == 1


def test_a_segment_that_cannot_start_leaves_no_file(tmp_path: Path, file_bytes_max: Limit) -> None:
    """Without room for the OPEN frame there is no segment, so that its number stays free."""
    with file_bytes_max(10), pytest.raises(SpoolFullError):
        SegmentWriter.create(tmp_path, 1, pack({"segment_no": 1}))
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(SpoolError):
        SegmentWriter.create(tmp_path / "gone", 1, b"")


def test_a_number_is_never_written_twice(segment: SegmentWriter, tmp_path: Path) -> None:
    """A file that is there is not touched."""
    with pytest.raises(SpoolError):
        SegmentWriter.create(tmp_path, 1, pack({"segment_no": 1}))
    assert len(_frames(tmp_path)) == 1
    segment.close()


def test_after_a_failed_sync_only_durable_groups_remain(
    segment: SegmentWriter, tmp_path: Path, break_sync: Callable[[SegmentWriter], None]
) -> None:
    """The segment takes no more frames and ends, without a SEAL frame, at its last durable group."""
    segment.write([(Kind.REQUEST, b"durable")])
    segment.sync()
    segment.write([(Kind.REQUEST, b"written only")])
    break_sync(segment)
    with pytest.raises(SyncFailedError):
        segment.sync()
    with pytest.raises(SpoolError):
        segment.write([(Kind.REQUEST, b"more")])
    segment.seal("size")
    assert [frame.payload for frame in _frames(tmp_path)[1:]] == [b"durable"]
    assert [path.name for path in tmp_path.iterdir()] == ["000000000001.seg"]


def test_a_seal_that_found_no_room_can_be_repeated(
    segment: SegmentWriter, tmp_path: Path, file_bytes_max: Limit
) -> None:
    """There is one SEAL frame, however often it was tried."""
    with file_bytes_max(segment.size_bytes + 3), pytest.raises(SpoolFullError):
        segment.seal("size")
    segment.seal("size")
    assert [frame.kind for frame in _frames(tmp_path)] == [Kind.OPEN, Kind.SEAL]
