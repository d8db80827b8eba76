"""Deaths and the shared wait, with times given."""

from pathlib import Path

import pytest

from infertap.drain.settings import DrainerSettings
from infertap.drain.state import DestinationStatus, DrainerState, Phase
from infertap.drain.succession import count_death, is_backing_off, successor
from infertap.spool.boot import boot_id
from infertap.targets import Targets

NS = 10**9


def test_the_wait_grows_to_a_minute() -> None:
    """1, 3, 7, 15, 31 and then 60 s after deaths in a row."""
    state = DrainerState(boot_id=boot_id())
    waits = []
    for _ in range(8):
        state.phase = Phase.RUNNING
        assert count_death(state, 1000 * NS)
        waits.append(state.retry_at_ns // NS - 1000)
    assert waits == [1, 3, 7, 15, 31, 60, 60, 60]


@pytest.mark.parametrize("phase", [Phase.NONE, Phase.ENDED, Phase.CRASHED])
def test_only_a_living_phase_can_have_died(phase: Phase) -> None:
    """One that ended, never was, or was counted already is not counted again."""
    state = DrainerState(phase=phase, boot_id=boot_id(), failures=1)
    assert not count_death(state, 0)
    assert state.failures == 1


def test_a_reboot_is_no_death() -> None:
    """A folder on a volume meets other machines; their ends are nobody's failures."""
    state = DrainerState(phase=Phase.RUNNING, boot_id="another", failures=5)
    assert not count_death(state, 0)
    assert state.failures == 0


def test_the_wait_ends_and_a_clock_that_was_set_back_does_not_prolong_it() -> None:
    """It is wall time, because it is shared; nobody waits longer than a minute for it."""
    state = DrainerState(phase=Phase.CRASHED, boot_id=boot_id(), retry_at_ns=1000 * NS)
    assert is_backing_off(state, 990 * NS)
    assert not is_backing_off(state, 1000 * NS)
    assert not is_backing_off(state, 100 * NS)


def test_counters_and_failures_go_on() -> None:
    """The next drainer starts from what the last one had counted, under a nonce of its own."""
    previous = DrainerState(nonce="old", failures=2, destinations={"table": DestinationStatus(records=7)})
    settings = DrainerSettings(folder=Path("/f"), targets=Targets(), owner_born_ns=5, service_name="svc")
    state = successor(previous, settings, slot="ab", now_ns=9)
    assert (state.phase, state.failures, state.destinations["table"].records) == (Phase.STARTING, 2, 7)
    assert (state.slot, state.born_ns, state.service_name, state.pid) == ("ab", 5, "svc", 0)
    assert state.nonce not in ("", "old")
    assert state.hash16 == settings.hash16(state.nonce)
