"""Carries the drainer's log to the logger of one owner: a drainer has no terminal of its own.

1. One owner relays: the one that holds `relay.lock`. How far it has come is written into that file, so that the next
   one goes on where it stopped.
2. A drainer's death is told once, with the last lines of its stderr, masked.
"""

import contextlib
import json
import logging
import os
from collections import deque
from pathlib import Path

from infertap.drain.spawn import previous_errors
from infertap.drain.state import DrainerState, Phase
from infertap.events import say
from infertap.masking import masked
from infertap.spool.folder import SpoolFolder
from infertap.spool.lock import FileLock

BYTES_PER_TICK_MAX = 256 << 10
ERROR_LINES = 20
_TOLD_MAX = 8
_ERROR_BYTES = 16 << 10


class LogRelay:
    """Relays to one logger. Belongs to one thread."""

    def __init__(self, folder: SpoolFolder, logger_name: str) -> None:
        self._folder = folder
        self._logger_name = logger_name
        self._lock: FileLock | None = None
        self._failures = 0
        self._told: deque[str] = deque(maxlen=_TOLD_MAX)

    def news(self, reasons: str) -> str:
        """What of it none of the last lines that were relayed here says.

        Args:
            reasons: A line for each destination, its name and what it failed of: `otlp: refused`.
        """
        lines = [(line, line.partition(": ")[2]) for line in reasons.splitlines()]
        return "\n".join(line for line, why in lines if not any(why in told for told in self._told))

    def tick(self, state: DrainerState) -> None:
        """Relays what is new, if this owner is the one that relays. Never raises for a missing or damaged log."""
        try:
            if self._lock is not None and not self._lock.still_there():
                self.close()
            if self._lock is None:
                self._lock = FileLock.try_acquire(self._folder.relay_lock)
                self._failures = state.failures if state.phase is not Phase.CRASHED else state.failures - 1
            if self._lock is not None:
                self._relay(self._lock.fileno())
                self._tell_failure(state)
        except OSError:
            # The folder may just be going away; the next tick looks again.
            self.close()

    def close(self) -> None:
        """Leaves the relaying to another owner. Safe twice."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _relay(self, fd: int) -> None:
        inode, offset = _read_position(fd)
        with contextlib.suppress(FileNotFoundError), open(self._folder.drainer_log, "rb") as log:
            current = os.fstat(log.fileno()).st_ino
            if inode != current:
                self._relay_rest_of(self._folder.drainer_log.with_name("drainer.log.1"), inode, offset)
                offset = 0
            log.seek(offset)
            offset += self._emit(log.read(BYTES_PER_TICK_MAX))
            _write_position(fd, current, offset)

    def _relay_rest_of(self, rotated: Path, inode: int, offset: int) -> None:
        with contextlib.suppress(FileNotFoundError), open(rotated, "rb") as log:
            if os.fstat(log.fileno()).st_ino == inode:
                log.seek(offset)
                self._emit(log.read(BYTES_PER_TICK_MAX))

    def _emit(self, chunk: bytes) -> int:
        """Logs whole lines; returns how many bytes they were."""
        whole = chunk[: chunk.rfind(b"\n") + 1]
        for line in whole.splitlines():
            try:
                entry = json.loads(line)
                level = logging.getLevelNamesMapping()[entry["level"]]
                message = str(entry["message"])
            except (ValueError, KeyError, TypeError):
                continue
            # What is said below WARNING is for those who listen; a bare app hears no more of us than it must.
            if level >= logging.WARNING or logging.getLogger(self._logger_name).isEnabledFor(level):
                say(level, message, self._logger_name)
                self._told.append(message)
        return len(whole)

    def _tell_failure(self, state: DrainerState) -> None:
        failures, self._failures = self._failures, state.failures
        if state.failures <= failures:
            return
        # Once the next drainer has been started, the dead one's words have been moved aside.
        path = self._folder.drainer_err if state.phase is Phase.CRASHED else previous_errors(self._folder)
        lines = masked("\n".join(_last_lines(path)))
        words = f"; its last words:\n{lines}" if lines else ""
        line = f"the drainer ended unexpectedly ({state.failures} in a row); records stay in the spool{words}"
        say(logging.WARNING, line, self._logger_name)


def _last_lines(path: Path) -> list[str]:
    try:
        with open(path, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _ERROR_BYTES))
            return file.read().decode(errors="replace").splitlines()[-ERROR_LINES:]
    except FileNotFoundError:
        return []


def _read_position(fd: int) -> tuple[int, int]:
    try:
        inode, offset = os.pread(fd, 64, 0).split()
        return int(inode), int(offset)
    except ValueError:
        return 0, 0


def _write_position(fd: int, inode: int, offset: int) -> None:
    # A fixed width, so that no rest of an older position is left behind.
    os.pwrite(fd, b"%020d %020d\n" % (inode, offset), 0)
