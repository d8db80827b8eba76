"""The ledger: every frame balances, and nothing is said twice or never."""

from typing import Any

import pytest

from infertap.record import LossCause
from infertap.spool import ledger as ledger_module
from infertap.spool.boot import boot_id
from infertap.spool.frames import unpack
from infertap.spool.ledger import Ledger
from infertap.spool.page import KEPT, LEDGERED, LOST, SAMPLED, SEEN, Page


@pytest.fixture
def page() -> Page:
    """A page in memory."""
    return Page.in_memory(started_ns=1, boot_id=boot_id())


@pytest.fixture
def ledger(page: Page) -> Ledger:
    """A ledger that counts into the page."""
    return Ledger(page.counters)


def _minutes(ledger: Ledger) -> dict[str, Any]:
    minutes: dict[str, Any] = unpack(ledger.frame().payload)["minutes"]
    return minutes


def test_frames_are_cumulative_and_carry_what_changed(ledger: Ledger, page: Page) -> None:
    """A minute is repeated with its sums when it changes, and only then."""
    ledger.keep({10: 2, 11: 1})
    ledger.sample_out(10)
    ledger.lose(11, LossCause.QUEUE_FULL, 4)
    assert _minutes(ledger) == {
        "10": {"seen": 3, "kept": 2, "sampled": 1},
        "11": {"seen": 5, "kept": 1, "lost/queue_full": 4},
    }
    assert not ledger.dirty
    ledger.lose(11, LossCause.QUEUE_FULL)
    frame = ledger.frame()
    assert unpack(frame.payload) == {"minutes": {"11": {"seen": 6, "kept": 1, "lost/queue_full": 5}}, "settled": 9}
    assert page.counters[SAMPLED] == 1
    assert page.counters[LOST[LossCause.QUEUE_FULL]] == 5


def test_a_frame_that_failed_is_said_again(ledger: Ledger) -> None:
    """What did not reach the disk is in the next frame."""
    ledger.lose(10, LossCause.WORKER_ERROR)
    frame = ledger.frame()
    ledger.frame_failed(frame)
    assert ledger.dirty
    assert _minutes(ledger) == {"10": {"seen": 1, "lost/worker_error": 1}}


def test_rows_count_as_kept_once_durable(ledger: Ledger, page: Page) -> None:
    """The page tells rows and accounted requests only after the disk has them; rows taken back leave no trace."""
    ledger.keep({10: 3})
    frame = ledger.frame()
    assert (page.counters[KEPT], page.counters[LEDGERED]) == (0, 0)
    ledger.frame_durable(frame, 3)
    assert (page.counters[KEPT], page.counters[LEDGERED]) == (3, 3)
    ledger.keep({10: 5})
    ledger.take_back({10: 5})
    ledger.lose(10, LossCause.SPOOL_FULL, 5)
    assert _minutes(ledger) == {"10": {"seen": 8, "kept": 3, "lost/spool_full": 5}}


def test_the_successor_takes_over_what_was_not_sealed(ledger: Ledger, page: Page) -> None:
    """After the folder vanished, unsealed rows are lost, other outcomes are repeated, and flights go on."""
    page.counters[SEEN] = 20
    ledger.keep({10: 4})
    ledger.frame_durable(ledger.frame(), 4)
    ledger.sealed()
    ledger.keep({10: 2})
    ledger.sample_out(11)
    ledger.lose(11, LossCause.QUEUE_FULL)
    new_page = Page.in_memory(started_ns=2, boot_id=boot_id())
    successor = ledger.successor(new_page.counters)
    assert _minutes(successor) == {
        "10": {"seen": 2, "lost/spool_unwritable": 2},
        "11": {"seen": 2, "sampled": 1, "lost/queue_full": 1},
    }
    assert new_page.counters[SEEN] == 4 + (20 - 8)


def test_memory_is_bounded_and_counts_stay_cumulative(ledger: Ledger) -> None:
    """After a week of busy minutes the oldest goes, and a later arrival of it joins the oldest that is held."""
    for minute in range(ledger_module.MINUTES_MAX + 5):
        ledger.keep({minute: 1})
        ledger.frame_durable(ledger.frame(), 1)
    ledger.lose(0, LossCause.DAMAGED)
    assert _minutes(ledger) == {"5": {"seen": 2, "kept": 1, "lost/damaged": 1}}
