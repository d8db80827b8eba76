"""How a stopping owner has its last segments delivered, and waits for it."""

import contextlib
import time
from collections.abc import Callable
from pathlib import Path

from infertap.clock import Clock
from infertap.spool.folder import SpoolFolder
from infertap.spool.slot import Slot

_TICK_S = 0.1
_POLL_S = 0.005
_HOPE_S = 2.0
"""So long a stop waits without a word for a destination that fails."""
_ABSENT_WAIT_S = 1.0
"""An external drainer that is just being replaced by the next one holds no lock for a moment."""


def deliver_and_wait(
    folder: SpoolFolder,
    slot: Slot,
    *,
    tick: Callable[[], None],
    somebody_drains: Callable[[], bool],
    clock: Clock,
    deadline_s: float,
    on_terminal: bool,
    tell: Callable[[str], None],
) -> str:
    """Asks for the delivery of everything sealed in `slot`, and waits until it is gone or the time is up.

    Args:
        tick: Looks after the drainer meanwhile: the request may find none, or a dying one.
        somebody_drains: Whether there is anybody to wait for.
        deadline_s: Longest wait.
        on_terminal: A person waits: 2 s suffice once the drainer has said that it cannot deliver.
        tell: Says, after the same 2 s, why a stop that nobody watches takes longer.

    Returns:
        The reason that the drainer gave for what is left; empty if it gave none.

    Raises:
        OSError: The request could not be left.
    """
    failed = slot.path / "flush_failed"
    failed.unlink(missing_ok=True)
    slot.request_flush()
    folder.ring()
    started_s = next_tick_s = drained_s = clock.monotonic_s()
    told = False
    while slot.pending_segments():
        now_s = clock.monotonic_s()
        hopeless = not told and now_s - started_s >= _HOPE_S and failed.exists()
        if now_s - started_s >= deadline_s or (hopeless and on_terminal):
            break
        if hopeless:
            told = True
            tell(f"what is left cannot be delivered now; trying on until drain_s ({deadline_s:.0f} s) is over")
        if now_s >= next_tick_s:
            tick()
            next_tick_s = now_s + _TICK_S
            if somebody_drains():
                drained_s = now_s
            elif now_s - drained_s >= _ABSENT_WAIT_S:
                break
        time.sleep(_POLL_S)
    return _text(failed)


def _text(path: Path) -> str:
    with contextlib.suppress(OSError):
        return path.read_text(encoding="utf-8", errors="replace")
    return ""
