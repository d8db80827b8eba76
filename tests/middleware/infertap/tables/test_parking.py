"""What a table refuses is found by halving, and kept in private files."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from infertap.tables.parking import REFUSED, Parking, sift
from infertap.tables.rows import SegmentHead

HEAD = SegmentHead.of("a1", 1, {"started_ns": 1})
ChdbRows = Callable[..., list[dict[str, Any]]]


def _ids(chdb_rows: ChdbRows) -> list[str]:
    return [row["request_id"] for row in chdb_rows("inference", "request_id")]


def _parked(folder: Path) -> dict[str, list[Any]]:
    return {
        path.name: [json.loads(line) for line in path.read_text().splitlines()] for path in sorted(folder.iterdir())
    }


def test_sifting_finds_the_bad_ones_and_keeps_the_order() -> None:
    """Halves are asked about until each refused row stands alone."""
    rows = [{"n": n} for n in range(37)]
    bad = {0, 17, 18, 36}

    good, refused = sift(rows, lambda some: not bad & {row["n"] for row in some})

    assert [row["n"] for row in good] == [n for n in range(37) if n not in bad]
    assert [row["n"] for row in refused] == sorted(bad)


def test_parking_the_same_segment_again_replaces_what_was_parked(tmp_path: Path) -> None:
    """The files are the exact count, so a second try leaves the second try's rows only."""
    parking = Parking(tmp_path / "parked")
    parking.park("inference", REFUSED, HEAD, [{"n": 1}, {"n": 2}])
    parking.park("inference", REFUSED, HEAD, [{"n": 2}])
    assert parking.parked("inference", REFUSED, HEAD) == [{"n": 2}]

    parking.park("inference", REFUSED, HEAD, [])

    assert parking.parked("inference", REFUSED, HEAD) == []
    assert list((tmp_path / "parked").iterdir()) == []
