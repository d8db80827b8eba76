"""Writes the ledger: what owners and drainer counted, and what the tables themselves took or parked.

1. A commit covers whole segments, under the transaction ids of their slots, like those of the other tables.
2. Segments that are covered already may bring newer outcomes of the drainer: what the table does not hold is added,
   under the slot's old number. So may a slot without any segment: its owner has gone.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from infertap.record import LossCause
from infertap.tables.delta import DeltaWriter, sql_text
from infertap.tables.ledger import LATE, Key, LedgerBase, by_minute, drainer_counts, ledger_rows, owner_counts
from infertap.tables.parking import REFUSED, Parking
from infertap.tables.rows import Payload, Row, SegmentHead, arrival_us
from infertap.tables.schema import INFERENCE

OutcomeKey = tuple[int, str, str, str]
Outcomes = Mapping[OutcomeKey, int]

Parked = dict[str, dict[OutcomeKey, int]]
"""By slot, the rows that were parked."""


@dataclass(frozen=True, slots=True)
class SegmentCounts:
    """What there is to count in one segment: its REQUEST and LEDGER payloads."""

    head: SegmentHead
    requests: Sequence[Payload]
    ledger: Sequence[Payload]


@dataclass(frozen=True, slots=True)
class _Change:
    head: SegmentHead
    """Of the highest segment that is covered with this change."""
    cumulative: Mapping[Key, int]
    rows: list[Row]


class LedgerCounter:
    """Appends to the table `ledger`."""

    def __init__(self, writer: DeltaWriter, parking: Parking) -> None:
        self._writer = writer
        self._parking = parking
        self._base = LedgerBase()

    def count(self, segments: Sequence[SegmentCounts], outcomes: Mapping[str, Outcomes]) -> Parked:
        """Commit the counts of the segments that the ledger does not cover, and outcomes that it does not hold.

        Returns: The rows parked in these segments; the drainer adds them to its outcomes together with its cursor.
        Raises: RetryableError: nothing is known to be written; the same again later.
        """
        changes: list[_Change] = []
        try:
            self._writer.refresh()
            changes = self._changes(segments, outcomes)
            rows = [row for change in changes for row in change.rows]
            if rows:
                covered = {change.head.spool_id: change.head.segment_no for change in changes}
                self._writer.commit(self._writer.encoder.encode(rows), covered)
        except BaseException:
            # The error may have come after the commit: what the table holds must be read again.
            self._base.forget()
            raise
        for change in changes:
            # Without counts of its own the slot's memory was not compared with the table, and may be somebody's past.
            if change.cumulative:
                self._base.committed(change.head.spool_id, change.head.segment_no, change.cumulative)
        return self._parked([segment.head for segment in segments])

    def decide(
        self, spool_id: str, undecided: Mapping[OutcomeKey, int], *, started_ns: int, rows: DeltaWriter
    ) -> dict[OutcomeKey, int]:
        """What became of requests of segments that do not come again, each of them counted once.

        Args:
            undecided: Their outcome is `UNDECIDED`; see `record`.
            started_ns: When the slot was made, nanoseconds since the epoch.
            rows: Of the table `inference`.

        Returns: Outcomes for the drainer to count; none for what the ledger counts already.
        Raises: RetryableError: the tables do not answer.
        """
        rows.refresh()
        self._writer.refresh()
        held = rows.committed(spool_id, started_ns=started_ns)
        covered = self._writer.committed(spool_id, started_ns=started_ns)
        decided: Counter[OutcomeKey] = Counter()
        parked: dict[int, Counter[int]] = {}
        for (minute, table, _, cause), count in undecided.items():
            number = int(cause)
            if number > max(held, covered):
                decided[minute, table, "lost", LossCause.SPOOL_FULL.value] += count
                continue
            if number not in parked:
                parked[number] = self._parked_by_minute(SegmentHead.of(spool_id, number, {"started_ns": started_ns}))
            decided[minute, table, "lost", LossCause.PARKED.value] += parked[number][minute]
            if number > covered:
                decided[minute, table, "written", LATE] += count - parked[number][minute]
        return dict(+decided)

    def _changes(self, segments: Sequence[SegmentCounts], outcomes: Mapping[str, Outcomes]) -> list[_Change]:
        waiting = self._writer.waiting([segment.head for segment in segments])
        places = {(head.spool_id, head.segment_no) for head in waiting}
        slots: dict[str, list[SegmentCounts]] = {}
        for segment in segments:
            slots.setdefault(segment.head.spool_id, []).append(segment)
        changes = [
            self._change(
                of_slot[0].head,
                [segment for segment in of_slot if (slot, segment.head.segment_no) in places],
                outcomes.get(slot, {}),
            )
            for slot, of_slot in slots.items()
        ]
        gone = [slot for slot, counts in outcomes.items() if counts and slot not in slots]
        return changes + [self._change(self._known_head(slot), [], outcomes[slot]) for slot in gone]

    def _known_head(self, spool_id: str) -> SegmentHead:
        """The head of a slot that brings outcomes but no segment any more, as far as the ledger knows it."""
        rows = self._writer.select(
            "SELECT max(service_name) AS service_name, max(instance) AS instance "
            f"FROM t WHERE spool_id = {sql_text(spool_id)}"
        )
        names = {name: rows[name].to_pylist()[0] for name in ("service_name", "instance")}
        return SegmentHead.of(spool_id, 0, names)

    def _change(self, first: SegmentHead, new: Sequence[SegmentCounts], outcomes: Outcomes) -> _Change:
        covered = self._writer.committed(first.spool_id, started_ns=first.started_ns)
        head = new[-1].head if new else first.at(covered)
        cumulative = owner_counts(frame for segment in new for frame in segment.ledger)
        for key, count in drainer_counts(outcomes).items():
            cumulative[key] = max(count, cumulative.get(key, 0))
        increments = self._base.missing(first.spool_id, covered, cumulative, self._writer.select)
        written: Counter[int] = Counter()
        for segment in new:
            written += by_minute(arrival_us(request, segment.head) for request in segment.requests)
            written -= self._parked_by_minute(segment.head)
        own: dict[Key, int] = {(minute, "table", "written", None): count for minute, count in written.items()}
        return _Change(head, cumulative, ledger_rows(increments, head) + ledger_rows(own, head))

    def _parked(self, heads: Sequence[SegmentHead]) -> Parked:
        parked: Parked = {}
        for head in heads:
            for minute, count in self._parked_by_minute(head).items():
                of_slot = parked.setdefault(head.spool_id, {})
                key = (minute, "table", "lost", LossCause.PARKED.value)
                of_slot[key] = of_slot.get(key, 0) + count
        return parked

    def _parked_by_minute(self, head: SegmentHead) -> Counter[int]:
        return by_minute(arrival_us(row, head) for row in self._parking.parked(INFERENCE.name, REFUSED, head))
