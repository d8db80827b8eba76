"""Slots that are gone are counted once, by day where no table counts them, and in a file that stays small."""

from collections import Counter
from pathlib import Path

import pytest

from infertap.clock import SystemClock
from infertap.record import LossCause
from infertap.spool.accounts import DAYS_MAX, EARLIER, Accounts, read_ledger
from infertap.spool.cursors import MINUTES_MAX, Cursors
from infertap.spool.folder import SpoolFolder
from infertap.spool.page import KEPT, LOST, SEEN, PageView
from infertap.spool.slot import Slot

DAY = 1_440


@pytest.fixture
def folder(tmp_path: Path) -> SpoolFolder:
    folder = SpoolFolder(tmp_path / "spool" / "otlp-abc")
    folder.prepare({})
    return folder


def test_a_slot_is_added_once_also_after_a_crash_before_its_removal(folder: SpoolFolder) -> None:
    """The id is written with the sums, in one file."""
    slot = Slot.create(folder, SystemClock())
    slot.page.counters[SEEN], slot.page.counters[KEPT] = 7, 5
    slot.page.counters[LOST[LossCause.QUEUE_FULL]] = 2
    page = PageView.read(slot.path / "page")
    cursors = Cursors(slot.spool_id, outcomes={(3, "otlp", "written", ""): 5})
    for _ in range(2):
        Accounts.load(folder).retire(folder, page, cursors, keep_ledger=True)

    accounts = Accounts.load(folder)
    assert +accounts.counters == {"seen": 7, "kept": 5, "lost/queue_full": 2}
    assert accounts.ledger == {"1970-01-01": {"otlp:written": 5}}
    assert read_ledger(folder) == accounts.ledger
    assert folder.totals.stat().st_mode & 0o777 == 0o600
    slot.close()
    slot.page.close()


def test_where_a_table_keeps_the_ledger_only_counters_are_kept(folder: SpoolFolder) -> None:
    """Two ledgers would be one too many; a page that cannot be read adds nothing."""
    cursors = Cursors("a" * 16, outcomes={(3, "table", "lost", "parked"): 1})
    Accounts.load(folder).retire(folder, None, cursors, keep_ledger=False)
    assert Accounts.load(folder).ledger == {}
    assert Accounts.load(folder).retired == ["a" * 16]


def test_the_ledger_has_a_bounded_number_of_days(folder: SpoolFolder) -> None:
    """What is older is one sum; nothing is lost of it."""
    outcomes = {(day * DAY, "", "seen", ""): 1 for day in range(DAYS_MAX + 30)}
    Accounts().retire(folder, None, Cursors("a" * 16, outcomes=outcomes), keep_ledger=True)

    ledger = Accounts.load(folder).ledger
    assert len(ledger) == DAYS_MAX + 1
    assert ledger[EARLIER] == {"seen": 30}
    assert sum(map(Counter.total, ledger.values())) == DAYS_MAX + 30


@pytest.mark.parametrize(
    "content", [b"", b"[1]", b'{"counters": 3, "ledger": [], "retired": {}}', b'{"ledger": {"d": 1}}']
)
def test_a_damaged_file_gives_what_can_be_understood(folder: SpoolFolder, content: bytes) -> None:
    """Metrics go on from zero, and the next slot is counted again."""
    folder.totals.write_bytes(content)
    accounts = Accounts.load(folder)
    assert accounts.counters.total() == 0
    accounts.retire(folder, None, Cursors("a" * 16, outcomes={(1, "", "seen", ""): 2}), keep_ledger=True)
    assert Accounts.load(folder).ledger["1970-01-01"] == {"seen": 2}


def test_cursors_keep_some_hours_by_minute_and_the_rest_by_day(folder: SpoolFolder) -> None:
    """A process that lives for a year has a small file; the sums stay, and late words about old minutes add nothing."""
    cursors = Cursors("a" * 16)
    for minute in range(3 * DAY):
        cursors.learn({(minute, "", "seen", ""): 1})
        cursors.learn({(minute, "", "seen", ""): 2})
        cursors.add({(minute, "otlp", "written", ""): 2})
        cursors.fold(minute)
    cursors.save(folder)
    loaded = Cursors.load(folder, "a" * 16)
    assert loaded == cursors
    assert len(loaded.outcomes) == 2 * (MINUTES_MAX + 1)
    loaded.learn({(5, "", "seen", ""): 3})
    loaded.add({(5, "otlp", "written", ""): 1})
    accounts = Accounts()
    accounts.retire(folder, None, loaded, keep_ledger=True)
    assert sum((of_day for of_day in accounts.ledger.values()), Counter()) == {
        "seen": 6 * DAY,
        "otlp:written": 6 * DAY + 1,
    }
    assert set(accounts.ledger) == {"1970-01-01", "1970-01-02", "1970-01-03"}
