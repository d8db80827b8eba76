"""What an app's values hold, told without running through more than a few thousand of them."""

from collections import deque
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import numpy as np
import pytest

from infertap.sizes import BUFFER_BYTES_MAX, ITEMS_MAX, TooLargeError, owned, prints_long, value_bytes


class Endless(list[Any]):
    """A list that says how often it was asked for a value."""

    asked = 0

    def __iter__(self) -> Iterator[Any]:
        while True:
            self.asked += 1
            yield "x" * 100


class Sequence:
    """As an app may write one: nobody knows what running through it costs."""

    def __len__(self) -> int:
        return 10**9

    def __getitem__(self, _: int) -> int:
        raise AssertionError("nobody is to look")


@pytest.mark.parametrize(
    "value",
    [
        range(10**9), range(10**30), Sequence(), {1, 2}, frozenset({1}), iter([1]), (n for n in [1]), deque([1]),
        np.zeros(3), {"a": 1}.items(), [1, [2, {"x": {3}}]], bytearray(BUFFER_BYTES_MAX + 1),
        memoryview(bytes(BUFFER_BYTES_MAX + 1)), [0] * (ITEMS_MAX + 1), [[0] * 3000, [0] * 3000],
        {str(number): 0 for number in range(ITEMS_MAX)}, [[[[[[[[[1]]]]]]]]],
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_what_cannot_be_told_at_once_is_not_kept(value: Any) -> None:
    """Too many values, too deep, or a collection that only running through it would measure."""
    with pytest.raises(TooLargeError):
        owned(value)


@pytest.mark.parametrize(
    "value",
    [
        "text",
        b"bytes",
        1,
        1.5,
        True,
        None,
        1 << 4000,
        UUID(int=7),
        np.float32(0.5),
        np.int64(7),
        ("a",),
        ["a", [1, None]],
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_kept_is_equal(value: Any) -> None:
    """Texts, numbers, objects and lists of them."""
    kept, size = owned(value)
    assert kept == (list(value) if isinstance(value, tuple) else value)
    assert size >= 38


def test_what_is_kept_is_the_apps_no_more() -> None:
    """Lists, maps and buffers are copied, also inside of others."""
    buffer, inner = bytearray(b"abc"), [1]
    value = {"list": inner, "map": {"x": inner}, "buffer": buffer, "view": memoryview(buffer)[1:]}
    kept, _ = owned(value)
    buffer[:] = b"XXX"
    inner.append(2)
    value["new"] = 1
    assert kept == {"list": [1], "map": {"x": [1]}, "buffer": b"abc", "view": b"bc"}


def test_size_grows_with_what_is_in_it() -> None:
    """Each part counts, as it does in memory."""
    assert owned("x" * 1000)[1] - owned("x" * 100)[1] == 900
    assert owned(["x" * 1000] * 10)[1] > 10_000
    assert owned({"k" * 1000: "x" * 1000})[1] > 2_000
    assert owned(1 << 80_000)[1] > 10_000
    assert owned(bytearray(5_000))[1] > 5_000


def test_a_large_list_is_reckoned_from_its_beginning() -> None:
    """Spans of others are taken as they are: what they hold is an estimate beyond some thousand values."""
    assert value_bytes(["x" * 951] * 100_000) == pytest.approx(100_000 * (951 + 49 + 8), rel=0.01)
    endless = Endless([0] * 10**6)
    assert value_bytes(endless) > 10**8
    assert endless.asked <= ITEMS_MAX + 1
    nested: list[Any] = [[0] * 10**5] * 10**5
    assert value_bytes(nested) > 10**9


@pytest.mark.parametrize(
    "value",
    [[0] * 101, {str(n): 0 for n in range(101)}, set(range(101)), bytes(101), bytearray(101), [["x" * 9000]]],
)
def test_what_would_print_long_is_not_printed(value: Any) -> None:
    """A list has at least as many characters as values, whatever is in it."""
    assert prints_long(value, 100)


@pytest.mark.parametrize("value", [[0] * 50, {1, 2}, b"abc", Sequence(), "x" * 10**6, range(10**9), 7])
def test_other_things_print_as_they_like(value: Any) -> None:
    """Texts are there already, and how an app prints its own objects is its business."""
    assert not prints_long(value, 100)
