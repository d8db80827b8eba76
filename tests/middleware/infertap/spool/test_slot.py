"""A slot is visible only while somebody holds it, and its owner knows when it is gone."""

import os
import shutil
from collections.abc import Callable
from typing import Any

import pytest

from infertap.record import SCHEMA_VERSION
from infertap.spool.boot import boot_id
from infertap.spool.folder import SpoolFolder
from infertap.spool.frames import unpack
from infertap.spool.lock import FileLock
from infertap.spool.page import SEEN, PageView
from infertap.spool.reader import read_header_file
from infertap.spool.slot import RESERVE_BYTES, Slot


def test_a_new_slot_is_complete_and_locked(folder: SpoolFolder, clock: Any) -> None:
    """Lock, page, reserve and header are there when the name appears."""
    slot = Slot.create(folder, clock, {"service_name": "svc"})
    assert folder.slot_ids() == [slot.spool_id]
    assert sorted(os.listdir(slot.path)) == ["header", "lock", "page", "reserve"]
    assert FileLock.try_acquire(slot.path / "lock") is None
    assert (slot.path / "reserve").stat().st_blocks * 512 >= RESERVE_BYTES
    slot.page.counters[SEEN] = 4
    assert PageView.read(slot.path / "page").seen == 4
    facts = unpack(slot.open_payload(3))
    assert facts == {
        "spool_id": slot.spool_id,
        "segment_no": 3,
        "schema_version": SCHEMA_VERSION,
        "infertap_version": facts["infertap_version"],
        "boot_id": boot_id(),
        "started_ns": clock.wall_ns(),
        "service_name": "svc",
    }
    del facts["segment_no"]
    assert read_header_file(slot.path) == facts
    slot.close()
    lock = FileLock.try_acquire(slot.path / "lock")
    assert lock is not None
    lock.close()


def test_the_owner_notices_a_deleted_or_moved_slot(folder: SpoolFolder, clock: Any) -> None:
    """Still there means under its name, not merely open."""
    slot = Slot.create(folder, clock)
    assert slot.still_there()
    slot.path.rename(folder.path / "moved")
    assert not slot.still_there()
    shutil.rmtree(folder.path / "moved")
    slot.close()


def test_a_flush_request_is_a_file(folder: SpoolFolder, clock: Any) -> None:
    """The request survives its owner, and asking twice is asking once."""
    slot = Slot.create(folder, clock)
    slot.request_flush()
    slot.request_flush()
    assert (slot.path / "flush").stat().st_mode & 0o777 == 0o600
    assert slot.pending_segments() == []
    slot.close()


def test_the_reserve_comes_back_when_there_is_room(
    small_disk: SpoolFolder, clock: Any, fill_disk: Callable[[int], None], free_disk: Callable[[], None]
) -> None:
    """Freed blocks are usable at once; the reserve is held again only when the disk really gives it."""
    slot = Slot.create(small_disk, clock)
    fill_disk(0)
    with pytest.raises(OSError), open(slot.path / "more", "wb", buffering=0) as file:
        file.write(b"x")
    slot.free_reserve()
    (slot.path / "more").write_bytes(bytes(8192))
    assert not slot.take_reserve()
    assert not slot.reserve_held
    free_disk()
    assert slot.take_reserve()
    assert (slot.path / "reserve").stat().st_blocks * 512 >= RESERVE_BYTES
    slot.close()


def test_a_slot_that_does_not_fit_leaves_nothing(
    small_disk: SpoolFolder, clock: Any, fill_disk: Callable[[int], None]
) -> None:
    """On a full disk there is no half-made slot."""
    fill_disk(64 * 1024)
    with pytest.raises(OSError):
        Slot.create(small_disk, clock)
    assert os.listdir(small_disk.slots_dir) == []
