"""`drainer = "thread"`: the same drainer in a thread of an owner, where no process may be started."""

import logging
import threading
from collections.abc import Callable, Sequence

from infertap.clock import SystemClock
from infertap.destinations.protocol import Destination
from infertap.drain.loop import Drainer, Stop
from infertap.drain.settings import DrainerSettings
from infertap.drain.state import DrainerState
from infertap.spool.folder import SpoolFolder
from infertap.spool.lock import FileLock

_log = logging.getLogger("infertap.drainer")


class ThreadDrainer:
    """Starts at most one drainer at a time. Importing this module imports no destination."""

    def __init__(self, settings: DrainerSettings, build: Callable[[DrainerSettings], Sequence[Destination]]) -> None:
        self._settings = settings
        self._build = build
        self._folder = SpoolFolder(settings.folder)
        self._stop = Stop(self._folder)
        self._thread: threading.Thread | None = None

    def start(self, lock: FileLock, nonce: str) -> None:
        """Drains in a thread, which owns `lock` from here on. Raises RuntimeError where no thread can be started."""
        state = DrainerState.load(self._folder.drainer_state)
        if state.nonce != nonce:
            raise RuntimeError("another drainer has been started meanwhile")
        self._stop = Stop(self._folder)
        # A daemon: a server that does not stop its pipeline must still be able to end.
        self._thread = threading.Thread(target=self._run, args=(lock, state), name="infertap-drainer", daemon=True)
        self._thread.start()

    def close(self, deadline_s: float) -> None:
        """Has it leave after the delivery under way, and waits. Safe without `start`, and twice."""
        thread, self._thread = self._thread, None
        if thread is not None and thread.is_alive():
            self._stop.request()
            self._stop.request()
            thread.join(deadline_s)

    def _run(self, lock: FileLock, state: DrainerState) -> None:
        try:
            destinations = self._build(self._settings)
            for destination in destinations:
                destination.open()
            Drainer(self._settings, destinations, SystemClock(), lock=lock, state=state, stop=self._stop).run()
        except BaseException:
            # This thread's own border: a Rust panic is a BaseException. `drainer.json` still says `running`, so the
            # next look counts a failure and backs off.
            _log.exception("the drainer thread ends unexpectedly")
        finally:
            lock.close()
