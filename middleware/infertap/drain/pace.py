"""When a destination is served next: its interval, stretched under contention, and its own back-off after failures."""

import random

INTERVAL_S_MAX = 300.0
BACKOFF_S_MAX = 60.0
BUSY_SHARE_MAX = 0.2
"""A delivery that takes a larger share of the interval makes the interval longer: others write there, too."""


class Pace:
    """One destination's timetable, in monotonic seconds. No clock of its own."""

    def __init__(self, interval_s: float, rng: random.Random) -> None:
        self._base_s = interval_s
        self._interval_s = interval_s
        self._rng = rng
        self._failures = 0
        self.next_s = float("-inf")
        """Not before this, unless someone asks for a flush."""

    @property
    def backing_off(self) -> bool:
        """Whether the last delivery failed: neither a full batch nor an orphan makes it hurry then."""
        return self._failures > 0

    def delivered(self, now_s: float, took_s: float) -> None:
        """Plans the next delivery after one that worked."""
        self._failures = 0
        if took_s > BUSY_SHARE_MAX * self._interval_s:
            self._interval_s = min(2 * self._interval_s, max(INTERVAL_S_MAX, self._base_s))
        else:
            self._interval_s = max(self._base_s, 0.9 * self._interval_s)
        # Never later than the interval that was asked for, but not all pods in step.
        spread = (0.8, 1.0) if self._interval_s == self._base_s else (0.8, 1.2)
        self.next_s = now_s + self._interval_s * self._rng.uniform(*spread)

    def failed(self, now_s: float, retry_after_s: float | None = None, *, got_on: bool = False) -> float:
        """Plans the next try after a failure: 1, 2, 4 ... 60 s with jitter, or what the destination asked for.

        Args:
            got_on: Whether something was delivered before it failed: the back-off begins anew then.

        Returns:
            Seconds until then.
        """
        self._failures = 1 if got_on else self._failures + 1
        delay_s = min(BACKOFF_S_MAX, 2.0 ** min(self._failures - 1, 16)) * self._rng.uniform(0.75, 1.25)
        if retry_after_s is not None:
            delay_s = max(delay_s, min(retry_after_s, INTERVAL_S_MAX))
        self.next_s = now_s + delay_s
        return delay_s
