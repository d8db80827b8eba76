"""Owners and drainers as real processes: who starts one, when, and what happens when it dies."""

import contextlib
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from infertap.clock import SystemClock
from infertap.drain.election import DrainerElection
from infertap.drain.spawn import CHILD_MARKER
from infertap.spool.lock import FileLock

RUNNER = (sys.executable, "-P", str(Path(__file__).with_name("sqlite_destination.py")))

WaitFor = Callable[..., Any]


def test_rows_of_an_owner_are_delivered_by_a_process_it_started(bench: Any, wait_for: WaitFor) -> None:
    """An owner's ticks start a drainer, which delivers what the owner seals and says so in `drainer.json`."""
    owner = bench.owner()
    owner.tell(rows=["a", "b"])
    wait_for(lambda: bench.rows() == ["a", "b"])
    wait_for(lambda: "table" in bench.state().destinations and bench.state().destinations["table"].records == 2)
    assert bench.state().pid not in (0, owner.process.pid)


def test_a_stop_waits_until_its_rows_are_delivered(bench: Any, wait_for: WaitFor) -> None:
    """`flush_and_wait` returns 0 only when everything is in the table, long before the next commit is due."""
    owner = bench.owner(bench.settings(commit_interval_s=600.0))
    owner.tell(rows=["a"])
    wait_for(lambda: bench.rows() == ["a"])
    owner.tell(rows=["b"])
    assert owner.tell(stop=100.0)["left"] == 0
    assert bench.rows() == ["a", "b"]
    wait_for(bench.is_drained_by_nobody)
    assert bench.state().phase == "ended"
    assert bench.folder.slot_ids() == []


def test_eight_owners_at_once_start_one_drainer(bench: Any, wait_for: WaitFor) -> None:
    """The one that finds the lock free hands it down, so the others never see it free."""
    owners = [bench.owner(ticks=False) for _ in range(8)]
    for number, owner in enumerate(owners):
        assert owner.process.stdin is not None
        owner.process.stdin.write(b'{"tick": 1, "rows": ["r%d"]}\n' % number)
        owner.process.stdin.flush()
    wait_for(lambda: len(bench.rows()) == 8)
    assert bench.spawns() == 1


@pytest.mark.parametrize("place", ["import", "open", "before_commit", "after_commit"])
def test_a_drainer_killed_in_any_state_is_replaced(bench: Any, wait_for: WaitFor, place: str) -> None:
    """Wherever the drainer dies, the next one delivers every row once, and the death was counted."""
    bench.control(process={"die_at": place})
    owner = bench.owner()
    owner.tell(rows=["a", "b"])
    wait_for(lambda: bench.state().failures >= 1)
    bench.control()
    owner.tell(rows=["c"])
    wait_for(lambda: bench.rows() == ["a", "b", "c"])
    wait_for(lambda: bench.state().failures == 0)


def test_owners_share_the_wait_after_crashes(bench: Any, wait_for: WaitFor) -> None:
    """Four owners and a drainer that dies at once: one start for each counted death, not one for each owner."""
    bench.control(process={"die_at": "import"})
    for _ in range(4):
        bench.owner(tick_s=0.05)
    wait_for(lambda: bench.state().failures >= 2)
    before = bench.state().failures
    spawns = bench.spawns()
    # One more may have been started than died; four owners without a shared wait would have started dozens.
    assert before <= spawns <= bench.state().failures + 1


def test_corrected_settings_take_over(bench: Any, wait_for: WaitFor) -> None:
    """A newer owner's credentials replace those of a running drainer, once, and both owners' rows arrive."""
    old = bench.owner(bench.settings(key="wrong"))
    old.tell(rows=["a"])
    wait_for(lambda: "table" in bench.state().destinations and bench.state().destinations["table"].last_error)
    new = bench.owner(bench.settings())
    new.tell(rows=["b"])
    wait_for(lambda: bench.rows() == ["a", "b"])
    for _ in range(5):
        old.tell(tick=1)
        new.tell(tick=1)
    assert bench.spawns() == 2
    assert bench.state().slot == new.slot


def test_an_older_owner_does_not_take_the_drainer_back(bench: Any, wait_for: WaitFor) -> None:
    """Two living owners with different settings cost one change of drainer, not one each second."""
    first = bench.owner(bench.settings(commit_interval_s=0.2))
    first.tell(rows=["a"])
    wait_for(lambda: bench.rows() == ["a"])
    second = bench.owner(bench.settings(commit_interval_s=0.3))
    wait_for(lambda: bench.state().slot == second.slot and bench.state().phase == "running")
    for number in range(20):
        first.tell(tick=1)
        second.tell(tick=1, rows=[f"b{number:02}"])
    wait_for(lambda: len(bench.rows()) == 21)
    assert bench.spawns() == 2


def test_the_error_that_is_published_holds_no_credential(bench: Any, wait_for: WaitFor) -> None:
    """A destination that quotes the key in its error does not get it into the folder."""
    owner = bench.owner(bench.settings(key="sk-very-secret"))
    owner.tell(rows=["a"])
    wait_for(lambda: "table" in bench.state().destinations and bench.state().destinations["table"].last_error)
    assert "401" in bench.state().destinations["table"].last_error
    for path in bench.folder.path.rglob("*"):
        # Owner and drainer go on working: what is replaced meanwhile was looked at, or will be.
        with contextlib.suppress(FileNotFoundError):
            assert not path.is_file() or b"very-secret" not in path.read_bytes(), path


def test_a_stop_in_a_terminal_does_not_wait_for_a_dead_destination(bench: Any, wait_for: WaitFor) -> None:
    """The drainer leaves the reason; with a person waiting, the owner goes after two seconds."""
    bench.control(table={"fail": "connection refused"})
    owner = bench.owner(bench.settings(drain_s=0.0), on_terminal=True)
    owner.tell(rows=["a"])
    assert owner.tell(stop=600.0)["left"] == 1
    assert "connection refused" in (bench.folder.slot_dir(owner.slot) / "flush_failed").read_text()
    assert bench.rows() == []


def test_the_rows_of_killed_owners_are_delivered(bench: Any, wait_for: WaitFor) -> None:
    """The drainer outlives its owners, adopts their slots, delivers, removes the slots and leaves."""
    owners = [bench.owner(bench.settings(commit_interval_s=600.0)) for _ in range(2)]
    owners[0].tell(rows=["a"])
    wait_for(lambda: bench.rows() == ["a"])
    owners[0].tell(rows=["b"])
    owners[1].tell(rows=["c"])
    for owner in owners:
        owner.kill()
    wait_for(lambda: bench.rows() == ["a", "b", "c"])
    wait_for(bench.is_drained_by_nobody)
    assert bench.folder.slot_ids() == []
    assert list(bench.folder.cursors_dir.iterdir()) == []


def test_a_deleted_folder_ends_the_drainer_and_stays_deleted(bench: Any, wait_for: WaitFor) -> None:
    """Within a look the drainer is gone, and nothing has been made again."""
    owner = bench.owner()
    owner.tell(rows=["a"])
    wait_for(lambda: bench.rows() == ["a"])
    pid = bench.state().pid
    # Under another name first: removing a tree in which somebody works is no single step.
    moved = bench.folder.path.with_name("moved")
    bench.folder.path.rename(moved)
    shutil.rmtree(moved, ignore_errors=True)
    wait_for(lambda: not _lives(pid))
    assert not bench.folder.path.exists()
    bench.folder.prepare({})


def test_a_fork_of_the_owner_keeps_neither_lock(bench: Any, wait_for: WaitFor) -> None:
    """A forked child that lives on holds neither the drainer's lock nor its parent's slot."""
    owner = bench.owner()
    owner.tell(tick=1, fork_s=30)
    owner.tell(rows=["a"])
    wait_for(lambda: bench.rows() == ["a"])
    bench.kill_drainer()
    owner.kill()
    wait_for(bench.is_drained_by_nobody)
    successor = bench.owner()
    wait_for(lambda: bench.folder.slot_ids() == [successor.slot])


def test_blocked_and_ignored_signals_are_not_inherited(bench: Any, wait_for: WaitFor) -> None:
    """An owner that blocks SIGTERM and ignores SIGCHLD gets a drainer that takes both."""
    bench.owner(blocked_signals=["SIGTERM", "SIGUSR1"], ignored_signals=["SIGCHLD"])
    pid = wait_for(lambda: bench.state().phase == "running" and bench.state().pid)
    masks = dict(
        line.split(":\t") for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("Sig")
    )
    assert int(masks["SigBlk"], 16) == 0
    assert not int(masks["SigIgn"], 16) >> (signal.SIGCHLD - 1) & 1
    assert int(masks["SigCgt"], 16) >> (signal.SIGTERM - 1) & 1


def test_a_terminated_drainer_delivers_first(bench: Any, wait_for: WaitFor) -> None:
    """A service manager signals app and drainer together: the drainer waits for the app's last rows."""
    owner = bench.owner(bench.settings(commit_interval_s=600.0))
    pid = wait_for(lambda: bench.state().phase == "running" and bench.state().pid)
    os.kill(pid, signal.SIGTERM)
    owner.tell(rows=["a"])
    assert owner.tell(stop=100.0)["left"] == 0
    assert bench.rows() == ["a"]
    assert bench.spawns() == 1
    wait_for(lambda: not _lives(pid))


def test_the_drainer_holds_none_of_the_apps_pipes(bench: Any, wait_for: WaitFor) -> None:
    """Who reads the app's output to its end does not wait for the drainer, which is still there."""
    owner = bench.owner(bench.settings(linger_s=60.0))
    owner.tell(rows=["a"])
    assert owner.tell(stop=100.0)["left"] == 0
    assert owner.process.stdout is not None
    assert owner.process.stdout.read() == b""
    assert not bench.is_drained_by_nobody()
    os.kill(bench.state().pid, signal.SIGTERM)


def test_owners_with_other_settings_are_warned(bench: Any, wait_for: WaitFor, caplog: pytest.LogCaptureFixture) -> None:
    """Two living services with different settings for one destination are both named."""
    owner = bench.owner(service_name="checkout")
    wait_for(lambda: bench.state().phase == "running")
    other = bench.spool()
    settings = bench.settings(drain_s=4.0, service_name="search", owner_born_ns=1)
    election = DrainerElection(bench.folder, settings, owner=other, clock=SystemClock())
    for _ in range(3):
        election.tick()
    (message,) = [message for message in caplog.messages if "different settings" in message]
    assert "checkout" in message
    assert "search" in message
    assert bench.state().slot == owner.slot
    election.close()
    other.close()


def test_a_drainer_never_starts_a_drainer(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """An app that finds itself started as a drainer's interpreter does nothing, or it would go on for ever."""
    monkeypatch.setenv(CHILD_MARKER, "1")
    writer = bench.spool(["a"])
    election = DrainerElection(bench.folder, bench.settings(), owner=writer, clock=SystemClock(), command=["false"])
    election.tick()
    assert not bench.folder.drainer_state.exists()
    writer.close()
    election.close()


def test_a_test_run_starts_nothing_before_something_waits(bench: Any, wait_for: WaitFor) -> None:
    """Under pytest an app that records nothing starts no process."""
    writer = bench.spool()
    election = DrainerElection(bench.folder, bench.settings(), owner=writer, clock=SystemClock(), command=RUNNER)
    election.tick()
    assert not bench.folder.drainer_state.exists()
    writer.close()
    sealed = bench.spool(["a"])
    election = DrainerElection(bench.folder, bench.settings(), owner=sealed, clock=SystemClock(), command=RUNNER)
    election.tick()
    wait_for(lambda: bench.rows() == ["a"])
    sealed.close()
    election.close()


def test_an_external_owner_starts_nothing(bench: Any) -> None:
    """With `drainer = "external"` the rows wait for somebody else."""
    owner = bench.owner(mode="external")
    owner.tell(rows=["a"])
    owner.tell(tick=1)
    assert owner.tell(stop=0.1)["left"] == 1
    assert bench.spawns() == 0
    assert not bench.folder.drainer_state.exists()


def test_an_external_owner_waits_for_nobody_where_nobody_drains(bench: Any) -> None:
    """A stop with a day to wait ends at once, and says how many wait and what delivers them."""
    owner = bench.owner(mode="external")
    owner.tell(rows=["a", "b"])
    waits = f"2 requests wait and nobody drains it; run `infertap drain {bench.folder.path}`"
    assert owner.tell(stop=86_400.0) == {"left": 1, "waits": waits}


def test_an_external_owner_waits_for_the_one_who_drains(bench: Any) -> None:
    """As long as it may, while somebody holds the lock; what is left then is that one's."""
    lock = FileLock.try_acquire(bench.folder.drainer_lock)
    assert lock is not None
    owner = bench.owner(mode="external")
    owner.tell(rows=["a"])
    before_s = time.monotonic()
    waits = f"1 request waits for the drainer of {bench.folder.path}"
    assert owner.tell(stop=3.0) == {"left": 1, "waits": waits}
    assert time.monotonic() - before_s >= 3.0
    lock.close()


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
