"""When a drainer may leave: pure rules over what it sees, so that each of them can be tested without waiting."""

from dataclasses import dataclass
from enum import StrEnum

RENEWALS_MAX = 10
"""Successful deliveries renew `drain_s` after the last owner has left, up to this many times its length."""


class End(StrEnum):
    """Why a drainer ended."""

    IDLE = "nobody holds a slot and everything is delivered"
    GAVE_UP = "the last owner has left and nothing could be delivered within drain_s"
    RETIRED = "a newer owner takes over"
    GONE = "the spool folder is gone"
    STOPPED = "it was told to stop at once"
    MEMORY = "it grew over resident_bytes_max"
    ONE_PASS = "everything that was there is delivered"
    FAILED = "the destination did not take everything"


@dataclass(slots=True)
class EndRules:
    """Remembers since when nobody is there. All times are monotonic seconds."""

    linger_s: float
    drain_s: float
    owners_left_s: float | None = None
    delivered_s: float = float("-inf")
    idle_since_s: float | None = None

    def next_s(self) -> float:
        """When `look` may decide something else although nothing has changed."""
        return float("inf") if self.idle_since_s is None else self.idle_since_s + self.linger_s

    def look(self, now_s: float, *, owners: bool, waiting: bool) -> End | None:
        """Decides after one look at the slots.

        Args:
            now_s: Now.
            owners: Whether any slot is held by its owner.
            waiting: Whether something is left that could be delivered.
        """
        if owners:
            self.owners_left_s = self.idle_since_s = None
            return None
        if self.owners_left_s is None:
            self.owners_left_s = now_s
        if not waiting:
            self.idle_since_s = now_s if self.idle_since_s is None else self.idle_since_s
            return End.IDLE if now_s - self.idle_since_s >= self.linger_s else None
        self.idle_since_s = None
        since_success_s = now_s - max(self.owners_left_s, self.delivered_s)
        if since_success_s >= self.drain_s or now_s - self.owners_left_s >= RENEWALS_MAX * self.drain_s:
            return End.GAVE_UP
        return None
