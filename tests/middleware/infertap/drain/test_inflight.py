"""Which segment killed the last drainer."""

from pathlib import Path
from typing import Any

from infertap.drain.inflight import Inflight
from infertap.drain.slots import SegmentFile


def files(*numbers: int) -> list[SegmentFile]:
    return [SegmentFile("slot", number, Path(f"{number:012d}.seg"), 10, 0) for number in numbers]


def test_each_death_halves_the_suspects(bench: Any) -> None:
    """From a batch of four, two deaths lead to one segment, and a third one accuses it."""
    batch = files(1, 2, 3, 4)
    Inflight.load(bench.folder).begin("table", batch)
    second = Inflight.load(bench.folder)
    assert second.helping("table", batch) == files(1, 2)
    second.begin("table", files(1, 2))
    third = Inflight.load(bench.folder)
    assert third.helping("table", batch) == files(1)
    assert not third.is_killer("table", files(1))
    third.begin("table", files(1))
    assert Inflight.load(bench.folder).is_killer("table", files(1))


def test_what_was_delivered_is_no_longer_suspected(bench: Any) -> None:
    """After the first half went well, the killer is among the rest."""
    Inflight.load(bench.folder).begin("table", files(1, 2))
    inflight = Inflight.load(bench.folder)
    inflight.begin("table", files(1))
    inflight.survived("table", files(1), delivered=True)
    inflight = Inflight.load(bench.folder)
    assert inflight.helping("table", files(2, 3)) == files(2)
    inflight.survived("table", files(2), delivered=True)
    assert not bench.folder.inflight.exists()
    assert Inflight.load(bench.folder).helping("table", files(3, 4)) == files(3, 4)


def test_the_other_destination_is_not_concerned(bench: Any) -> None:
    """Suspects hold up only the destination that died of them."""
    Inflight.load(bench.folder).begin("table", files(1, 2))
    assert Inflight.load(bench.folder).helping("otlp", files(1, 2)) == files(1, 2)


def test_a_failed_delivery_is_no_death(bench: Any) -> None:
    """An error that came back accuses nobody."""
    inflight = Inflight.load(bench.folder)
    inflight.begin("table", files(1, 2))
    inflight.survived("table", files(1, 2), delivered=False)
    assert Inflight.load(bench.folder).helping("table", files(1, 2)) == files(1, 2)


def test_another_boot_accuses_nobody(bench: Any) -> None:
    """The machine went down: whatever was in flight has nothing to do with it."""
    Inflight.load(bench.folder).begin("table", files(1, 2))
    note = bench.folder.inflight.read_text()
    boot = note.split('"boot_id": "')[1].split('"')[0]
    bench.folder.inflight.write_text(note.replace(boot, "another"))
    assert Inflight.load(bench.folder).helping("table", files(1, 2)) == files(1, 2)
