"""The tree of one destination's spool: every path in it is named here and nowhere else.

    spool_dir/.gitignore
    spool_dir/<fingerprint>/   destination.json  drainer.lock  drainer.json  retire  bell  relay.lock
                               drainer.log  drainer.err  inflight  otlp.json  totals.json
        slots/<spool_id>/      lock  page  reserve  header  000000000001.open|.seg  flush
        cursors/<spool_id>.json
        parked/

Folders that we make are 0700 and files 0600, whatever the umask allows.
"""

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from infertap.spool.jsonfile import read_json, write_json_atomic

SEALED = ".seg"
OPEN = ".open"


class SpoolFolder:
    """`spool_dir/<fingerprint>`. Holds no descriptor; any number of processes and threads may have one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.slots_dir = path / "slots"
        self.cursors_dir = path / "cursors"
        self.parked_dir = path / "parked"
        self.destination = path / "destination.json"
        self.drainer_lock = path / "drainer.lock"
        self.drainer_state = path / "drainer.json"
        self.drainer_log = path / "drainer.log"
        self.drainer_err = path / "drainer.err"
        self.retire = path / "retire"
        self.relay_lock = path / "relay.lock"
        self.bell = path / "bell"
        self.inflight = path / "inflight"
        self.otlp_memory = path / "otlp.json"
        self.totals = path / "totals.json"

    def prepare(self, identity: Mapping[str, Any]) -> None:
        """Makes what is missing of the tree, and `destination.json`. Safe at any time and from many processes at once.

        Args:
            identity: What makes this destination this one, and what delivery needs. No secrets: it goes to the disk.

        Raises:
            OSError: The place is not writable.
        """
        for folder in (self.path, self.slots_dir, self.cursors_dir, self.parked_dir):
            _make_private_folder(folder)
        ignore = self.path.parent / ".gitignore"
        if not ignore.exists():
            _write_private(ignore, b"*\n")
        if read_json(self.destination) != identity:
            write_json_atomic(self.destination, identity)
        if not self.bell.exists():
            # Without a bell (a file system without FIFOs) the drainer polls. Two processes may try at once.
            with contextlib.suppress(OSError):
                os.mkfifo(self.bell, 0o600)

    def slot_dir(self, spool_id: str) -> Path:
        """The slot's folder."""
        return self.slots_dir / spool_id

    def cursor(self, spool_id: str) -> Path:
        """The slot's cursor file."""
        return self.cursors_dir / f"{spool_id}.json"

    def slot_ids(self) -> list[str]:
        """Ids of all complete slots, live or orphaned, sorted; none where there is no folder."""
        try:
            return sorted(name for name in os.listdir(self.slots_dir) if not name.startswith("."))
        except (FileNotFoundError, NotADirectoryError):
            return []

    def size_bytes(self) -> int:
        """Bytes of all segments, open or sealed. Reserves and parked frames do not count towards the cap."""
        return sum(_segment_bytes(self.slot_dir(spool_id)) for spool_id in self.slot_ids())

    def ring(self) -> bool:
        """Wakes the drainer. Never blocks; false where nobody listens."""
        try:
            fd = os.open(self.bell, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            os.write(fd, b"!")
        except BlockingIOError:
            pass  # The pipe is full of rings that nobody has answered yet: one more says nothing new.
        except OSError:
            return False
        finally:
            os.close(fd)
        return True


def destination_folders(spool_dir: Path) -> list[Path]:
    """The folders of the destinations in a `spool_dir`, by name; none where it is gone."""
    try:
        names = sorted(os.listdir(spool_dir))
    except OSError:
        return []
    return [spool_dir / name for name in names if os.path.exists(spool_dir / name / "destination.json")]


def segment_path(slot_dir: Path, segment_no: int, suffix: str) -> Path:
    """Where a segment lies; `suffix` is `OPEN` while it is written and `SEALED` once it will not change."""
    return slot_dir / f"{segment_no:012d}{suffix}"


def segment_no_of(path: Path) -> int:
    """The number in a segment's file name."""
    return int(path.stem)


def list_segments(slot_dir: Path, suffix: str = SEALED) -> list[Path]:
    """The slot's segments in the order of their numbers; none where the slot is gone."""
    try:
        names = os.listdir(slot_dir)
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [slot_dir / name for name in sorted(names) if name.endswith(suffix) and name[: -len(suffix)].isdecimal()]


def _segment_bytes(slot_dir: Path) -> int:
    total = 0
    # Segments and whole slots vanish while a drainer works.
    with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(slot_dir) as entries:
        for entry in entries:
            if entry.name.endswith((OPEN, SEALED)):
                with contextlib.suppress(FileNotFoundError):
                    total += entry.stat().st_size
    return total


def _make_private_folder(path: Path) -> None:
    # `Path.mkdir(parents=True)` gives the parents the umask's mode.
    if not path.parent.exists():
        _make_private_folder(path.parent)
    path.mkdir(mode=0o700, exist_ok=True)


def _write_private(path: Path, content: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, content)
    finally:
        os.close(fd)
