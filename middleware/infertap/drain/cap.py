"""Keeps the spool below its cap: the oldest segments are skipped, for the destinations that are behind only."""

import logging
from collections.abc import Sequence

from infertap.drain.delivery import Delivery
from infertap.drain.losses import owner_counts
from infertap.drain.slots import SegmentFile, Slots
from infertap.errors import SpoolError
from infertap.spool.capacity import missing_free_bytes
from infertap.spool.folder import SpoolFolder
from infertap.spool.reader import UnsupportedFormat, read_segment
from infertap.words import plural

ROOM_SHARE = 0.1
"""Made free beyond what must be: owners go on spooling while the next skip is still to come."""

_log = logging.getLogger(__name__)


def enforce_cap(folder: SpoolFolder, slots: Slots, deliveries: Sequence[Delivery], *, spool_bytes_max: int) -> int:
    """Skips the oldest segments until the folder is below its cap; returns how many were skipped.

    A skipped request is counted as `lost/spool_full`, by minute of arrival, for each destination that had not passed
    it, unless that has it all the same. Segments of a newer version and open ones cannot be skipped.
    """
    excess = excess_bytes(folder, spool_bytes_max)
    skipped = 0
    files = [file for view in slots.views.values() for file in view.segments]
    for file in sorted(files, key=lambda file: (file.sealed_ns, file.segment_no)):
        if excess <= 0:
            break
        if _skip(file, slots, deliveries):
            excess -= file.size_bytes
            skipped += 1
    if skipped:
        _log.warning(
            "the spool is full: %s skipped, with all records in it; they are counted as lost",
            plural(skipped, "segment"),
        )
    return skipped


def excess_bytes(folder: SpoolFolder, spool_bytes_max: int) -> int:
    """Bytes to let go, some room included; 0 if all is well, and also where letting go would not help.

    1. Over the cap: down to `ROOM_SHARE` below it.
    2. Too little of the disk is free: as much as is missing, if the spool holds as much. Where it does not, others have
       filled the disk, and they would fill what we gave up, too: then what is durable stays, and new records are lost.
    """
    size_bytes = folder.size_bytes()
    if size_bytes > spool_bytes_max:
        return size_bytes - int(spool_bytes_max * (1 - ROOM_SHARE))
    missing_bytes = missing_free_bytes(folder, spool_bytes_max)
    if 0 < missing_bytes <= size_bytes:
        return missing_bytes + int(missing_bytes * ROOM_SHARE)
    return 0


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
    # What the owner says in this segment, nobody else will say again.
    view.cursors.learn(owner_counts(segment))
    for delivery in deliveries:
        if view.cursors.segment_no(delivery.name) < file.segment_no:
            delivery.forfeit(segment)
            slots.advance(file.spool_id, delivery.name, file.segment_no)
    return True
