"""The ledger's rows: cumulative counts of the spool become increments, so that completeness is a sum over a table.

1. A count of the spool is cumulative for its slot and minute. Its increment is what the table does not hold yet, read
   from the table at the version that the commit builds on: a restart doubles nothing, a lost frame heals.
2. `written` of the table is an increment itself: the drainer counts the rows of the segments that the ledger does not
   cover yet.
3. Counts of the owner (`seen`, `kept`, `sampled`, `lost`) have no destination: they hold for each one.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

from arro3.core import Table

from infertap.record import UNDECIDED
from infertap.tables.delta import sql_text
from infertap.tables.rows import Row, SegmentHead

Key = tuple[int, str | None, str, str | None]
"""(epoch minute, destination or None, outcome, cause or None)."""

LATE = "recovered"
"""Cause of `written` where the segment was given up before the ledger had counted its rows."""

_MINUTE_US = 60_000_000
_MINUTES_OF_A_DAY = 1_440
_MINUTES_KEPT = 2 * _MINUTES_OF_A_DAY
_SLOTS_KEPT = 256
"""Slots whose counts stay in memory; those of others are read again when they come back."""

Select = Callable[[str], Table]


def owner_counts(frames: Iterable[Mapping[str, Any]]) -> dict[Key, int]:
    """The cumulative counts of a slot's LEDGER payloads, oldest first; the last one wins."""
    counts: dict[Key, int] = {}
    for frame in frames:
        for minute, outcomes in frame["minutes"].items():
            for name, count in outcomes.items():
                outcome, _, cause = name.partition("/")
                counts[int(minute), None, outcome, cause or None] = count
    return counts


def drainer_counts(outcomes: Mapping[tuple[int, str, str, str], int]) -> dict[Key, int]:
    """The drainer's cumulative outcomes, without what the table counts itself (rule 2) and what nobody knows yet.

    Among them is what owners had counted in segments that were given up.
    """
    return {
        (minute, destination or None, outcome, cause or None): count
        for (minute, destination, outcome, cause), count in outcomes.items()
        if outcome != UNDECIDED and (destination, outcome, cause) != ("table", "written", "")
    }


def by_minute(arrivals_us: Iterable[int]) -> Counter[int]:
    """How many of these arrival times lie in each epoch minute."""
    return Counter(time_us // _MINUTE_US for time_us in arrivals_us)


@dataclass(slots=True)
class _Held:
    covered: int
    since_minute: int
    counts: dict[Key, int]

    def keep_from(self, minute: int) -> None:
        """Let go of what is older than `minute`, where that is worth the walk."""
        if minute - self.since_minute > _MINUTES_KEPT:
            self.since_minute = minute
            self.counts = {key: count for key, count in self.counts.items() if key[0] >= minute}


class LedgerBase:
    """What the table holds already, by slot; a memory of it that `forget` empties after any error."""

    def __init__(self) -> None:
        self._slots: dict[str, _Held] = {}

    def missing(self, spool_id: str, covered: int, cumulative: Mapping[Key, int], select: Select) -> dict[Key, int]:
        """The increments that bring the table to `cumulative`.

        Args:
            covered: The slot's highest segment in the ledger, as the commit's handle sees it. Another one than this
                memory knows means that somebody else wrote: the slot is read again.
            select: Queries the ledger, under the name `t`, at the version that the commit will build on.
        """
        if not cumulative:
            return {}
        oldest = min(key[0] for key in cumulative)
        slot = self._slots.get(spool_id)
        if slot is None or slot.covered != covered or oldest < slot.since_minute:
            since = oldest - oldest % _MINUTES_OF_A_DAY
            slot = self._slots[spool_id] = _Held(covered, since, _read(spool_id, since, select))
        held = slot.counts
        # Counts only grow. One that fell was lost with a file of the spool, and what is written down stays true.
        return {key: count - held.get(key, 0) for key, count in cumulative.items() if count > held.get(key, 0)}

    def committed(self, spool_id: str, covered: int, cumulative: Mapping[Key, int]) -> None:
        """Remember that the table now holds `cumulative`, and covers the slot's segments up to `covered`."""
        slot = self._slots.pop(spool_id, None)
        if slot is None:
            return
        slot.covered = covered
        slot.counts.update({key: max(count, slot.counts.get(key, 0)) for key, count in cumulative.items()})
        slot.keep_from(min((key[0] for key in cumulative), default=slot.since_minute) - _MINUTES_KEPT)
        self._slots[spool_id] = slot
        while len(self._slots) > _SLOTS_KEPT:
            del self._slots[next(iter(self._slots))]

    def forget(self) -> None:
        """Read everything from the table again."""
        self._slots.clear()


def ledger_rows(increments: Mapping[Key, int], head: SegmentHead) -> list[Row]:
    """The ledger's rows for one slot; `head` is of the highest segment that they cover."""
    return [
        {
            "spool_id": head.spool_id,
            "segment_no": head.segment_no,
            "service_name": head.service_name,
            "instance": head.instance,
            "minute": minute * _MINUTE_US,
            "destination": destination,
            "outcome": outcome,
            "cause": cause,
            "count": count,
            "date": minute // _MINUTES_OF_A_DAY,
        }
        for (minute, destination, outcome, cause), count in increments.items()
    ]


def _read(spool_id: str, since_minute: int, select: Select) -> dict[Key, int]:
    since_day = date(1970, 1, 1) + timedelta(minutes=since_minute)
    found = select(
        "SELECT CAST(minute AS BIGINT) AS us, destination, outcome, cause, sum(count) AS n FROM t "
        f"WHERE spool_id = {sql_text(spool_id)} AND date >= DATE '{since_day}' "
        "AND (destination IS NULL OR destination <> 'table' OR outcome <> 'written' OR cause IS NOT NULL) "
        "GROUP BY 1, 2, 3, 4"
    )
    columns = [found[name].to_pylist() for name in ("us", "destination", "outcome", "cause", "n")]
    return {
        (us // _MINUTE_US, destination, outcome, cause): n
        for us, destination, outcome, cause, n in zip(*columns, strict=True)
    }
