"""Ctrl-C while a foreign engine works: it holds the interpreter, and Python's own handler never gets a turn."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def ctrl_c_ends_the_process() -> Iterator[None]:
    """Within this block Ctrl-C ends the process at once (130 in a shell); for work that leaves nothing half done."""
    handler = signal.getsignal(signal.SIGINT)
    if handler is not signal.default_int_handler or threading.current_thread() is not threading.main_thread():
        # Whoever set another one has a reason: `nohup`, a background job, an embedding program.
        yield
        return
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
