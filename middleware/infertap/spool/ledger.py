"""The account of one slot: every request is seen once and ends in exactly one outcome, per minute of arrival.

1. A request enters when its outcome is known, `seen` and outcome together; what is still in flight is the difference
   to the page's `SEEN`. So every LEDGER frame balances: seen = kept + sampled + lost.
2. Counts are cumulative over the slot's life, so that a lost frame heals with the next one. A frame carries only the
   minutes that changed.
3. Only `kept` can be taken back, and only before the frame that says so is durable.
4. A ledger that has a successor settles there: nobody's count is lost at a change of slot.
"""

import threading
from collections import Counter
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
    said: _Minutes
    """What it says for the first time."""


class Ledger:
    """Counts into memory and, for those who watch, into the page. Any thread may settle; the rest is the writer's."""

    def __init__(self, counters: "memoryview[int]") -> None:
        self._counters = counters
        self._lock = threading.Lock()
        self._minutes: _Minutes = {}
        self._since_seal: _Minutes = {}
        self._unsaid: _Minutes = {}
        """Booked since the last frame was made."""
        self._dirty: set[int] = set()
        self._oldest = 0
        self._settled = 0
        self._before: Counter[int] = Counter()
        self._successor: Self | None = None
        self._left_behind: list[tuple[memoryview[int], int, int]] = []

    @property
    def dirty(self) -> bool:
        """Whether there is something that no frame has said yet."""
        return bool(self._dirty)

    def sample_out(self, minute: int, count: int = 1) -> None:
        """Books requests of an epoch minute that the user's rules chose not to keep."""
        with self._lock:
            if self._successor is None:
                self._book(minute, _SAMPLED, count)
                self._counters[SAMPLED] += count
                return
        self._successor.sample_out(minute, count)

    def lose(self, minute: int, cause: LossCause, count: int = 1) -> None:
        """Books requests of an epoch minute whose records are lost."""
        with self._lock:
            if self._successor is None:
                self._book(minute, f"lost/{cause}", count)
                self._counters[LOST[cause]] += count
                return
        self._successor.lose(minute, cause, count)

    def totals(self) -> Counter[int]:
        """What has become of all requests of this process, by index of the page; other slots' than this one included.

        Without the rows that went with a folder: those are lost.
        """
        with self._lock:
            return self._before + self._own_totals()

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
            minutes = frozenset(self._dirty)
            payload = {
                "minutes": {str(minute): self._minutes[minute] for minute in sorted(minutes)},
                "settled": self._settled,
            }
            frame = LedgerFrame(pack(payload), self._settled, minutes, self._unsaid)
            self._dirty, self._unsaid = set(), {}
            return frame

    def frame_failed(self, frame: LedgerFrame) -> None:
        """The frame did not reach the disk: the next one says it again."""
        with self._lock:
            self._dirty |= frame.minutes
            for minute, outcomes in frame.said.items():
                for outcome, count in outcomes.items():
                    _add(self._unsaid, minute, outcome, count)

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
        """Everything said so far is in sealed segments; what others have booked since the last frame is not."""
        with self._lock:
            self._since_seal = {minute: dict(outcomes) for minute, outcomes in self._unsaid.items()}

    def successor(self, counters: "memoryview[int]") -> Self:
        """The ledger of the next slot, after this one's folder has vanished with everything that was not sealed.

        Rows of the unsealed segment are lost; requests in flight go over to the new page.
        """
        new = type(self)(counters)
        with self._lock:
            self._catch_up()
            seen, finished = self._counters[SEEN], self._counters[FINISHED]
            new._before = self._before + self._own_totals()
            for minute, outcomes in self._since_seal.items():
                for outcome, count in outcomes.items():
                    if not count:
                        continue
                    if outcome == _KEPT:
                        new._before[KEPT] -= count
                        new.lose(minute, LossCause.SPOOL_UNWRITABLE, count)
                    elif outcome == _SAMPLED:
                        new._before[SAMPLED] -= count
                        new.sample_out(minute, count)
                    elif outcome != _SEEN:
                        cause = LossCause(outcome.removeprefix("lost/"))
                        new._before[LOST[cause]] -= count
                        new.lose(minute, cause, count)
            counters[SEEN] = new._settled + max(0, seen - self._settled)
            counters[FINISHED] = new._settled + max(0, finished - self._settled)
            new._left_behind = [*self._left_behind, (self._counters, seen, finished)]
            self._successor = new
        return new

    def take_left_behind(self) -> None:
        """Takes over the requests that were still counted in an older page after `successor` had read it.

        To be called once everybody counts in this ledger's page.
        """
        with self._lock:
            self._catch_up()
            self._left_behind = []

    def _catch_up(self) -> None:
        for place, (counters, seen, finished) in enumerate(self._left_behind):
            now_seen, now_finished = counters[SEEN], counters[FINISHED]
            self._left_behind[place] = (counters, now_seen, now_finished)
            # The event loop adds to these beside us without a call in between, as we do: nothing gets lost.
            self._counters[SEEN] += now_seen - seen
            self._counters[FINISHED] += now_finished - finished

    def _own_totals(self) -> Counter[int]:
        return Counter({index: self._counters[index] for index in (KEPT, SAMPLED, *LOST.values())})

    def _book(self, minute: int, outcome: str, count: int) -> None:
        minute = max(minute, self._oldest)
        self._settled += count
        self._dirty.add(minute)
        for account in (self._minutes, self._since_seal, self._unsaid):
            _add(account, minute, _SEEN, count)
            _add(account, minute, outcome, count)


def _add(account: _Minutes, minute: int, outcome: str, count: int) -> None:
    outcomes = account.setdefault(minute, {})
    outcomes[outcome] = outcomes.get(outcome, 0) + count
