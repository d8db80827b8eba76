"""Local tables: private to their owner, and on the disk before a segment of the spool is deleted.

1. delta-rs writes with the process's umask, and never calls fsync. A torn commit file makes a table unreadable.
2. Folders that we make have mode 0700, files 0600; the table's folder is closed before a file can appear in it.
3. A version is settled when its data files, its log file and the folders that name them are on the disk.
"""

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Self
from urllib.parse import unquote

_SETTLED_BEHIND_CHECKPOINT = 20
"""Versions before the newest checkpoint that a fresh handle settles again: their writer may have died first."""


def prepare_folder(root: Path, table: str) -> Path:
    """Make the root with its `.gitignore`, and the table's folder; return that folder.

    Raises: OSError: the folder cannot be made or written.
    """
    for missing in reversed([folder for folder in (root, *root.parents) if not folder.exists()]):
        missing.mkdir(mode=0o700, exist_ok=True)
    ignore = root / ".gitignore"
    if not ignore.exists():
        # Rows are prompts: a root inside a checkout must not be committed by accident.
        write_private(ignore, b"*\n")
    folder = root / table
    folder.mkdir(mode=0o700, exist_ok=True)
    _fsync(root)
    return folder


def write_private(path: Path, content: bytes) -> None:
    """Put `content` at `path`, whole or not at all, mode 0600, on the disk when this returns. Raises: OSError."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    _fsync(path.parent)


def settle(folder: Path, first: int, last: int) -> None:
    """Bring the versions `first` to `last` of the table in `folder` to the disk, and close their files to others.

    A log file that is gone was cleaned up behind a checkpoint; a data file that is gone was compacted away.

    Raises: OSError: the disk did not take them.
    """
    log = folder / "_delta_log"
    files = [_log_file(folder, version) for version in range(first, last + 1)]
    files += [path for path in files if path.exists() for path in _added(folder, path)]
    for file in files:
        _fsync(file, mode=0o600)
    for parent in {file.parent for file in files} | {folder, log}:
        _fsync(parent, mode=0o700)


def settle_newest(folder: Path, last: int) -> None:
    """Settle all that a writer which died may have left unsettled: newest checkpoint, and the versions around it."""
    log = folder / "_delta_log"
    hint = log / "_last_checkpoint"
    checkpoint = 0
    if hint.exists():
        checkpoint = int(json.loads(hint.read_bytes())["version"])
        for path in (hint, *log.glob(f"{checkpoint:020}.checkpoint*.parquet")):
            _fsync(path, mode=0o600)
    settle(folder, max(0, checkpoint - _SETTLED_BEHIND_CHECKPOINT), last)


class VersionStamp(NamedTuple):
    """How the log file of one version looked, so that a look at two names can spare reading the log again."""

    path: Path
    successor: Path
    inode: int
    modified_ns: int

    @classmethod
    def of(cls, folder: Path, version: int) -> Self | None:
        """The stamp of a version of the table in `folder`; None where its log file is gone."""
        path = _log_file(folder, version)
        try:
            status = path.stat()
        except OSError:
            return None
        return cls(path, _log_file(folder, version + 1), status.st_ino, status.st_mtime_ns)

    def still_there(self) -> bool:
        """Whether the version's log file is the same one; where it is not, the table may be another."""
        try:
            status = self.path.stat()
        except OSError:
            return False
        return (status.st_ino, status.st_mtime_ns) == (self.inode, self.modified_ns)

    def is_newest(self) -> bool:
        """Whether nobody has written a later version. A later one that was cleaned up has taken this one along.

        False where it cannot be told (a share that is away): reading the log then says what is wrong.
        """
        try:
            self.successor.stat()
        except FileNotFoundError:
            return True
        except OSError:
            return False
        return False


def _log_file(folder: Path, version: int) -> Path:
    return folder / "_delta_log" / f"{version:020}.json"


def _added(folder: Path, commit: Path) -> Iterator[Path]:
    for line in commit.read_bytes().splitlines():
        if line.startswith(b'{"add"'):
            yield folder / unquote(json.loads(line)["add"]["path"])


def _fsync(path: Path, *, mode: int | None = None) -> None:
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return
    try:
        status = os.fstat(descriptor)
        # A table that somebody else made keeps its owner's modes.
        if mode is not None and status.st_uid == os.geteuid() and stat.S_IMODE(status.st_mode) != mode:
            os.fchmod(descriptor, mode)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
