"""A destination's timetable, with times given."""

import itertools
import random

from infertap.drain.pace import BACKOFF_S_MAX, INTERVAL_S_MAX, Pace


def test_the_first_delivery_is_due_at_once() -> None:
    """What an earlier process left does not wait for an interval."""
    assert Pace(10, random.Random(1)).next_s < 0


def test_the_interval_is_the_longest_wait() -> None:
    """A quick delivery plans the next one within the interval, not in step with other processes."""
    waits = set()
    for seed in range(20):
        pace = Pace(10, random.Random(seed))
        pace.delivered(100, took_s=0.1)
        waits.add(pace.next_s - 100)
    assert len(waits) == 20
    assert all(8 <= wait <= 10 for wait in waits)


def test_slow_deliveries_stretch_the_interval_and_quick_ones_bring_it_back() -> None:
    """A table that many write to gets fewer, larger commits; later the interval is the asked one again."""
    pace = Pace(10, random.Random(1))
    for _ in range(20):
        pace.delivered(0, took_s=100)
    assert INTERVAL_S_MAX * 0.8 <= pace.next_s <= INTERVAL_S_MAX * 1.2
    for _ in range(100):
        pace.delivered(0, took_s=0.1)
    assert pace.next_s <= 10


def test_failures_back_off_up_to_a_minute_until_one_works() -> None:
    """The wait doubles, has jitter and a limit, and is forgotten after a success."""
    pace = Pace(10, random.Random(1))
    delays = [pace.failed(0) for _ in range(12)]
    assert delays[0] <= 1.25
    assert all(later > earlier for earlier, later in itertools.pairwise(delays[:6]))
    assert max(delays) <= BACKOFF_S_MAX * 1.25
    backing_off = [pace.backing_off]
    pace.delivered(0, took_s=0.1)
    backing_off.append(pace.backing_off)
    assert backing_off == [True, False]
    assert pace.failed(0) <= 1.25


def test_a_destination_may_ask_for_more_time() -> None:
    """`Retry-After` is kept, within reason."""
    pace = Pace(10, random.Random(1))
    assert pace.failed(0, retry_after_s=30) == 30
    assert pace.failed(0, retry_after_s=1e9) == INTERVAL_S_MAX


def test_who_gets_on_begins_its_back_off_anew() -> None:
    """Failures behind deliveries do not add up; the next try is as near as after the first failure."""
    pace = Pace(10.0, random.Random(1))
    for _ in range(8):
        pace.failed(0.0)
    assert pace.failed(0.0, got_on=True) <= 1.25
    assert pace.backing_off
