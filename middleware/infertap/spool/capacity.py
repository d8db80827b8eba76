"""Whether the spool may grow: its own cap, and a share of the disk that belongs to others."""

import os

from infertap.clock import Clock
from infertap.spool.folder import SpoolFolder

FREE_SHARE_MIN = 0.05
"""Of the file system, as an unprivileged process sees it; on a huge disk the spool's own cap is floor enough."""

CHECK_INTERVAL_S = 1.0


class Capacity:
    """Looks at most once a second; in between it repeats what it saw. Any thread."""

    def __init__(self, folder: SpoolFolder, *, spool_bytes_max: int, clock: Clock) -> None:
        self._folder = folder
        self._spool_bytes_max = spool_bytes_max
        self._clock = clock
        self._room = True
        self._next_check_s = float("-inf")

    def room(self) -> bool:
        """Whether the folder's segments are below the cap and enough of the disk is free."""
        now_s = self._clock.monotonic_s()
        if now_s >= self._next_check_s:
            self._next_check_s = now_s + CHECK_INTERVAL_S
            self._room = self._look()
        return self._room

    def _look(self) -> bool:
        if missing_free_bytes(self._folder, self._spool_bytes_max) > 0:
            return False
        return self._folder.size_bytes() < self._spool_bytes_max


def missing_free_bytes(folder: SpoolFolder, spool_bytes_max: int) -> int:
    """Bytes that the disk lacks to have its share free; not positive if all is well.

    Where more is free than the whole spool may take, the share does not count: 5 % of a large disk is a lot. Of a
    folder that is gone or cannot be read nothing is said: the next write finds out what is wrong, and says it better.
    """
    try:
        disk = os.statvfs(folder.path)
    except OSError:
        return 0
    floor_bytes = min(int(disk.f_blocks * disk.f_frsize * FREE_SHARE_MIN), spool_bytes_max)
    return floor_bytes - disk.f_bavail * disk.f_frsize
