"""Owners and drainers as real processes: who starts one, when, and what happens when it dies."""

from collections.abc import Callable
from typing import Any


def test_rows_of_an_owner_are_delivered_by_a_process_it_started(bench: Any, wait_for: Callable[..., Any]) -> None:
    """An owner's ticks start a drainer, which delivers what the owner seals."""
    owner = bench.owner()
    owner.tell(rows=["a", "b"])
    wait_for(lambda: bench.rows() == ["a", "b"])
    assert bench.state().pid != owner.process.pid
    assert bench.state().destinations["table"].records == 2


def test_a_stop_waits_until_its_rows_are_delivered(bench: Any, wait_for: Callable[..., Any]) -> None:
    """`flush_and_wait` returns 0 only when everything is in the table, long before the next commit is due."""
    owner = bench.owner(bench.settings(commit_interval_s=600.0))
    owner.tell(rows=["a"])
    wait_for(lambda: bench.rows() == ["a"])
    owner.tell(rows=["b"])
    assert owner.tell(stop=10.0) == {"left": 0}
    assert bench.rows() == ["a", "b"]
    wait_for(bench.is_drained_by_nobody)
    assert bench.state().phase == "ended"
    assert bench.folder.slot_ids() == []
