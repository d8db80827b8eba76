"""Owners that are killed anywhere: what was acknowledged is read back once, without gaps, and every count balances."""

import os
import random
import signal
import struct
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from infertap.spool.folder import SpoolFolder, list_segments
from infertap.spool.frames import Kind, pack
from infertap.spool.page import FINISHED, SEEN, PageView
from infertap.spool.reader import Segment, read_segment
from infertap.spool.recovery import adopt, sweep
from infertap.spool.writer import SpoolWriter

MakeWriter = Callable[..., SpoolWriter]
_ACK = struct.Struct("<8sQ")


class Books:
    """Everything that was drained, as a destination would see it."""

    def __init__(self, folder: SpoolFolder) -> None:
        self._folder = folder
        self.rows: dict[str, list[int]] = {}
        self.segment_nos: dict[str, list[int]] = {}
        self._counts: dict[str, dict[tuple[str, str], int]] = {}
        self._rows_by_minute: dict[str, Counter[str]] = {}
        self.seen: dict[str, int] = {}

    def drain(self) -> None:
        """One pass: adopts what is orphaned, reads and deletes what is sealed, removes what is empty."""
        sweep(self._folder)
        for spool_id in self._folder.slot_ids():
            orphan = adopt(self._folder, spool_id)
            for path in list_segments(self._folder.slot_dir(spool_id)):
                self._take(read_segment(path))
                path.unlink()
            if orphan is not None:
                self.seen[spool_id] = PageView.read(orphan.path / "page").seen
                orphan.remove()

    def _take(self, segment: Segment) -> None:
        assert segment.damaged == 0
        assert segment.header["spool_id"] == segment.spool_id
        self.segment_nos.setdefault(segment.spool_id, []).append(segment.segment_no)
        self.rows.setdefault(segment.spool_id, []).extend(row["sequence_no"] for row in segment.requests)
        by_minute = self._rows_by_minute.setdefault(segment.spool_id, Counter())
        by_minute.update(str(row["request_time"] // 60_000_000) for row in segment.requests)
        counts = self._counts.setdefault(segment.spool_id, {})
        for payload in segment.ledger:
            for minute, outcomes in payload["minutes"].items():
                counts.update({(minute, outcome): count for outcome, count in outcomes.items()})

    def check(self, acknowledged: dict[str, int]) -> None:
        """Compares with what the owners said; `acknowledged` holds each slot's highest acknowledged row."""
        assert set(acknowledged) <= set(self.rows)
        for spool_id, rows in self.rows.items():
            assert rows == list(range(1, len(rows) + 1))
            assert len(rows) >= acknowledged.get(spool_id, 0)
            numbers = self.segment_nos[spool_id]
            assert numbers == list(range(1, len(numbers) + 1))
        for spool_id, seen in self.seen.items():
            self._check_balance(spool_id, seen)

    def _check_balance(self, spool_id: str, seen: int) -> None:
        by_minute: dict[str, Counter[str]] = {}
        for (minute, outcome), count in self._counts.get(spool_id, {}).items():
            by_minute.setdefault(minute, Counter())[outcome.partition("/")[0]] += count
        for minute, sums in by_minute.items():
            assert sums["seen"] == sums["kept"] + sums["lost"]
            assert sums["kept"] == self._rows_by_minute[spool_id][minute]
        assert sum(sums["seen"] for sums in by_minute.values()) == seen


def _own(writer: SpoolWriter, clock: Any, acknowledge: int, groups: int | None) -> None:
    """An owner's life: groups of one to three rows, acknowledged after their flush."""
    number = group = 0
    while groups is None or group < groups:
        group += 1
        for _ in range(group % 3 + 1):
            number += 1
            writer.counters[SEEN] += 1
            payload = pack({"sequence_no": number, "request_time": clock.wall_ns() // 1000, "request": "x" * 300})
            writer.append([(Kind.REQUEST, payload)], minutes=[clock.minute])
            writer.counters[FINISHED] += 1
        writer.flush()
        assert writer.slot is not None
        os.write(acknowledge, _ACK.pack(bytes.fromhex(writer.slot.spool_id), number))
        clock.now_s += 7
        writer.tick()


def _read_acknowledged(fd: int, acknowledged: dict[str, int]) -> None:
    while True:
        try:
            data = os.read(fd, _ACK.size * 1000)
        except BlockingIOError:
            return
        if not data:
            return
        for raw, number in _ACK.iter_unpack(data):
            acknowledged[raw.hex()] = number


def test_an_owner_killed_at_each_of_its_system_calls(
    folder: SpoolFolder, make_writer: MakeWriter, clock: Any, run_until_killed: Callable[..., bool]
) -> None:
    """From the first `mkdir` to the last rename: half-made slots, unsynced groups, seals before the rename."""
    number = 0
    killed = True
    books, acknowledged = Books(folder), dict[str, int]()
    while killed:
        number += 1
        reader, writer_fd = os.pipe()

        def own(writer_fd: int = writer_fd) -> None:
            _own(make_writer(segment_bytes_max=1500), clock, writer_fd, groups=4)

        killed = run_until_killed(number, own)
        os.close(writer_fd)
        _read_acknowledged(reader, acknowledged)
        os.close(reader)
        books.drain()
    books.check(acknowledged)
    assert number > 80
    # Killed before the slot was visible: hidden remains, swept once they are old.
    for name in os.listdir(folder.slots_dir):
        assert name.startswith(".new-")
        os.utime(folder.slots_dir / name, (1, 1))
    books.drain()
    assert os.listdir(folder.slots_dir) == []
    assert os.listdir(folder.cursors_dir) == []


@pytest.mark.slow
def test_owners_killed_at_random_beside_a_drainer(
    folder: SpoolFolder, make_writer: MakeWriter, clock: Any, start_child: Callable[..., int]
) -> None:
    """Several owners at once, killed and replaced for 20 seconds while their segments are drained."""
    reader, writer_fd = os.pipe()
    os.set_blocking(reader, False)

    def own() -> None:
        # Half of the time by small segments, so that seals are hit as often as appends.
        _own(make_writer(segment_bytes_max=random.choice((2_000, 100_000))), clock, writer_fd, groups=None)

    owners = [start_child(own) for _ in range(4)]
    books, acknowledged = Books(folder), dict[str, int]()
    kills = 0
    start_s = time.monotonic()
    # On a busy machine twenty seconds may be too short for a single acknowledgement.
    while time.monotonic() < start_s + (20 if acknowledged else 180):
        victim = random.randrange(len(owners))
        os.kill(owners[victim], signal.SIGKILL)
        os.waitpid(owners[victim], 0)
        kills += 1
        owners[victim] = start_child(own)
        _read_acknowledged(reader, acknowledged)
        books.drain()
    for owner in owners:
        os.kill(owner, signal.SIGKILL)
        os.waitpid(owner, 0)
    os.close(writer_fd)
    _read_acknowledged(reader, acknowledged)
    os.close(reader)
    books.drain()
    books.check(acknowledged)
    assert kills > 0
    assert sum(acknowledged.values()) > 0
    assert [name for name in os.listdir(folder.slots_dir) if not name.startswith(".new-")] == []
