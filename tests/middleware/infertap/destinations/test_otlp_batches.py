"""Batches by bytes, and the size that follows what the receiver says."""

from typing import Any

from infertap.destinations.otlp_batches import Item, Progress, batches, pending
from infertap.destinations.otlp_delivery import BatchSize
from infertap.spool.reader import Segment

SEGMENT = Segment("s", 1, {}, (), (), (), 0, 0, ())


def sizes_of(sizes: list[int], *, bytes_max: int, company_max: Any = lambda _: 100) -> list[list[int]]:
    """The batches that items of these sizes are cut into."""
    items = [Item(Progress.of(SEGMENT), True, index, 0, None, size) for index, size in enumerate(sizes)]
    cut = list(batches(items, bytes_max=lambda: bytes_max, company_max=company_max))
    assert [item for batch in cut for item in batch] == items
    return [[item.size for item in batch] for batch in cut]


def test_cut_before_what_does_not_fit() -> None:
    """The limit itself fits, one byte more does not, and what is larger goes alone."""
    assert sizes_of([50, 50, 1, 99, 1, 250, 1], bytes_max=100) == [[50, 50], [1, 99], [1], [250], [1]]
    assert sizes_of([1] * 5, bytes_max=100, company_max=lambda _: 2) == [[1, 1], [1, 1], [1]]
    assert sizes_of([], bytes_max=100) == []


def test_size_recovers_from_throttling_and_not_from_refusal() -> None:
    """Throttling halves for a while; a refusal for its size lowers the cap; there is a floor."""
    size = BatchSize.of(1_000_000)
    size.lower(1_000_000, for_good=False)
    assert size.now == 500_000
    size.raise_again()
    size.raise_again()
    assert size.now == 1_000_000
    size.lower(800_000, for_good=True)
    size.raise_again()
    assert size.now == 400_000
    size.lower(10, for_good=True)
    assert size.now == 16_384


def test_a_copy_for_the_table_is_settled_without_being_sent() -> None:
    """A span that its maker exports by itself is not sent again, and keeps no segment waiting."""
    progress = Progress.of(Segment("s", 1, {}, (), ({"name": "a", "table_only": True}, {"name": "b"}), (), 0, 0, ()))
    assert [payload["name"] for _, _, payload in pending([progress], requests=False)] == ["b"]
    assert list(progress.left) == [(False, 1)]


def test_nobody_travels_in_more_company_than_it_may() -> None:
    """A lonely item is alone in its batch, wherever it stands; the others fill theirs."""
    alone = {2: 1, 3: 1}
    assert sizes_of([5, 6, 2, 7, 3], bytes_max=100, company_max=lambda item: alone.get(item.size, 4)) == [
        [5, 6], [2], [7], [3],
    ]  # fmt: skip
