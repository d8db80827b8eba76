"""Draining in a thread of the owner."""

from collections.abc import Callable
from typing import Any

from infertap.clock import SystemClock
from infertap.drain.election import DrainerElection
from infertap.drain.thread import ThreadDrainer

WaitFor = Callable[..., Any]


def test_a_thread_drains_and_stops_with_its_owner(bench: Any, wait_for: WaitFor) -> None:
    """The election hands the lock to the thread; a stop waits for delivery, and the lock is free afterwards."""
    settings = bench.settings(commit_interval_s=600.0)
    writer = bench.spool(["a"])
    thread = ThreadDrainer(settings, bench.module.build)
    election = DrainerElection(
        bench.folder, settings, owner=writer, clock=SystemClock(), mode="thread", start_thread=thread.start
    )
    before = election.drainer_lives()
    election.tick()
    wait_for(lambda: bench.rows() == ["a"])
    assert (before, election.drainer_lives()) == (False, True)
    other = bench.spool(["b"])
    assert election.flush_and_wait(other, deadline_s=100.0).segments == 0
    assert bench.rows() == ["a", "b"]
    other.close()
    writer.close()
    thread.close(deadline_s=100.0)
    election.close()
    assert bench.is_drained_by_nobody()
    assert not DrainerElection(bench.folder, settings, owner=writer, clock=SystemClock()).drainer_lives()
    assert bench.spawns() == 0


def test_a_dead_thread_is_counted_and_not_started_again_at_once(bench: Any, wait_for: WaitFor) -> None:
    """What ends the thread is logged, `drainer.json` counts it, and the next start waits, but for a new process."""
    starts: list[int] = []

    def build(_settings: object) -> list[Any]:
        starts.append(1)
        raise BaseException("no such library")

    class Stopped(SystemClock):
        """The wait before the next start never ends."""

        def wall_ns(self) -> int:
            return 1_700_000_000 * 10**9

    settings = bench.settings()
    writer = bench.spool(["a"])
    thread = ThreadDrainer(settings, build)
    election = DrainerElection(
        bench.folder, settings, owner=writer, clock=Stopped(), mode="thread", start_thread=thread.start
    )
    election.tick()
    wait_for(bench.is_drained_by_nobody)
    election.tick()
    election.tick()
    assert bench.state().phase == "crashed"
    assert bench.state().failures == 1
    assert len(starts) == 1
    # Somebody has started another process, perhaps to mend what was wrong: it tries at once, and waits then.
    newer = DrainerElection(
        bench.folder, settings, owner=writer, clock=Stopped(), mode="thread", start_thread=thread.start
    )
    newer.tick()
    wait_for(lambda: len(starts) == 2 and bench.is_drained_by_nobody())
    for _ in range(3):
        newer.tick()
    assert (len(starts), bench.state().failures) == (2, 2)
    writer.close()
    newer.close()
    election.close()


def test_without_a_process_or_a_thread_the_rows_stay(bench: Any, caplog: Any) -> None:
    """It is said once, and nothing is counted as a crash."""
    writer = bench.spool(["a"])
    election = DrainerElection(bench.folder, bench.settings(), owner=writer, clock=SystemClock(), mode="thread")
    for _ in range(3):
        election.tick()
    assert caplog.messages == ["no drainer can be started here: records stay in the spool until `infertap drain`"]
    assert bench.state().failures == 0
    assert bench.is_drained_by_nobody()
    writer.close()
    election.close()


def test_an_executable_that_is_gone_leads_to_a_thread(bench: Any, wait_for: WaitFor) -> None:
    """A venv deleted under the app: no process can be started, so a thread of the owner drains."""
    settings = bench.settings()
    writer = bench.spool(["a"])
    thread = ThreadDrainer(settings, bench.module.build)
    election = DrainerElection(
        bench.folder,
        settings,
        owner=writer,
        clock=SystemClock(),
        command=["/nonexistent/bin/python"],
        start_thread=thread.start,
    )
    election.tick()
    wait_for(lambda: bench.rows() == ["a"])
    writer.close()
    thread.close(deadline_s=100.0)
    election.close()


def test_an_owner_knows_what_was_lost_behind_the_spool(bench: Any) -> None:
    """What it has spooled and the drainer could not read is no delivered request: the last line at a stop says so."""
    writer = bench.spool(["a", "b"])
    (path,) = bench.segments()
    content = bytearray(path.read_bytes())
    content[content.rindex(b"request_time")] ^= 1
    path.write_bytes(content)
    bench.drainer(follow=False).run()
    assert bench.rows() == ["a"]
    election = DrainerElection(bench.folder, bench.settings(), owner=writer, clock=SystemClock(), mode="external")
    assert election.lost_behind(writer) == {"table damaged": 1}
    writer.close()
    assert election.lost_behind(writer) == {}
    election.close()
