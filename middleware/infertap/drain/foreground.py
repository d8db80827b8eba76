"""`infertap drain`: the same drainer in the foreground, for a folder that nobody else drains."""

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from infertap.clock import SystemClock
from infertap.destinations.protocol import Destination
from infertap.drain.end import End
from infertap.drain.log import log_to_stderr
from infertap.drain.loop import Drainer, Stop
from infertap.drain.process import resident_bytes
from infertap.drain.settings import DrainerSettings
from infertap.drain.state import DrainerState
from infertap.drain.succession import successor
from infertap.spool.folder import SpoolFolder
from infertap.spool.lock import FileLock

Build = Callable[[DrainerSettings], Sequence[Destination]]

_LOOK_S = 0.2
_LOCK_WAIT_S = 10.0


def run_foreground(
    folder: SpoolFolder,
    settings: DrainerSettings,
    *,
    follow: bool,
    build: Build | None = None,
    once_locked: Callable[[], None] = lambda: None,
) -> int:
    """Delivers what is in the folder; logs to stderr.

    Args:
        follow: Go on until SIGTERM or Ctrl-C; a first one delivers what is there and waits for owners that are
            stopping, a second one leaves at once. Otherwise: one pass, whoever else lives.
        once_locked: Called before anything is delivered, each time the folder is ours alone.

    Returns:
        0 if everything was delivered; 1 if something is left, or somebody else drains the folder.
    """
    os.umask(0o077)
    stop = Stop(folder)
    with log_to_stderr(settings.secrets, chatty=follow), _signals_ask(stop):
        return _drain(folder, settings, build or _default_build(), stop, once_locked, follow=follow)


def _drain(
    folder: SpoolFolder,
    settings: DrainerSettings,
    build: Build,
    stop: Stop,
    once_locked: Callable[[], None],
    *,
    follow: bool,
) -> int:
    while True:
        lock = _take_lock(folder, stop, wait_s=float("inf") if follow else _LOCK_WAIT_S)
        if lock is None:
            return 0 if stop.requests else 1
        once_locked()
        end = _drain_once(folder, settings, build(settings), lock, stop, follow=follow)
        # Somebody may come later: with `follow`, an empty folder is no reason to leave.
        if not follow or stop.requests or end not in (End.IDLE, End.GAVE_UP, End.MEMORY, End.GONE):
            return 0 if end in (End.IDLE, End.ONE_PASS) else 1


@contextlib.contextmanager
def _signals_ask(stop: Stop) -> Iterator[None]:
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = [signal.signal(number, lambda _signal, _frame: stop.request()) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def _default_build() -> Build:
    from infertap.build import build_destinations

    return build_destinations


def _drain_once(
    folder: SpoolFolder,
    settings: DrainerSettings,
    destinations: Sequence[Destination],
    lock: FileLock,
    stop: Stop,
    *,
    follow: bool,
) -> End:
    for destination in destinations:
        destination.open()
    clock = SystemClock()
    previous = DrainerState.load(folder.drainer_state)
    state = successor(previous, settings, slot="", now_ns=clock.wall_ns(), pid=os.getpid())
    state.failures = 0
    drainer = Drainer(
        # Recycling is for a process that somebody starts again.
        replace(settings, resident_bytes_max=0),
        destinations,
        clock,
        lock=lock,
        state=state,
        stop=stop,
        resident_bytes=resident_bytes,
        follow=follow,
    )
    return drainer.run()


def _take_lock(folder: SpoolFolder, stop: Stop, *, wait_s: float) -> FileLock | None:
    """Waits for the folder to appear and for its lock to be free; None where that takes too long, or at a stop."""
    give_up_s = time.monotonic() + wait_s
    while not stop.requests:
        lock = None
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            lock = FileLock.try_acquire(folder.drainer_lock)
        if lock is not None:
            return lock
        if time.monotonic() >= give_up_s:
            return None
        time.sleep(_LOOK_S)
    return None
