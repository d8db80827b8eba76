"""The account of one slot: every request is seen once and ends in exactly one outcome, per minute of arrival.

1. A request enters when its outcome is known, `seen` and outcome together; what is still in flight is the difference
   to the page's `SEEN`. So every LEDGER frame balances: seen = kept + sampled + lost.
2. Counts are cumulative over the slot's life, so that a lost frame heals with the next one. A frame carries only the
   minutes that changed.
3. Only `kept` can be taken back, and only before the frame that says so is durable.
"""

import threading
from collections.abc import Mapping
from typing import NamedTuple, Self

from infertap.record import LossCause
from infertap.spool.frames import pack
from infertap.spool.page import FINISHED, KEPT, LEDGERED, LOST, SAMPLED, SEEN

_SEEN = "seen"
_KEPT = "kept"
_SAMPLED = "sampled"

MINUTES_MAX = 10_080
"""A week. A request that arrived longer ago is counted in the oldest minute that is still held."""

_Minutes = dict[int, dict[str, int]]


class LedgerFrame(NamedTuple):
    """The payload of a LEDGER frame, and what it accounts for."""

    payload: bytes
    settled: int
    minutes: frozenset[int]


class Ledger:
    """Counts into memory and, for those who watch, into the page. Any thread may settle; the rest is the writer's."""

    def __init__(self, counters: "memoryview[int]") -> None:
        self._counters = counters
        self._lock = threading.Lock()
        self._minutes: _Minutes = {}
        self._since_seal: _Minutes = {}
        self._dirty: set[int] = set()
        self._oldest = 0
        self._settled = 0

    @property
    def dirty(self) -> bool:
        """Whether there is something that no frame has said yet."""
        return bool(self._dirty)

    def sample_out(self, minute: int, count: int = 1) -> None:
        """Books requests of an epoch minute that the user's rules chose not to keep."""
        with self._lock:
            self._book(minute, _SAMPLED, count)
            self._counters[SAMPLED] += count

    def lose(self, minute: int, cause: LossCause, count: int = 1) -> None:
        """Books requests of an epoch minute whose records are lost."""
        with self._lock:
            self._book(minute, f"lost/{cause}", count)
            self._counters[LOST[cause]] += count

    def keep(self, minutes: Mapping[int, int]) -> None:
        """Books rows (epoch minute -> count) that are about to be written."""
        with self._lock:
            for minute, count in minutes.items():
                self._book(minute, _KEPT, count)

    def take_back(self, minutes: Mapping[int, int]) -> None:
        """Undoes a `keep` whose rows were not written after all."""
        with self._lock:
            for minute, count in minutes.items():
                self._book(minute, _KEPT, -count)

    def frame(self) -> LedgerFrame:
        """What changed since the last durable frame."""
        with self._lock:
            minutes, self._dirty = frozenset(self._dirty), set()
            payload = {
                "minutes": {str(minute): self._minutes[minute] for minute in sorted(minutes)},
                "settled": self._settled,
            }
            return LedgerFrame(pack(payload), self._settled, minutes)

    def frame_failed(self, frame: LedgerFrame) -> None:
        """The frame did not reach the disk: the next one says it again."""
        with self._lock:
            self._dirty |= frame.minutes

    def frame_durable(self, frame: LedgerFrame, rows_kept: int) -> None:
        """The frame, and the rows before it, are on the disk."""
        with self._lock:
            self._counters[KEPT] += rows_kept
            self._counters[LEDGERED] = frame.settled
            while len(self._minutes) > MINUTES_MAX:
                oldest = min(self._minutes)
                if oldest in self._dirty:
                    break
                del self._minutes[oldest]
                self._oldest = oldest + 1

    def sealed(self) -> None:
        """Everything said so far is in sealed segments."""
        with self._lock:
            self._since_seal = {}

    def successor(self, counters: "memoryview[int]") -> Self:
        """The ledger of the next slot, after this one's folder has vanished with everything that was not sealed.

        Rows of the unsealed segment are lost; requests in flight go over to the new page.
        """
        new = type(self)(counters)
        with self._lock:
            in_flight = max(0, self._counters[SEEN] - self._settled)
            queued = max(0, self._counters[FINISHED] - self._settled)
            for minute, outcomes in self._since_seal.items():
                for outcome, count in outcomes.items():
                    if outcome == _KEPT:
                        new.lose(minute, LossCause.SPOOL_UNWRITABLE, count)
                    elif outcome == _SAMPLED:
                        new.sample_out(minute, count)
                    elif outcome != _SEEN:
                        new.lose(minute, LossCause(outcome.removeprefix("lost/")), count)
        counters[SEEN] = new._settled + in_flight
        counters[FINISHED] = new._settled + queued
        return new

    def _book(self, minute: int, outcome: str, count: int) -> None:
        minute = max(minute, self._oldest)
        self._settled += count
        self._dirty.add(minute)
        for account in (self._minutes, self._since_seal):
            outcomes = account.setdefault(minute, {})
            outcomes[_SEEN] = outcomes.get(_SEEN, 0) + count
            outcomes[outcome] = outcomes.get(outcome, 0) + count
