"""Carries the rows of many segments into one table, in one commit; rows that cannot go there are parked.

1. What is left out is parked before the commit, so that no crash can lose it.
2. Segments that the table holds already are left out by the transaction id of their slot, read from the handle that
   the commit uses.
3. Where there is no row, there is no commit.
"""

from collections.abc import Callable, Mapping, Sequence

from arro3.core import RecordBatch

from infertap.errors import RetryableError
from infertap.tables.arrow import UnencodableError
from infertap.tables.delta import DeltaWriter
from infertap.tables.failures import RowsRefusedError
from infertap.tables.parking import NO_COLUMN, REFUSED, Parking, sift
from infertap.tables.rows import Row, SegmentHead

Rendered = tuple[list[Row], list[Row]]
"""(rows, payloads that cannot be rendered)."""

Render = Callable[[SegmentHead], Rendered]


class Appender:
    """Appends segments to one table."""

    def __init__(self, writer: DeltaWriter, parking: Parking) -> None:
        self._writer = writer
        self._parking = parking
        self._table = writer.table.name

    def append(self, heads: Sequence[SegmentHead], render: Render) -> None:
        """Commit the rows of the segments that the table does not hold yet.

        Args:
            heads: Segments, ascending for each slot.
            render: The rows of one segment; asked for the missing ones only.

        Raises: RetryableError: nothing is known to be written; the same segments again later.
        """
        self._writer.refresh()
        waiting = self._writer.waiting(heads)
        rendered = [render(head) for head in waiting]
        rows = [row for good, _ in rendered for row in good]
        refused = [row for _, bad in rendered for row in bad]
        rows, batch, unencodable = self._encoded(rows)
        refused += unencodable
        self._park(waiting, rows, refused)
        if not rows:
            return
        try:
            self._writer.commit(batch, last_segments(waiting))
        except RowsRefusedError:
            pass
        else:
            return
        self._append_accepted(heads, waiting, rows, refused)

    def _encoded(self, rows: list[Row]) -> tuple[list[Row], RecordBatch, list[Row]]:
        try:
            return rows, self._writer.encoder.encode(rows), []
        except UnencodableError:
            good, bad = sift(rows, self._fits)
            return good, self._writer.encoder.encode(good), bad

    def _fits(self, rows: Sequence[Row]) -> bool:
        try:
            self._writer.encoder.encode(rows)
        except UnencodableError:
            return False
        return True

    def _append_accepted(
        self, heads: Sequence[SegmentHead], waiting: Sequence[SegmentHead], rows: list[Row], refused: list[Row]
    ) -> None:
        """Commit what the table accepts of `rows`, on a fresh handle, after it refused the whole."""
        self._writer.refresh()
        if self._writer.waiting(heads) != waiting:
            raise RetryableError(f"table `{self._table}`: another drainer committed some of the segments")
        with self._parking.trial(self._writer) as accepts:
            good, bad = sift(rows, accepts)
        if not bad:
            raise RetryableError(f"table `{self._table}`: refuses a batch whose rows pass its rules one by one")
        self._park(waiting, good, refused + bad)
        if not good:
            return
        try:
            self._writer.commit(self._writer.encoder.encode(good), last_segments(waiting))
        except RowsRefusedError as error:
            raise RetryableError(str(error)) from None

    def _park(self, heads: Sequence[SegmentHead], rows: Sequence[Row], refused: Sequence[Row]) -> None:
        names = self._writer.encoder.names
        extra = [row for row in rows if not names.issuperset(row)]
        for head in heads:
            self._parking.park(self._table, REFUSED, head, _of(head, refused))
            self._parking.park(self._table, NO_COLUMN, head, _of(head, extra))


def last_segments(heads: Sequence[SegmentHead]) -> Mapping[str, int]:
    """The highest segment of each slot; `heads` ascend for each slot."""
    return {head.spool_id: head.segment_no for head in heads}


def _of(head: SegmentHead, rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if (row["spool_id"], row["segment_no"]) == (head.spool_id, head.segment_no)]
