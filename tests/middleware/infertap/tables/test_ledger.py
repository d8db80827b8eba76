"""Cumulative counts become increments against what the table holds."""

from typing import Any

import pytest
from arro3.core import Table

from infertap.clock import SystemClock
from infertap.tables.delta import DeltaWriter
from infertap.tables.ledger import LedgerBase, by_minute, drainer_counts, ledger_rows, owner_counts
from infertap.tables.rows import SegmentHead
from infertap.tables.schema import LEDGER
from infertap.targets import TableTarget

MINUTE = 29_000_000
SEEN = (MINUTE, None, "seen", None)
LOST = (MINUTE, None, "lost", "queue_full")


@pytest.fixture
def ledger(target: TableTarget) -> DeltaWriter:
    """A writer of `ledger` on an open handle."""
    writer = DeltaWriter(LEDGER, target, SystemClock())
    writer.refresh()
    return writer


def _commit(ledger: DeltaWriter, increments: dict[Any, int], number: int) -> None:
    rows = ledger_rows(increments, SegmentHead.of("a1", number, {}))
    ledger.commit(ledger.encoder.encode(rows), {"a1": number})


def _no_reading(sql: str) -> Table:
    raise AssertionError(f"the table was read: {sql}")


def test_the_last_count_of_a_minute_wins() -> None:
    """Frames are cumulative; an outcome with a cause is written with a slash."""
    frames = [
        {"minutes": {str(MINUTE): {"seen": 3, "lost/queue_full": 1}}},
        {"minutes": {str(MINUTE): {"seen": 5}, str(MINUTE + 1): {"seen": 1}}},
    ]

    assert owner_counts(frames) == {SEEN: 5, LOST: 1, (MINUTE + 1, None, "seen", None): 1}


def test_what_the_table_writes_is_not_taken_from_the_drainer() -> None:
    """The table counts its own rows; everything else that the drainer decided is taken as it is."""
    outcomes = {
        (MINUTE, "otlp", "written", ""): 4,
        (MINUTE, "otlp", "lost", "rejected"): 1,
        (MINUTE, "table", "lost", "parked"): 2,
        (MINUTE, "table", "written", ""): 3,
    }

    assert drainer_counts(outcomes) == {
        (MINUTE, "otlp", "written", None): 4,
        (MINUTE, "otlp", "lost", "rejected"): 1,
        (MINUTE, "table", "lost", "parked"): 2,
    }


def test_arrivals_are_counted_by_the_minute() -> None:
    """A minute begins with its first microsecond."""
    minute_us = MINUTE * 60_000_000

    assert by_minute([minute_us, minute_us + 59_999_999, minute_us + 60_000_000]) == {MINUTE: 2, MINUTE + 1: 1}


def test_only_what_the_table_does_not_hold_is_added(ledger: DeltaWriter) -> None:
    """After a commit the memory knows it, and a new process reads it from the table."""
    base = LedgerBase()
    increments = base.missing("a1", 0, {SEEN: 5, LOST: 1}, ledger.select)
    assert increments == {SEEN: 5, LOST: 1}
    _commit(ledger, increments, 1)
    base.committed("a1", 1, {SEEN: 5, LOST: 1})

    assert base.missing("a1", 1, {SEEN: 7, LOST: 1}, _no_reading) == {SEEN: 2}
    assert LedgerBase().missing("a1", 1, {SEEN: 7, LOST: 1}, ledger.select) == {SEEN: 2}


def test_another_slot_has_counts_of_its_own(ledger: DeltaWriter) -> None:
    """The base is the slot's, so the same minute of two processes does not mix."""
    _commit(ledger, {SEEN: 5}, 1)

    assert LedgerBase().missing("b2", 0, {SEEN: 5}, ledger.select) == {SEEN: 5}


def test_a_slot_that_somebody_else_wrote_is_read_again(ledger: DeltaWriter) -> None:
    """The memory holds for the number it knows only."""
    base = LedgerBase()
    base.missing("a1", 0, {SEEN: 1}, ledger.select)
    _commit(ledger, {SEEN: 4}, 1)

    assert base.missing("a1", 1, {SEEN: 5}, ledger.select) == {SEEN: 1}


def test_a_minute_before_those_in_memory_is_read(ledger: DeltaWriter) -> None:
    """A count for an earlier day than the memory reaches is compared with the table, not with zero."""
    earlier = (MINUTE - 10 * 1440, None, "seen", None)
    _commit(ledger, {earlier: 3}, 1)
    base = LedgerBase()
    base.missing("a1", 1, {SEEN: 1}, ledger.select)

    assert base.missing("a1", 1, {earlier: 4}, ledger.select) == {earlier: 1}


def test_a_count_that_fell_takes_nothing_back(ledger: DeltaWriter) -> None:
    """Counts only grow: a lower one comes from a cursor file that was lost, and the rows it counted are still there."""
    _commit(ledger, {SEEN: 5}, 1)
    base = LedgerBase()

    assert base.missing("a1", 1, {SEEN: 4}, ledger.select) == {}
    base.committed("a1", 1, {SEEN: 4})
    assert base.missing("a1", 1, {SEEN: 6}, ledger.select) == {SEEN: 1}
