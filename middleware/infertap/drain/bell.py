"""The drainer's end of the bell: it shortens waits and decides nothing, so that a lost ring costs a second at most."""

import os
import select
import time
from typing import Self

from infertap.spool.folder import SpoolFolder

POLL_S = 0.05
"""How often a drainer looks where the file system has no FIFOs."""


class Bell:
    """Waits for rings. Belongs to the drainer's thread."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    @classmethod
    def open(cls, folder: SpoolFolder) -> Self:
        """Listens at the folder's bell; without one `wait` only sleeps, in short steps."""
        try:
            # Also for writing: with a reader alone, `select` would report the end of file for ever.
            return cls(os.open(folder.bell, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC))
        except OSError:
            return cls(-1)

    def wait(self, timeout_s: float) -> bool:
        """Waits for a ring, and takes all that are there.

        Returns:
            Whether it rang; without a bell always true after `POLL_S`, since anybody may have wanted to ring.
        """
        if self._fd < 0:
            time.sleep(min(timeout_s, POLL_S))
            return True
        if not select.select([self._fd], [], [], max(0.0, timeout_s))[0]:
            return False
        try:
            os.read(self._fd, 1 << 16)
        except BlockingIOError:
            return False
        return True

    def close(self) -> None:
        """Stops listening. Safe twice."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
