"""The loop in this process: destinations that fail alone, the cap, damage, newer formats, and how it ends."""

import json
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

from infertap.clock import SystemClock
from infertap.drain.end import End
from infertap.drain.poison import PoisonSearch
from infertap.drain.state import DrainerState
from infertap.record import SCHEMA_VERSION
from infertap.spool.frames import Kind, encode, pack
from infertap.spool.lock import FileLock

WaitFor = Callable[..., Any]


def test_orphans_are_delivered_and_removed(bench: Any) -> None:
    """What dead owners left is delivered, and their slots and cursors are gone when the drainer leaves."""
    bench.spool(["a"], ["b", "c"]).close()
    bench.spool(["d"]).close()
    assert bench.drainer().run() is End.IDLE
    assert bench.rows() == ["a", "b", "c", "d"]
    assert bench.folder.slot_ids() == []
    assert list(bench.folder.cursors_dir.iterdir()) == []
    assert bench.is_drained_by_nobody()
    assert bench.state().phase == "ended"


def test_a_delivery_that_the_cursor_missed_is_not_doubled(bench: Any) -> None:
    """A destination with transactions gets a segment again after a crash, and keeps it once."""
    writer = bench.spool(["a"])
    assert bench.drainer(follow=False).run() is End.ONE_PASS
    bench.folder.cursor(writer.slot.spool_id).unlink()
    (bench.folder.slot_dir(writer.slot.spool_id) / "000000000001.seg").write_bytes(_segment("a"))
    writer.close()
    assert bench.drainer().run() is End.IDLE
    assert bench.rows() == ["a"]


def test_one_commit_carries_many_slots(bench: Any) -> None:
    """A backlog of many small segments is delivered in one batch, not in one commit for each."""
    for number in range(10):
        bench.spool([f"r{number}"]).close()
    bench.drainer().run()
    assert len(bench.rows()) == 10
    assert bench.query("table", "SELECT segments FROM deliveries WHERE segments > 0") == [(10,)]


def test_a_batch_is_bounded_by_bytes(bench: Any) -> None:
    """No batch goes over `commit_bytes_max`, and a backlog of several goes out without waiting for the interval."""
    writer = bench.spool(*([f"r{number}"] for number in range(6)), body="x" * 1000)
    size_bytes = bench.segments()[0].stat().st_size
    writer.close()
    settings = bench.settings(commit_bytes_max=2 * size_bytes, commit_interval_s=600.0)
    bench.drainer(settings).run()
    assert bench.query("table", "SELECT segments FROM deliveries WHERE segments > 0") == [(2,), (2,), (2,)]


def test_a_dead_destination_does_not_hold_up_the_other(bench: Any) -> None:
    """Each has its own cursor and its own error; segments go when both have passed."""
    bench.control(otlp={"fail": "connection refused"})
    bench.spool(["a"], ["b"]).close()
    assert bench.drainer(bench.settings(both=True, drain_s=1.0)).run() is End.GAVE_UP
    assert bench.rows("table") == ["a", "b"]
    assert bench.rows("otlp") == []
    assert len(bench.segments()) == 2
    assert bench.state().destinations["otlp"].last_error == "connection refused"
    assert bench.state().destinations["otlp"].waiting_segments == 2
    assert bench.state().destinations["table"].last_error == ""
    bench.control()
    assert bench.drainer(bench.settings(both=True)).run() is End.IDLE
    assert bench.rows("table") == bench.rows("otlp") == ["a", "b"]
    assert bench.segments() == []


def test_the_cap_skips_the_oldest_for_the_one_that_is_behind(bench: Any) -> None:
    """Over the cap, the dead destination loses the oldest records, counted by minute; the other one loses none."""
    bench.control(otlp={"fail": "connection refused"})
    bench.spool(["a", "b"], body="x" * 2000, minute=7).close()
    bench.spool(["c"], body="x" * 2000, minute=8).close()
    size_bytes = sum(path.stat().st_size for path in bench.segments())
    settings = bench.settings(both=True, drain_s=1.0, spool_bytes_max=size_bytes - 100)
    assert bench.drainer(settings).run() is End.GAVE_UP
    assert bench.rows("table") == ["a", "b", "c"]
    assert bench.state().destinations["otlp"].counts == {"lost/spool_full": 2}
    assert bench.state().destinations["table"].counts == {}
    bench.control()
    assert bench.drainer(bench.settings(both=True)).run() is End.IDLE
    assert bench.rows("otlp") == ["c"]
    reported = [json.loads(counts) for (counts,) in bench.query("table", "SELECT counts FROM outcomes")]
    assert [counts for counts in reported if counts.get("7|otlp|lost|spool_full") == 2]


def test_damaged_frames_are_counted(bench: Any) -> None:
    """A flipped bit costs the frame it hits; the count reaches the destination's ledger."""
    writer = bench.spool(["a", "b"], minute=9)
    (path,) = bench.segments()
    content = bytearray(path.read_bytes())
    content[content.index(b"request_id\xa1a") + len("request_id") + 1] ^= 0xFF
    path.write_bytes(content)
    writer.close()
    assert bench.drainer().run() is End.IDLE
    assert bench.rows() == ["b"]
    assert bench.state().destinations["table"].counts == {"lost/damaged": 1}
    assert bench.query("table", "SELECT counts FROM outcomes") == [('{"9|table|lost|damaged": 1}',)]


def test_frames_of_unknown_kinds_are_parked(bench: Any) -> None:
    """A frame that a newer process wrote under the same format is kept, and does not hold up the rest."""
    writer = bench.spool(["a"])
    (path,) = bench.segments()
    with path.open("ab") as file:
        file.write(encode(77, b"from the future"))
    writer.close()
    assert bench.drainer().run() is End.IDLE
    assert bench.rows() == ["a"]
    (parked,) = bench.folder.parked_dir.iterdir()
    assert json.loads(parked.read_text()) == {"kind": 77, "payload_hex": b"from the future".hex()}
    assert parked.stat().st_mode & 0o777 == 0o600
    assert bench.state().parked_frames == 1


def test_segments_of_a_newer_version_stay_in_place(bench: Any) -> None:
    """They and the later ones of their slot wait for a newer drainer; they are counted and do not keep this one."""
    writer = bench.spool(["a"], ["b"], ["c"])
    middle = bench.segments()[1]
    header = {"spool_id": writer.slot.spool_id, "segment_no": 2, "schema_version": SCHEMA_VERSION + 1}
    middle.write_bytes(encode(Kind.OPEN, pack(header)))
    writer.close()
    assert bench.drainer().run() is End.IDLE
    assert bench.rows() == ["a"]
    assert [path.name for path in bench.segments()] == ["000000000002.seg", "000000000003.seg"]
    assert bench.state().unsupported_segments == 2


@pytest.mark.parametrize("late", [True, False])
def test_who_comes_in_the_end_gap_is_seen(bench: Any, late: bool) -> None:
    """An owner that arrives between letting the lock go and the last look is served by the same drainer."""
    arrivals: list[Any] = []

    class SlowToLetGo(FileLock):
        def close(self) -> None:
            was_held = self.fileno() >= 0
            if late:
                super().close()
            if was_held and not arrivals:
                arrivals.append(bench.spool(["late"]))
                arrivals[0].close()
            super().close()

    bench.spool(["early"]).close()
    lock = SlowToLetGo.try_acquire(bench.folder.drainer_lock)
    assert bench.drainer(lock=lock).run() is End.IDLE
    assert bench.rows() == ["early", "late"]
    assert bench.is_drained_by_nobody()


def test_in_the_end_gap_the_lock_may_go_to_another(bench: Any) -> None:
    """If somebody else takes the lock in the gap, the drainer leaves what is there to that one."""
    others: list[Any] = []

    class Stolen(FileLock):
        def close(self) -> None:
            super().close()
            if not others:
                others.append(FileLock.try_acquire(self.path))
                others.append(bench.spool(["late"]))

    lock = Stolen.try_acquire(bench.folder.drainer_lock)
    assert bench.drainer(lock=lock).run() is End.IDLE
    assert bench.rows() == []
    others[0].close()
    others[1].close()


def test_a_flush_request_is_answered_after_delivery(bench: Any, wait_for: WaitFor) -> None:
    """Neither interval nor back-off counts then; the request stays until everything is delivered, and goes then."""
    bench.control(table={"fail": "not now"})
    writer = bench.spool(["a"])
    slot_dir = writer.slot.path
    drainer = bench.drainer(bench.settings(commit_interval_s=600.0))
    thread = threading.Thread(target=drainer.run)
    thread.start()
    wait_for(lambda: "table" in bench.state().destinations and bench.state().destinations["table"].last_error)
    writer.slot.request_flush()
    bench.folder.ring()
    wait_for((slot_dir / "flush_failed").exists)
    assert (slot_dir / "flush").exists()
    bench.control()
    wait_for(lambda: bench.rows() == ["a"])
    wait_for(lambda: not (slot_dir / "flush").exists() and not (slot_dir / "flush_failed").exists())
    writer.close()
    thread.join(100)


def test_a_long_life_forgives_earlier_deaths(bench: Any) -> None:
    """After a minute without dying the count of deaths starts again, also where nothing was to be delivered."""

    class AMinuteLater(SystemClock):
        looks = 0

        def monotonic_s(self) -> float:
            self.looks += 1
            return super().monotonic_s() + (0 if self.looks < 2 else 61)

    writer = bench.spool()
    DrainerState(failures=4).save(bench.folder.drainer_state)
    bench.clock = AMinuteLater()
    drainer = bench.drainer(resident_bytes=lambda: 1 << 40)
    assert drainer.run() is End.MEMORY
    assert bench.state().failures == 0
    writer.close()


def test_it_leaves_when_it_has_grown(bench: Any) -> None:
    """Over `resident_bytes_max` it ends between two deliveries, owners or not; the next tick starts a fresh one."""
    writer = bench.spool(["a"])
    drainer = bench.drainer(bench.settings(resident_bytes_max=1000), resident_bytes=lambda: 1001)
    assert drainer.run() is End.MEMORY
    assert bench.rows() == ["a"]
    writer.close()


def test_a_second_stop_leaves_at_once(bench: Any, wait_for: WaitFor) -> None:
    """Asked once, it waits for owners; asked twice, it leaves although one lives."""
    writer = bench.spool(["a"])
    ends: list[End] = []
    drainer = bench.drainer(bench.settings(commit_interval_s=600.0))
    thread = threading.Thread(target=lambda: ends.append(drainer.run()))
    thread.start()
    wait_for(lambda: bench.rows() == ["a"])
    bench.stop.request()
    wait_for(lambda: bench.state().phase == "running")
    assert thread.is_alive()
    bench.stop.request()
    thread.join(100)
    assert ends == [End.STOPPED]
    writer.close()


def test_rows_that_break_the_destination_are_parked_alone(bench: Any) -> None:
    """An unexpected exception is traced to its row by rehearsals; the row is parked and counted, the rest arrives."""
    bench.control(table={"raise_on": "bad"})
    bench.spool(["b", "bad", "c"], ["d"], minute=5).close()
    settings = bench.settings(drain_s=100.0)
    assert bench.drainer(settings, poison=PoisonSearch(_runner(bench), settings)).run() is End.IDLE
    assert bench.rows() == ["b", "c", "d"]
    (parked,) = bench.folder.parked_dir.iterdir()
    assert json.loads(parked.read_text())["row"]["request_id"] == "bad"
    assert bench.state().destinations["table"].counts == {"lost/parked": 1}
    assert bench.query("table", "SELECT counts FROM outcomes") == [('{"5|table|lost|parked": 1}',)]


def test_segments_that_are_refused_for_ever_are_parked_alone(bench: Any) -> None:
    """A destination that refuses a batch and cannot say why gets halves, until what is refused stands alone."""
    bench.control(table={"refuse_on": "bad"})
    bench.spool(["a"], ["bad", "b"], ["c"]).close()
    assert bench.drainer(bench.settings(drain_s=100.0)).run() is End.IDLE
    assert bench.rows() == ["a", "c"]
    (parked,) = bench.folder.parked_dir.iterdir()
    assert [json.loads(line)["row"]["request_id"] for line in parked.read_text().splitlines()] == ["bad", "b"]


def test_a_library_that_always_fails_parks_nothing(bench: Any) -> None:
    """Where even an empty segment fails in rehearsal, no row is to blame: everything stays in the spool."""
    bench.spool(["a"]).close()
    settings = bench.settings(drain_s=3.0)
    drainer = bench.drainer(settings, poison=PoisonSearch(_runner(bench), settings))
    bench.control(table={"raise_on": "a"}, process={"die_at": "open"})
    assert drainer.run() is End.GAVE_UP
    assert len(bench.segments()) == 1
    assert list(bench.folder.parked_dir.glob("*.jsonl")) == []


def test_a_destination_that_comes_back_is_served(bench: Any, wait_for: WaitFor) -> None:
    """A destination that comes back is served by the same drainer, within its own back-off."""
    bench.control(table={"fail": "not now"})
    bench.spool(["a"]).close()
    drainer = bench.drainer(bench.settings(drain_s=100.0))
    thread = threading.Thread(target=drainer.run)
    thread.start()
    wait_for(lambda: "table" in bench.state().destinations and bench.state().destinations["table"].last_error)
    bench.control()
    thread.join(100)
    assert not thread.is_alive()
    assert bench.rows() == ["a"]


def _segment(request_id: str) -> bytes:
    return encode(Kind.OPEN, pack({"schema_version": SCHEMA_VERSION})) + encode(
        Kind.REQUEST, pack({"request_id": request_id, "request_time": 0})
    )


def _runner(bench: Any) -> tuple[str, ...]:
    return (sys.executable, "-P", str(bench.module.__file__))
