"""The cap on a disk that fills up: real file systems, real segments, real drainers."""

from collections.abc import Callable
from typing import Any

import pytest

from infertap.drain.cap import excess_bytes
from infertap.drain.end import End
from infertap.spool.folder import SpoolFolder

_SPOOL_BYTES_MAX = 1 << 40
_FREE_BYTES = 100 << 10


@pytest.fixture(name="cramped")
def cramped_fixture(bench: Any, small_disk: SpoolFolder) -> Any:
    """The bench on a small disk, its destination away."""
    cramped = type(bench)(small_disk.path.parents[1], bench.module)
    bench.control(table={"fail": "connection refused"})
    return cramped


def test_a_disk_that_others_have_filled_costs_no_record(cramped: Any, fill_disk: Callable[[int], None]) -> None:
    """What is durable stays where giving it up would not free the share."""
    cramped.spool(["a"], ["b"], body="x" * 20_000).close()
    fill_disk(_FREE_BYTES)
    assert excess_bytes(cramped.folder, _SPOOL_BYTES_MAX) == 0
    settings = cramped.settings(drain_s=1.0, spool_bytes_max=_SPOOL_BYTES_MAX)
    assert cramped.drainer(settings).run() is End.GAVE_UP
    assert len(cramped.segments()) == 2
    assert cramped.state().destinations["table"].counts == {}


def test_a_disk_that_the_spool_has_filled_costs_only_what_is_missing(
    cramped: Any, fill_disk: Callable[[int], None]
) -> None:
    """The oldest segments go until the share is free again, and no more, however large the cap is."""
    cramped.spool(*([f"r{number}"] for number in range(6)), body="x" * 600_000).close()
    settings = cramped.settings(drain_s=1.0, spool_bytes_max=_SPOOL_BYTES_MAX)
    # The first pass frees what the slot had set aside for its owner.
    assert cramped.drainer(settings).run() is End.GAVE_UP
    assert len(cramped.segments()) == 6
    fill_disk(_FREE_BYTES)
    assert 0 < excess_bytes(cramped.folder, _SPOOL_BYTES_MAX) < 1_300_000
    assert cramped.drainer(settings).run() is End.GAVE_UP
    assert 3 <= len(cramped.segments()) < 6
    skipped = 6 - len(cramped.segments())
    assert cramped.state().destinations["table"].counts == {"lost/spool_full": skipped}
