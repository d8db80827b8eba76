"""Cursors: forward only, exact after a restart, and harmless when damaged."""

from collections import Counter

import pytest

from infertap.spool.cursors import MINUTES_MAX, Cursors
from infertap.spool.folder import SpoolFolder
from infertap.spool.jsonfile import read_json


def test_cursors_survive_a_restart(folder: SpoolFolder) -> None:
    """What was saved is loaded, in the form that the contract names."""
    cursors = Cursors.load(folder, "aa")
    assert (cursors.segment_no("table"), cursors.outcomes) == (0, {})
    cursors.advance("table", 12)
    cursors.advance("otlp", 9)
    cursors.advance("table", 11)
    cursors.add({(5, "otlp", "written", ""): 2, (5, "otlp", "lost", "rejected"): 1})
    cursors.add({(5, "otlp", "written", ""): 3})
    cursors.save(folder)
    assert read_json(folder.cursor("aa")) == {
        "destinations": {"table": {"segment_no": 12}, "otlp": {"segment_no": 9}},
        "outcomes": {"5|otlp|written|": 5, "5|otlp|lost|rejected": 1},
    }
    assert Cursors.load(folder, "aa") == cursors
    assert folder.cursor("aa").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", '{"destinations": 3}', '{"destinations": {"table": {}}}', '{"outcomes": {"5|otlp": 1}}'],
)
def test_damaged_cursors_start_again(folder: SpoolFolder, content: str) -> None:
    """A damaged file is as good as none: delivery repeats what is still there."""
    folder.cursor("aa").write_text(content)
    assert Cursors.load(folder, "aa") == Cursors("aa")


def _sampled(cursors: Cursors) -> int:
    counts = [*cursors.outcomes.items(), *cursors.days.items()]
    return sum(count for (_, _, outcome, _), count in counts if outcome == "sampled")


@pytest.mark.parametrize(
    ("ahead", "lasted"), [(1, 1), (MINUTES_MAX - 1, 30), (MINUTES_MAX + 31, 30), (10_000_000, 30), (10_000_000, 1000)]
)
def test_a_clock_that_was_ahead_stops_no_count(folder: SpoolFolder, ahead: int, lasted: int) -> None:
    """Minutes from the future, and then the right ones again: what an owner says of the right ones is still counted,
    also as it grows, and by a drainer that is started anew in between."""
    start = 29_000_000
    owner: Counter[int] = Counter()
    cursors = Cursors("s")
    wrong = range(start + 500, start + 500 + lasted)
    for now in [*range(start, start + 500), *(now + ahead for now in wrong), *range(wrong.stop, wrong.stop + 500)]:
        for _ in range(2):
            owner[now] += 3
            cursors.learn({(now, "", "sampled", ""): owner[now]})
            cursors.fold(now)
        if now % 100 == 0:
            cursors.save(folder)
            cursors = Cursors.load(folder, "s")
    assert _sampled(cursors) == owner.total()
    assert len(cursors.folded) <= 3


def test_folded_minutes_are_counted_once(folder: SpoolFolder) -> None:
    """A segment that comes again, long after its minutes were folded, adds nothing; the file stays small for rare
    requests, too."""
    cursors = Cursors("s")
    for now in range(0, 1_000_000, 3 * MINUTES_MAX):
        cursors.learn({(now, "", "sampled", ""): 1})
        cursors.fold(now)
    before = _sampled(cursors)
    cursors.learn({(now, "", "sampled", ""): 1 for now in range(0, 900_000, 3 * MINUTES_MAX)})
    assert _sampled(cursors) == before
    cursors.save(folder)
    assert len(cursors.folded) < 300
