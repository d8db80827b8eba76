"""What a drainer does to its own process before it begins: signals, priority, memory killer, garbage collector."""

import contextlib
import gc
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

NICE = 10
"""Below the app on a busy core, and still some 9 % of it; at 19 it would not even finish its imports."""

_OOM_SCORE = 500
_ERROR_BYTES_MAX = 1 << 20
_YOUNG_OBJECTS_MAX = 200_000
"""Containers made between two collections: some 10,000 requests."""


def take_signals(on_term: Callable[[], None]) -> None:
    """Sets every signal that matters: mask and ignored signals are inherited from whichever thread spawned us.

    SIGTERM calls `on_term`. A terminal's signals are for the app.
    """
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    signal.signal(signal.SIGTERM, lambda _signal, _frame: on_term())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def step_back(own: Path = Path("/proc/self")) -> None:
    """Gives way to the app: processor time, and the first place when memory runs out. What is refused is left out.

    Args:
        own: Where the kernel shows this process.
    """
    with contextlib.suppress(OSError):
        os.nice(NICE)
    scores = {"oom_score_adj": _OOM_SCORE}
    if os.getsid(0) == os.getpid():
        # With autogroups, a session's niceness counts only inside the session; another one than ours is a terminal's.
        scores["autogroup"] = NICE
    for name, value in scores.items():
        with contextlib.suppress(OSError), (own / name).open("r+") as file:
            file.write(str(value))


def spare_garbage_collection() -> None:
    """Keeps the collector from walking through what was imported, and through each batch several times.

    A batch is a tree that goes by itself; what the collector is for (tracebacks, mostly) can wait. After the imports.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS_MAX, 10, 10)


def resident_bytes() -> int:
    """This process's resident memory; 0 where the platform does not tell."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0


def bound_error_file() -> None:
    """Empties stderr's file where it has grown too large: whatever fills it, it must not fill the disk."""
    with contextlib.suppress(OSError, ValueError):
        fd = sys.stderr.fileno()
        if os.fstat(fd).st_size > _ERROR_BYTES_MAX:
            os.ftruncate(fd, 0)
