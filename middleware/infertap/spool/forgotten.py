"""Folders of the spool in which records wait although nobody lives who would deliver them: the destination was changed.

It takes locks for a moment where nobody holds them, as every drainer does, and touches nothing.
"""

import contextlib
from collections.abc import Iterable
from pathlib import Path

from infertap.spool.folder import SpoolFolder, destination_folders
from infertap.spool.lock import is_locked


def forgotten_folders(spool_dirs: Iterable[Path], *, own: Path) -> dict[Path, int]:
    """Folder -> bytes that wait in it, of all destinations but the one whose folder is `own`.

    Between the end of its owner and the start of a drainer, a folder in use looks like a forgotten one.
    """
    found: dict[Path, int] = {}
    for path in sorted(folder for root in spool_dirs for folder in destination_folders(root)):
        # Folders of other users, or ones that somebody has tampered with, are not ours to judge.
        with contextlib.suppress(OSError, RuntimeError):
            folder = SpoolFolder(path.resolve())
            if folder.path != own.resolve() and (size_bytes := folder.size_bytes()) and not _is_in_use(folder):
                found[folder.path] = size_bytes
    return found


def _is_in_use(folder: SpoolFolder) -> bool:
    return is_locked(folder.drainer_lock) or any(
        is_locked(folder.slot_dir(spool_id) / "lock") for spool_id in folder.slot_ids()
    )
