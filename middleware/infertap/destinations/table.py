"""Delivers segments to the Delta tables: spans, then rows, then the ledger, each exactly once.

1. No transaction spans tables. Each commit carries, for each slot, the highest segment that is in; a delivery that was
   interrupted between two tables goes on where it stopped.
2. The ledger comes last: what it counts as written is in the other two tables.
3. Arrow and Delta are imported by `open`, never by the app's process.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from infertap.clock import Clock
from infertap.destinations.protocol import OutcomeKey, Receipt
from infertap.destinations.server_span import render_server_span
from infertap.errors import RetryableError
from infertap.record import UNDECIDED
from infertap.spool.reader import Segment
from infertap.tables.rows import Payload, Row, SegmentHead, inference_row, span_row
from infertap.tables.schema import INFERENCE, LEDGER, SPANS
from infertap.targets import TableTarget

if TYPE_CHECKING:
    from infertap.tables.appending import Appender, Rendered
    from infertap.tables.counting import LedgerCounter, SegmentCounts
    from infertap.tables.delta import DeltaWriter

_log = logging.getLogger(__name__)

_SLOTS_MAX = 1024
_HOUR_NS = 3600 * 10**9
_WRONG_SHAPE = (KeyError, TypeError, ValueError, AttributeError, IndexError)
"""What a payload of the wrong shape raises where it is rendered."""


@dataclass(frozen=True, slots=True)
class _Tables:
    writers: "tuple[DeltaWriter, ...]"
    spans: "Appender"
    inference: "Appender"
    ledger: "LedgerCounter"


class TableDestination:
    """Inference tables under one root. All calls come from the drainer's one thread."""

    name = "table"

    def __init__(self, target: TableTarget, *, parked_dir: Path, clock: Clock) -> None:
        """Args:
        target: The root of the tables.
        parked_dir: Where rows go that a table refuses; made when it is needed.
        """
        self._target = target
        self._parked_dir = parked_dir
        self._clock = clock
        self._tables: _Tables | None = None
        self._maintained_hour = -1
        self._tried: dict[str, int] = {}
        """By slot, the highest segment that was in hand: what is beyond has certainly not arrived."""

    def open(self) -> None:
        """Import the heavy parts. Touches no table: an unreachable one shows at the first delivery."""
        from infertap.tables.appending import Appender
        from infertap.tables.counting import LedgerCounter
        from infertap.tables.delta import DeltaWriter
        from infertap.tables.parking import Parking

        spans, inference, ledger = (
            DeltaWriter(table, self._target, self._clock) for table in (SPANS, INFERENCE, LEDGER)
        )
        parking = Parking(self._parked_dir)
        self._tables = _Tables(
            writers=(spans, inference, ledger),
            spans=Appender(spans, parking),
            inference=Appender(inference, parking),
            ledger=LedgerCounter(ledger, parking),
        )

    @property
    def keeps(self) -> AbstractSet[tuple[str, int]]:
        """Nothing: it delivers all or nothing."""
        return frozenset()

    def deliver(self, segments: Sequence[Segment], outcomes: Mapping[str, Mapping[OutcomeKey, int]]) -> Receipt:
        """Commit the segments' spans, rows and counts; all durable when this returns.

        Args:
            segments: Ascending for each slot.
            outcomes: The drainer's cumulative outcomes of these slots; the ledger gets what it does not hold.

        Returns:
            All segments as delivered, and as outcomes the rows that were parked.

        Raises:
            RetryableError: what is in the tables is known to them; bring the same segments again.
        """
        if self._tables is None:
            raise RetryableError("the tables were not opened")
        self._make_due_checkpoints(self._tables)
        heads = [SegmentHead.of(segment.spool_id, segment.segment_no, segment.header) for segment in segments]
        self._note_tried(heads)
        at = {(segment.spool_id, segment.segment_no): segment for segment in segments}
        try:
            self._tables.spans.append(heads, lambda head: _spans(at[head.spool_id, head.segment_no], head))
            self._tables.inference.append(heads, lambda head: _requests(at[head.spool_id, head.segment_no], head))
            parked = self._tables.ledger.count(
                [_counts(segment, head) for segment, head in zip(segments, heads, strict=True)], outcomes
            )
        except OSError as error:
            # The tables' own errors are ours by now: this is the folder for parked rows.
            raise RetryableError(f"parked rows cannot be written: {error.strerror}") from None
        return Receipt(delivered={head.spool_id: head.segment_no for head in heads}, outcomes=parked)

    def forfeit(self, segment: Segment, lost: Mapping[OutcomeKey, int]) -> Mapping[OutcomeKey, int]:
        """See `Destination`. A delivery that failed may have failed behind the rows: then only the tables can tell."""
        tried = self._tried.get(segment.spool_id)
        if tried is not None and segment.segment_no > tried:
            return lost
        number = str(segment.segment_no)
        return {(minute, name, UNDECIDED, number): count for (minute, name, _, _), count in lost.items()}

    def decide(
        self, spool_id: str, undecided: Mapping[OutcomeKey, int], *, started_ns: int
    ) -> Mapping[OutcomeKey, int]:
        """See `Destination`: the tables' own transactions decide."""
        if self._tables is None:
            raise RetryableError("the tables were not opened")
        return self._tables.ledger.decide(spool_id, undecided, started_ns=started_ns, rows=self._tables.writers[1])

    def maintain(self) -> None:
        """Checkpoints that are due; for a local root, once an hour, compaction and cleanup. Raises: RetryableError."""
        if self._tables is None:
            return
        from infertap.tables.maintenance import maintain

        self._make_due_checkpoints(self._tables)
        now_ns = self._clock.wall_ns()
        if self._target.local_path is not None and now_ns // _HOUR_NS != self._maintained_hour:
            self._maintained_hour = now_ns // _HOUR_NS
            maintain(self._target, now_ns=now_ns, force=False)

    def _note_tried(self, heads: Sequence[SegmentHead]) -> None:
        for head in heads:
            # The newest last: of a slot that was forgotten, nothing is certain.
            self._tried[head.spool_id] = max(head.segment_no, self._tried.pop(head.spool_id, 0))
        while len(self._tried) > _SLOTS_MAX:
            del self._tried[next(iter(self._tried))]

    def _make_due_checkpoints(self, tables: _Tables) -> None:
        """Also between two deliveries: under a backlog nobody is idle, and a long log makes every commit dear."""
        from infertap.tables.maintenance import make_checkpoint

        for writer in tables.writers:
            if writer.checkpoint_due:
                writer.checkpoint_due = False
                try:
                    make_checkpoint(writer.table, self._target)
                except RetryableError as error:
                    # The rows are in the log; the next multiple tries again.
                    _log.info("a checkpoint has to wait: %s", error)
                else:
                    writer.forget()

    def close(self, *, deadline_s: float) -> None:  # noqa: ARG002 -- the protocol's name
        """Let go of the tables. Nothing waits in here, so there is nothing to flush within `deadline_s`."""
        self._tables = None


def _spans(segment: Segment, head: SegmentHead) -> "Rendered":
    sampled = (request for request in segment.requests if "span" in request)
    spans = [payload for payload in segment.spans if not payload.get("otlp_only")]
    payloads = [*spans, *sampled]
    app_spans = len(spans)

    def render(position: int, payload: Payload) -> Row:
        if position >= app_spans:
            # Not its payload: nothing is gained by leaving out here what the row has as null.
            payload = vars(render_server_span(payload, segment.header))
        return span_row(payload, head, position)

    return _rendered(payloads, head, render)


def _requests(segment: Segment, head: SegmentHead) -> "Rendered":
    return _rendered(segment.requests, head, lambda _, payload: inference_row(payload, head))


def _rendered(payloads: Sequence[Payload], head: SegmentHead, render: Callable[[int, Payload], Row]) -> "Rendered":
    rows: list[Row] = []
    refused: list[Row] = []
    for position, payload in enumerate(payloads):
        try:
            rows.append(render(position, payload))
        except _WRONG_SHAPE:
            refused.append({**payload, "spool_id": head.spool_id, "segment_no": head.segment_no})
    return rows, refused


def _counts(segment: Segment, head: SegmentHead) -> "SegmentCounts":
    from infertap.tables.counting import SegmentCounts

    return SegmentCounts(head, segment.requests, segment.ledger)
