"""Readies a spool folder for other destinations than it was written for, so that no record goes to two of a kind."""

from collections.abc import Collection

from infertap.spool.cursors import Cursors
from infertap.spool.folder import SpoolFolder
from infertap.spool.waiting import Waiting


def pass_over(folder: SpoolFolder, *, before: Collection[str], now: Collection[str]) -> None:
    """Has a destination of a new kind begin where the old one stopped; one of the same kind goes on from its cursor.

    Only under `drainer.lock`. Safe twice.

    Args:
        before: Names of the destinations that the folder was written for.
        now: Names of those that it is delivered to.

    Raises:
        OSError: A cursor cannot be written; what was not yet written may be delivered twice.
    """
    new = set(now) - set(before)
    for spool_id in folder.slot_ids() if new else ():
        cursors = Cursors.load(folder, spool_id)
        passed = max((cursors.segment_no(name) for name in before), default=0)
        if passed:
            for name in new:
                cursors.advance(name, passed)
            cursors.save(folder)


def given_up(folder: SpoolFolder, *, before: Collection[str], now: Collection[str]) -> dict[str, Waiting]:
    """What each destination that has no successor among `now` has not taken yet, where there is any."""
    left: dict[str, Waiting] = {}
    if set(now) - set(before):
        return left  # the new kind takes over from the old one
    for name in sorted(set(before) - set(now)):
        waiting = Waiting.for_destination(folder, name)
        if waiting.segments:
            left[name] = waiting
    return left
