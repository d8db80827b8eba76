"""Drainers that die of what they carry, or at random."""

import json
import random
import time
from collections.abc import Callable
from typing import Any

import pytest

WaitFor = Callable[..., Any]


def test_the_row_that_aborts_the_drainer_is_parked(bench: Any, wait_for: WaitFor) -> None:
    """A native abort takes the whole process along; the next one finds the row, parks it, and delivers the rest."""
    bench.control(table={"abort_on": "poison"})
    owner = bench.owner()
    owner.tell(rows=["a", "b", "poison", "c"], minute=3)
    wait_for(lambda: bench.state().failures >= 1)
    owner.tell(rows=["d"])
    wait_for(lambda: bench.rows() == ["a", "b", "c", "d"], 900.0)
    (parked,) = bench.folder.parked_dir.glob("*.jsonl")
    assert json.loads(parked.read_text())["row"]["request_id"] == "poison"
    wait_for(lambda: bench.lost("parked") == {"3|table": 1})
    wait_for(lambda: bench.state().failures == 0)


@pytest.mark.slow
def test_random_kills_lose_and_double_nothing(bench: Any, wait_for: WaitFor) -> None:
    """Twenty seconds of kill -9 at drainers and owners under load: every acknowledged row is there once."""
    rng = random.Random(20261125)
    acknowledged: set[str] = set()
    owners = [bench.owner(tick_s=0.05) for _ in range(3)]
    kills = 0
    start_s = time.monotonic()
    # On a busy machine a drainer may hardly begin to run in twenty seconds.
    while time.monotonic() < start_s + (20 if kills > 3 else 180):
        index = rng.randrange(len(owners))
        ids = [f"{len(acknowledged) + number:06}" for number in range(20)]
        owners[index].tell(rows=ids)
        acknowledged.update(ids)
        if rng.random() < 0.1:
            owners[index].kill()
            owners[index] = bench.owner(tick_s=0.05)
        if rng.random() < 0.3 and bench.state().phase == "running" and bench.try_to_kill_drainer():
            kills += 1
    wait_for(lambda: set(bench.rows()) >= acknowledged, 240.0)
    assert kills > 3
    rows = bench.rows()
    assert len(rows) == len(set(rows)) == len(acknowledged)
    assert list(bench.folder.parked_dir.glob("*.jsonl")) == []
