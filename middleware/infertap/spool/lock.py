"""A lock that dies with its process: the only way in which processes here know of each other.

1. `flock`, never `lockf`: it belongs to the open file, so it can be handed down to a child process, it conflicts
   within one process, and process ids (which mean nothing across namespaces) play no part.
2. A lock is only ever closed, never unlocked: an explicit unlock in a forked child would take it from its parent.
3. A lock on a file that its path no longer names protects nothing, so it counts as not taken.
"""

import fcntl
import os
from pathlib import Path
from typing import Self

from infertap.spool.forks import close_in_forked_child


class FileLock:
    """An exclusive lock on one file, held until `close()` or the end of the process."""

    __slots__ = ("__weakref__", "_fd", "path")

    def __init__(self, fd: int, path: Path) -> None:
        self._fd = fd
        self.path = path
        close_in_forked_child(self)

    @classmethod
    def try_acquire(cls, path: Path, *, create: bool = True) -> Self | None:
        """Takes the lock without waiting; about 11 us.

        Returns:
            None where somebody else (or another lock of this process) holds it, or where the file is not there.

        Raises:
            OSError: The file cannot be opened, or the file system has no locks.
        """
        flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | (os.O_CREAT if create else 0)
        try:
            fd = os.open(path, flags, 0o600)
        except (FileNotFoundError, NotADirectoryError):
            return None
        return cls(fd, path)._locked()

    @classmethod
    def adopt_fd(cls, fd: int, path: Path) -> Self | None:
        """Takes over a locked descriptor that a parent process handed down; it is close-on-exec from here on.

        Returns:
            None (and the descriptor is closed) where it is not this path's file or somebody else holds the lock.
        """
        os.set_inheritable(fd, False)
        return cls(fd, path)._locked()

    def fileno(self) -> int:
        """The locked descriptor, for handing down; -1 once closed."""
        return self._fd

    def still_there(self) -> bool:
        """Whether the path still names the locked file, as far as can be told; false for ever once closed."""
        return self._fd >= 0 and names_file(self.path, self._fd) is not False

    def close(self) -> None:
        """Gives the lock up, unless a child process was handed the descriptor. Safe twice."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    after_fork_in_child = close

    def _locked(self) -> Self | None:
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.close()
            return None
        except OSError:
            self.close()
            raise
        if names_file(self.path, self._fd):
            return self
        self.close()
        return None


def names_file(path: Path, fd: int) -> bool | None:
    """Whether `path` names the open file `fd`; None where a failing disk does not tell."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(fd))
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return None


def is_locked(path: Path) -> bool:
    """Whether somebody holds the lock at `path`; taken for a moment where nobody does. A missing file is not locked."""
    try:
        lock = FileLock.try_acquire(path, create=False)
    except OSError:
        # Not ours to open, so not ours to judge: whoever can may hold it.
        return True
    if lock is None:
        return path.exists()
    lock.close()
    return False
