"""What the last frames and the page of a dead owner say about requests that nobody has counted.

These counts get keys of their own (`seen/recovered`, `lost/crash_in_flight` ...): the owner's cumulative counts of the
same minutes may have been delivered and deleted long ago, so they cannot be continued. Summed over the causes, each
minute balances as before.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from infertap.record import LossCause
from infertap.spool.frames import Frame, Kind, unpack
from infertap.spool.page import PageView

_NS_PER_MINUTE = 60_000_000_000
_US_PER_MINUTE = 60_000_000


class CrashCounts:
    """Collected over the open segments of one slot, in order."""

    def __init__(self) -> None:
        self.ledgered = 0
        """Requests that the last LEDGER frame accounts for."""
        self.rows: Counter[int] = Counter()
        """Rows behind the last LEDGER frame, by minute: on the disk, but in no count."""

    def add(self, frames: Sequence[Frame]) -> None:
        """Takes in the frames of one segment."""
        for frame in frames:
            if frame.kind not in (Kind.LEDGER, Kind.REQUEST):
                continue
            try:
                payload = unpack(frame.payload)
                if frame.kind == Kind.LEDGER:
                    self.ledgered = max(self.ledgered, int(payload["settled"]))
                    self.rows.clear()
                else:
                    self.rows[int(payload["request_time"]) // _US_PER_MINUTE] += 1
            except (KeyError, TypeError, ValueError):
                continue  # Not ours to judge: the reader counts it as damaged.

    def in_flight(self, page: PageView) -> int:
        """Requests that arrived and never became rows, or anything else that was counted."""
        return max(0, page.seen - max(page.ledgered, self.ledgered) - self.rows.total())


def crash_ledger(page: PageView | None, counts: CrashCounts) -> dict[str, Any] | None:
    """The payload of the LEDGER frame that completes the owner's account; None where it is complete.

    It adds rows that no frame had counted yet, and requests that never became rows.
    """
    ledgered, in_flight = counts.ledgered, 0
    if page is not None:
        ledgered = max(page.ledgered, ledgered)
        in_flight = counts.in_flight(page)
    minutes = {minute: {"seen/recovered": count, "kept/recovered": count} for minute, count in counts.rows.items()}
    if page is not None and in_flight:
        # Their own minutes died with the owner: they are counted in that of its last sign of life.
        last_minute = max(page.beat_ns, page.started_ns) // _NS_PER_MINUTE
        cause = LossCause.CRASH_IN_FLIGHT
        minutes.setdefault(last_minute, {}).update({f"seen/{cause}": in_flight, f"lost/{cause}": in_flight})
    if not minutes:
        return None
    settled = ledgered + counts.rows.total() + in_flight
    return {"minutes": {str(minute): minutes[minute] for minute in sorted(minutes)}, "settled": settled}
