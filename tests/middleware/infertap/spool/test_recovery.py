"""Recovery: every whole frame of a dead owner is kept, and what was in flight is counted exactly once."""

import os
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import xxhash

from infertap.errors import SpoolError
from infertap.record import SCHEMA_VERSION, LossCause
from infertap.spool.cursors import Cursors
from infertap.spool.folder import OPEN, SpoolFolder, list_segments, segment_path
from infertap.spool.frames import Kind, encode, pack, scan, unpack
from infertap.spool.lock import FileLock
from infertap.spool.page import LEDGERED, SEEN, PageView
from infertap.spool.reader import read_segment
from infertap.spool.recovery import adopt, sweep
from infertap.spool.writer import SpoolWriter

MakeWriter = Callable[..., SpoolWriter]
RunUntilKilled = Callable[[int, Callable[[], None]], bool]


def _row(number: int, clock: Any) -> bytes:
    return pack({"sequence_no": number, "request_time": clock.wall_ns() // 1000, "request": "x" * 50})


def _append(writer: SpoolWriter, clock: Any, *numbers: int) -> None:
    for number in numbers:
        writer.counters[SEEN] += 1
        writer.append([(Kind.REQUEST, _row(number, clock))], minutes=[clock.minute])


def _die(writer: SpoolWriter) -> Path:
    """Lets go of the slot as kill -9 does: nothing is flushed, sealed or counted."""
    slot = writer.slot
    assert slot is not None
    if writer._journal.segment is not None:
        writer._journal.segment.close()
    slot.lock.close()
    writer._journal.slot = writer._journal.segment = None
    return slot.path


def _recovered(folder: SpoolFolder, slot_dir: Path) -> tuple[list[int], dict[str, int]]:
    """Row numbers, and per outcome the sum of what the ledger frames say last."""
    adopted = adopt(folder, slot_dir.name)
    assert adopted is not None
    adopted.close()
    assert list_segments(slot_dir, OPEN) == []
    segments = [read_segment(path) for path in list_segments(slot_dir)]
    assert [segment.segment_no for segment in segments] == list(range(1, len(segments) + 1))
    assert [segment.damaged for segment in segments] == [0] * len(segments)
    last = {
        (minute, outcome): count
        for segment in segments
        for payload in segment.ledger
        for minute, outcomes in payload["minutes"].items()
        for outcome, count in outcomes.items()
    }
    sums: Counter[str] = Counter()
    for (_, outcome), count in last.items():
        sums[outcome] += count
    return [row["sequence_no"] for segment in segments for row in segment.requests], dict(sums)


def _cut_last_frame(path: Path) -> None:
    frames = scan(path.read_bytes()).frames
    os.truncate(path, path.stat().st_size - len(encode(*frames[-1])))


def test_a_live_slot_is_not_adopted(folder: SpoolFolder, make_writer: MakeWriter, clock: Any) -> None:
    """The owner's lock protects its open segment."""
    writer = make_writer()
    _append(writer, clock, 1)
    writer.flush()
    assert writer.slot is not None
    assert adopt(folder, writer.slot.spool_id) is None
    assert adopt(folder, "gone") is None
    assert len(list_segments(writer.slot.path, OPEN)) == 1


def test_requests_in_flight_are_counted_once(folder: SpoolFolder, make_writer: MakeWriter, clock: Any) -> None:
    """What was seen and never became a row is `crash_in_flight`; a second adoption adds nothing."""
    writer = make_writer()
    _append(writer, clock, 1, 2)
    writer.flush()
    _append(writer, clock, 3)
    writer.counters[SEEN] += 4
    slot_dir = _die(writer)
    expected = ([1, 2], {"seen": 2, "kept": 2, "seen/crash_in_flight": 5, "lost/crash_in_flight": 5})
    assert _recovered(folder, slot_dir) == expected
    assert PageView.read(slot_dir / "page").adopted
    assert _recovered(folder, slot_dir) == expected
    (segment,) = [read_segment(path) for path in list_segments(slot_dir)]
    frames = scan(list_segments(slot_dir)[0].read_bytes()).frames
    assert unpack(frames[-1].payload) == {"reason": "recovered", "requests": 2, "spans": 0}
    assert str(clock.minute) in segment.ledger[-1]["minutes"]


def test_in_flight_without_an_open_segment_gets_one_more(
    folder: SpoolFolder, make_writer: MakeWriter, clock: Any
) -> None:
    """Also where everything was delivered and deleted before: the number goes on and the header is the owner's."""
    writer = make_writer()
    _append(writer, clock, 1)
    writer.seal()
    assert writer.slot is not None
    (delivered,) = list_segments(writer.slot.path)
    delivered.unlink()
    writer.counters[SEEN] += 1
    slot_dir = _die(writer)
    adopted = adopt(folder, slot_dir.name)
    assert adopted is not None
    (extra,) = [read_segment(path) for path in list_segments(slot_dir)]
    assert (extra.segment_no, extra.header["service_name"], extra.header["segment_no"]) == (2, "svc", 2)
    assert [payload["minutes"] for payload in extra.ledger] == [
        {str(clock.minute): {"seen/crash_in_flight": 1, "lost/crash_in_flight": 1}}
    ]
    adopted.close()


def test_a_clean_end_leaves_nothing_to_recover(folder: SpoolFolder, make_writer: MakeWriter, clock: Any) -> None:
    """An owner that closed has no losses, and no segment is added."""
    writer = make_writer()
    _append(writer, clock, 1, 2)
    assert writer.slot is not None
    slot_dir = writer.slot.path
    writer.close()
    assert _recovered(folder, slot_dir) == ([1, 2], {"seen": 2, "kept": 2})


def test_an_open_segment_cut_at_any_byte(folder: SpoolFolder, make_writer: MakeWriter, clock: Any) -> None:
    """Whole frames are kept, torn ones are not, and at every cut each request seen is a row or a loss."""
    writer = make_writer()
    for numbers in ((1, 2), (3,), (4, 5)):
        _append(writer, clock, *numbers)
        writer.flush()
    slot_dir = _die(writer)
    (path,) = list_segments(slot_dir, OPEN)
    content, page = path.read_bytes(), (slot_dir / "page").read_bytes()
    # After a power loss the page is a lower bound; here it is that of an owner which had not counted yet.
    page = page[: 26 * 8] + bytes(8) + page[27 * 8 :]
    found = set()
    for cut in range(len(content) + 1):
        for old in list_segments(slot_dir):
            old.unlink()
        path.write_bytes(content[:cut])
        (slot_dir / "page").write_bytes(page)
        rows, sums = _recovered(folder, slot_dir)
        assert rows == list(range(1, len(rows) + 1))
        assert sum(count for outcome, count in sums.items() if outcome.startswith("seen")) == 5
        assert sum(count for outcome, count in sums.items() if outcome.startswith("kept")) == len(rows)
        assert sums.get(f"lost/{LossCause.CRASH_IN_FLIGHT}", 0) == 5 - len(rows)
        found.add(len(rows))
    assert found == {0, 1, 2, 3, 4, 5}


@pytest.mark.parametrize("dies", ["between segments", "after a ledger frame", "before a ledger frame"])
def test_a_killed_adopter_counts_nothing_twice(
    folder: SpoolFolder, make_writer: MakeWriter, clock: Any, run_until_killed: RunUntilKilled, dies: str
) -> None:
    """Whatever system call an adopter dies at, the next one ends with the same account, in as many segments."""
    number = 0
    killed = True
    while killed:
        number += 1
        writer = make_writer()
        _append(writer, clock, 1, 2)
        writer.flush()
        if dies == "between segments":
            writer.seal()
        elif dies == "before a ledger frame":
            writer.counters[LEDGERED] = 0
        writer.counters[SEEN] += 1
        slot_dir = _die(writer)
        if dies == "before a ledger frame":
            _cut_last_frame(list_segments(slot_dir, OPEN)[0])

        def adopt_it(spool_id: str = slot_dir.name) -> None:
            adopt(folder, spool_id)

        killed = run_until_killed(number, adopt_it)
        rows, sums = _recovered(folder, slot_dir)
        assert rows == [1, 2]
        assert sums.get("seen", 0) + sums.get("seen/recovered", 0) == 2
        assert (sums["seen/crash_in_flight"], sums["lost/crash_in_flight"]) == (1, 1)
        assert len(list_segments(slot_dir)) == (2 if dies == "between segments" else 1)
    assert number > 20


def test_an_empty_orphan_is_removed_with_its_cursors(
    folder: SpoolFolder, make_writer: MakeWriter, clock: Any, run_until_killed: RunUntilKilled
) -> None:
    """Only once it holds no segments; and a removal that was killed half-way is finished by the sweep."""
    number = 0
    killed = True
    while killed:
        number += 1
        writer = make_writer()
        _append(writer, clock, 1)
        writer.flush()
        slot_dir = _die(writer)
        Cursors(slot_dir.name, {"table": 1}).save(folder)
        adopted = adopt(folder, slot_dir.name)
        assert adopted is not None
        with pytest.raises(SpoolError, match="still holds"):
            adopted.remove()
        for path in list_segments(slot_dir):
            path.unlink()
        killed = run_until_killed(number, adopted.remove)
        if slot_dir.exists():
            adopted.remove()
        sweep(folder)
        assert os.listdir(folder.slots_dir) == []
        adopted.close()
        folder.cursor(slot_dir.name).unlink(missing_ok=True)
    assert number > 10
    assert os.listdir(folder.cursors_dir) == []


def test_a_newer_open_segment_is_left_alone(folder: SpoolFolder, make_writer: MakeWriter, clock: Any) -> None:
    """An older drainer neither cuts nor seals what it cannot read; a newer schema in known frames is no obstacle."""
    slot_dir = _die(make_writer())
    newer = bytearray(encode(Kind.OPEN, b"\x80"))
    newer[4] = 2
    newer[12:16] = xxhash.xxh32_intdigest(bytes(newer[:12])).to_bytes(4, "little")
    path = segment_path(slot_dir, 1, OPEN)
    path.write_bytes(bytes(newer) + b"more")
    assert adopt(folder, slot_dir.name) is None
    assert path.read_bytes() == bytes(newer) + b"more"
    path.write_bytes(encode(Kind.OPEN, pack({"schema_version": SCHEMA_VERSION + 1})))
    adopted = adopt(folder, slot_dir.name)
    assert adopted is not None
    adopted.close()


def test_a_slot_without_a_page_keeps_its_rows(folder: SpoolFolder, make_writer: MakeWriter, clock: Any) -> None:
    """A damaged page costs the count of what was in flight, nothing else."""
    writer = make_writer()
    _append(writer, clock, 1)
    writer.flush()
    slot_dir = _die(writer)
    (slot_dir / "page").write_bytes(b"short")
    assert _recovered(folder, slot_dir) == ([1], {"seen": 1, "kept": 1})


def test_the_sweep_spares_what_is_young_or_held(
    folder: SpoolFolder, clock: Any, start_child: Callable[..., int], tmp_path: Path
) -> None:
    """Half-made slots go when they are old and nobody holds them; abandoned temporary files go when old."""
    for name in ("young", "old", "held", "lockless"):
        folder.slot_dir(f".new-{name}").mkdir()
    for name in ("young", "old"):
        (folder.slot_dir(f".new-{name}") / "lock").touch()
    held = FileLock.try_acquire(folder.slot_dir(".new-held") / "lock")
    assert held is not None
    folder.slot_dir(".dead-aa").mkdir()
    (folder.slot_dir(".dead-aa") / "reserve").touch()
    for name in (".aa.json.1.tmp", ".bb.json.2.tmp"):
        (folder.cursors_dir / name).touch()
    for path in (
        *(folder.slot_dir(f".new-{name}") for name in ("old", "held", "lockless")),
        folder.cursors_dir / ".aa.json.1.tmp",
    ):
        os.utime(path, (1, 1))
    sweep(folder)
    assert sorted(os.listdir(folder.slots_dir)) == [".new-held", ".new-young"]
    assert os.listdir(folder.cursors_dir) == [".bb.json.2.tmp"]
    held.close()
    sweep(SpoolFolder(tmp_path / "gone"))


def test_an_owner_killed_by_the_kernel_is_an_orphan_at_once(
    folder: SpoolFolder, make_writer: MakeWriter, clock: Any, start_child: Callable[..., int]
) -> None:
    """A real process, really killed: its slot is adopted right after it, with every acknowledged row."""
    acknowledged, acknowledge = os.pipe()

    def own() -> None:
        writer = make_writer()
        _append(writer, clock, 1, 2, 3)
        writer.flush()
        writer.counters[SEEN] += 1
        os.write(acknowledge, b"!")
        signal.pause()

    pid = start_child(own)
    assert os.read(acknowledged, 1) == b"!"
    (spool_id,) = folder.slot_ids()
    assert adopt(folder, spool_id) is None
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    rows, sums = _recovered(folder, folder.slot_dir(spool_id))
    assert (rows, sums["lost/crash_in_flight"]) == ([1, 2, 3], 1)
    os.close(acknowledged)
    os.close(acknowledge)
