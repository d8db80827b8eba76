"""What it takes on each platform until bytes, names and blocks are really on the disk."""

import errno
import fcntl
import os
from pathlib import Path

from infertap.errors import SpoolError, SpoolFullError

_FULL_SYNC: int | None = getattr(fcntl, "F_FULLFSYNC", None)
"""macOS only, where fsync leaves the data in the drive's own cache."""

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def sync_data(fd: int) -> None:
    """Makes the content of a file durable. Raises OSError; it must then not be tried again on this file, because the
    kernel may have marked the pages clean."""
    if _FULL_SYNC is not None:
        fcntl.fcntl(fd, _FULL_SYNC)
    else:
        os.fdatasync(fd)


def sync_folder(path: Path) -> None:
    """Makes names in a folder durable: files created, renamed or removed. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def allocate(fd: int, size_bytes: int) -> None:
    """Gives a file its blocks, so that a later store cannot meet a full disk. Raises OSError, and the file is empty."""
    try:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(fd, 0, size_bytes)
        else:
            os.pwrite(fd, bytes(size_bytes), 0)
    except OSError:
        os.ftruncate(fd, 0)
        raise


def spool_error(what: str, error: OSError) -> SpoolError:
    """The error to raise `from` an OSError: SpoolFullError where disk, quota or file size limit was reached."""
    kind = SpoolFullError if error.errno in _NO_ROOM else SpoolError
    return kind(f"{what}: {error.strerror}")
