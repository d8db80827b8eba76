"""What one drainer leaves to the next: deaths counted, a wait that all owners share, counters that go on."""

import secrets

from infertap.drain.settings import DrainerSettings
from infertap.drain.state import DrainerState, Phase
from infertap.spool.boot import boot_id

RETRY_S_MAX = 60
_NS = 10**9


def count_death(state: DrainerState, now_ns: int) -> bool:
    """Whether the state is that of a drainer which died; then the failure and the wait are in it, to be saved.

    Only under the lock: a state that says `starting` or `running` while the lock is free is a dead one's.
    """
    if state.phase not in (Phase.STARTING, Phase.RUNNING):
        return False
    if state.boot_id != boot_id():
        # The machine went down, or the folder came from another one: nobody's fault.
        state.failures = 0
        return False
    state.failures += 1
    state.phase = Phase.CRASHED
    state.retry_at_ns = now_ns + min(RETRY_S_MAX, 2**state.failures - 1) * _NS
    return True


def is_backing_off(state: DrainerState, now_ns: int) -> bool:
    """Whether it is too early for the next one."""
    left_ns = state.retry_at_ns - now_ns
    # More than the longest wait means that the wall clock was set back.
    return state.phase is Phase.CRASHED and state.boot_id == boot_id() and 0 < left_ns <= RETRY_S_MAX * _NS


def successor(
    previous: DrainerState, settings: DrainerSettings, *, slot: str, now_ns: int, pid: int = 0
) -> DrainerState:
    """The state in which the next drainer starts.

    Args:
        settings: What it will be told.
        slot: The spawner's; empty where no owner starts it.
        pid: 0 for a process that is still to be started.
    """
    nonce = secrets.token_hex(8)
    return DrainerState(
        phase=Phase.STARTING,
        nonce=nonce,
        pid=pid,
        version=settings.version,
        born_ns=settings.owner_born_ns,
        hash16=settings.hash16(nonce),
        service_name=settings.service_name,
        slot=slot,
        boot_id=boot_id(),
        started_ns=now_ns,
        failures=previous.failures,
        destinations=previous.destinations,
    )
