"""Keeps the spool below its cap: the oldest segments are skipped, for the destinations that are behind only."""

import logging
import os
from collections.abc import Sequence

from infertap.drain.delivery import Delivery
from infertap.drain.losses import lost_by_minute
from infertap.drain.slots import SegmentFile, Slots
from infertap.errors import SpoolError
from infertap.record import LossCause
from infertap.spool.capacity import FREE_SHARE_MIN
from infertap.spool.folder import SpoolFolder
from infertap.spool.reader import UnsupportedFormat, read_segment

ROOM_SHARE = 0.1
"""Of the cap, made free at once: owners go on spooling while the next skip is still to come."""

_log = logging.getLogger(__name__)


def enforce_cap(folder: SpoolFolder, slots: Slots, deliveries: Sequence[Delivery], *, spool_bytes_max: int) -> int:
    """Skips the oldest segments until the folder is below its cap; returns how many were skipped.

    A skipped request is counted as `lost/spool_full`, by minute of arrival, for each destination that had not passed
    it. Segments of a newer version and open ones cannot be skipped.
    """
    excess = excess_bytes(folder, spool_bytes_max)
    if excess <= 0:
        return 0
    excess += int(spool_bytes_max * ROOM_SHARE)
    skipped = 0
    files = [file for view in slots.views.values() for file in view.segments]
    for file in sorted(files, key=lambda file: (file.sealed_ns, file.segment_no)):
        if excess <= 0:
            break
        if _skip(file, slots, deliveries):
            excess -= file.size_bytes
            skipped += 1
    if skipped:
        _log.warning("the spool is full: %d segments were skipped and their records counted as lost", skipped)
    return skipped


def excess_bytes(folder: SpoolFolder, spool_bytes_max: int) -> int:
    """Bytes over the cap, or missing from the share of the disk that belongs to others; not positive if all is well.

    Where more is free than the whole spool may take, the share does not count: 5 % of a large disk is a lot.
    """
    size_bytes = folder.size_bytes()
    try:
        disk = os.statvfs(folder.path)
    except OSError:
        return size_bytes - spool_bytes_max
    free_min = min(int(disk.f_blocks * disk.f_frsize * FREE_SHARE_MIN), spool_bytes_max)
    missing = free_min - disk.f_bavail * disk.f_frsize
    return max(size_bytes - spool_bytes_max, min(missing, size_bytes))


def _skip(file: SegmentFile, slots: Slots, deliveries: Sequence[Delivery]) -> bool:
    """Moves the cursors of those that are behind past one segment."""
    view = slots.views[file.spool_id]
    try:
        segment = read_segment(file.path)
    except UnsupportedFormat:
        view.blocked_at = file.segment_no
        return False
    except (FileNotFoundError, SpoolError):
        return False
    slots.learn(segment)
    for delivery in deliveries:
        if view.cursors.segment_no(delivery.name) < file.segment_no:
            delivery.count([(file.spool_id, lost_by_minute(delivery.name, segment, LossCause.SPOOL_FULL))])
            slots.advance(file.spool_id, delivery.name, file.segment_no)
    return True
