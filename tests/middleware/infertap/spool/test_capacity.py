"""Capacity: the cap and the disk's reserve, looked at once a second."""

import os
from collections.abc import Callable
from typing import Any

from infertap.spool.capacity import Capacity
from infertap.spool.folder import SEALED, SpoolFolder, segment_path


def test_the_cap_is_looked_at_once_a_second(folder: SpoolFolder, clock: Any) -> None:
    """There is room below the cap; an answer is repeated for a second and then renewed."""
    capacity = Capacity(folder, spool_bytes_max=100, clock=clock)
    folder.slot_dir("aa").mkdir()
    assert capacity.room()
    segment = segment_path(folder.slot_dir("aa"), 1, SEALED)
    segment.write_bytes(bytes(100))
    assert capacity.room()
    clock.now_s += 1
    assert not capacity.room()
    segment.unlink()
    clock.now_s += 1
    assert capacity.room()


def test_five_percent_of_the_disk_stay_free(
    small_disk: SpoolFolder, clock: Any, fill_disk: Callable[[int], None]
) -> None:
    """Below the floor there is no room, however small the spool is."""
    capacity = Capacity(small_disk, spool_bytes_max=1 << 40, clock=clock)
    assert capacity.room()
    disk = os.statvfs(small_disk.path)
    fill_disk(disk.f_blocks * disk.f_frsize // 25)
    clock.now_s += 1
    assert not capacity.room()


def test_a_vanished_folder_is_for_the_write_to_report(folder: SpoolFolder, clock: Any) -> None:
    """Capacity never raises."""
    gone = SpoolFolder(folder.path / "gone")
    assert Capacity(gone, spool_bytes_max=1, clock=clock).room()
