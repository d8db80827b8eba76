"""A pipeline's own corner of the spool: visible only while locked, and an orphan from the moment its owner is gone."""

import os
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from infertap._version import __version__
from infertap.clock import Clock
from infertap.errors import SpoolError
from infertap.record import SCHEMA_VERSION
from infertap.spool.boot import boot_id
from infertap.spool.durability import allocate, sync_data, sync_folder
from infertap.spool.folder import SpoolFolder, list_segments
from infertap.spool.frames import Kind, encode, pack
from infertap.spool.lock import FileLock
from infertap.spool.page import Page

RESERVE_BYTES = 1 << 20
"""Blocks held back, so that on a full disk the last counts and the seal can still be written."""


class Slot:
    """A slot that this process owns. Belongs to one thread, but for `pending_segments` and `still_there`.

    In a forked child lock and page are closed; the child makes a slot of its own.
    """

    def __init__(self, path: Path, lock: FileLock, page: Page, header: Mapping[str, Any]) -> None:
        self.path = path
        self.lock = lock
        self.page = page
        self.header = header
        self.reserve_held = True

    @classmethod
    def create(cls, folder: SpoolFolder, clock: Clock, header: Mapping[str, Any] | None = None) -> Self:
        """Makes a slot: built and locked under a hidden name, then renamed. A visible slot is never unlocked.

        Args:
            folder: Prepared.
            clock: For the start time.
            header: Process constants for the OPEN frames: `service_name`, `instance`, `resource`.

        Raises:
            OSError: No room, or the folder is not writable; nothing visible is left behind.
        """
        spool_id = secrets.token_hex(8)
        hidden, path = folder.slot_dir(f".new-{spool_id}"), folder.slot_dir(spool_id)
        facts = {
            "spool_id": spool_id,
            "schema_version": SCHEMA_VERSION,
            "infertap_version": __version__,
            "boot_id": boot_id(),
            "started_ns": clock.wall_ns(),
            **(header or {}),
        }
        hidden.mkdir(mode=0o700)
        lock = FileLock.try_acquire(hidden / "lock")
        if lock is None:
            raise SpoolError("a slot under construction was taken away")
        page: Page | None = None
        try:
            page = Page.create(hidden / "page", started_ns=facts["started_ns"], boot_id=facts["boot_id"])
            _write_durable(hidden / "header", encode(Kind.OPEN, pack(facts)))
            _make_reserve(hidden / "reserve")
            hidden.rename(path)
            lock.path = path / "lock"
            sync_folder(folder.slots_dir)
        except BaseException:
            if page is not None:
                page.close()
            shutil.rmtree(hidden, ignore_errors=True)
            lock.close()
            raise
        return cls(path, lock, page, facts)

    @property
    def spool_id(self) -> str:
        """16 hex digits, random; also the folder's name."""
        return self.path.name

    def open_payload(self, segment_no: int) -> bytes:
        """The payload of a segment's OPEN frame."""
        return pack({**self.header, "segment_no": segment_no})

    def still_there(self) -> bool:
        """Whether the folder is still this slot. Appends to a deleted file go on succeeding, so ask. About 3 us."""
        return self.lock.still_there()

    def request_flush(self) -> None:
        """Asks the drainer to deliver at once; the request stays until it has done so. Raises OSError."""
        os.close(os.open(self.path / "flush", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))

    def pending_segments(self) -> list[Path]:
        """Sealed segments that some destination has not passed."""
        return list_segments(self.path)

    def free_reserve(self) -> None:
        """Gives the reserve's blocks back to the disk. Raises OSError."""
        os.truncate(self.path / "reserve", 0)
        self.reserve_held = False

    def take_reserve(self) -> bool:
        """Holds the reserve again; false where there is still no room."""
        if not self.reserve_held:
            try:
                fd = os.open(self.path / "reserve", os.O_WRONLY | os.O_CLOEXEC)
            except OSError:
                return False
            try:
                allocate(fd, RESERVE_BYTES)
                self.reserve_held = True
            except OSError:
                return False
            finally:
                os.close(fd)
        return self.reserve_held

    def close(self) -> None:
        """Leaves the slot to whoever drains it. The page stays mapped for those who still count. Safe twice."""
        self.lock.close()


def _write_durable(path: Path, content: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(content)
        file.flush()
        sync_data(file.fileno())


def _make_reserve(path: Path) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        allocate(fd, RESERVE_BYTES)
    finally:
        os.close(fd)
