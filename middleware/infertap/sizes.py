"""What the values that an app sets hold in memory, so that the byte budgets bound memory and not a guess.

It is reckoned on the event loop, so nothing here looks at more than `ITEMS_MAX` values, however many there are.
"""

from collections.abc import Iterable, Mapping
from itertools import islice
from sys import getsizeof
from typing import Any

ITEMS_MAX = 4096
"""So many values of one attribute are looked at: a few hundred microseconds' work."""
BUFFER_BYTES_MAX = 1 << 20
"""So much of an app's own buffer (`bytearray`, `memoryview`) is copied."""
ENTRY_BYTES = 100
"""What one more entry of a map or a list of events costs beside key and value."""
HEADER_BYTES = 136
"""One raw header beside its text: its tuple, its place, and two objects of bytes."""
_PLACE_BYTES = 8
_OTHER_BYTES = 64
"""An object that we only point to: a number, or something of the app's."""
_DEPTH_MAX = 8
_BYTES_A_CHARACTER = 72
"""What a value of one character holds, as a part of a list."""


class TooLargeError(ValueError):
    """A value has more parts than may be looked at, or a number of them that cannot be told."""


def value_bytes(value: object) -> int:
    """Bytes that an attribute's value holds, its own object included.

    What is nested deeper than 8 levels, which no attribute is, counts as one object; beyond 4,096 values in it the rest
    counts like those before.
    """
    if isinstance(value, (str, bytes)):
        return getsizeof(value)
    try:
        return _Reckoning().value(value, 0)
    except Exception:
        # An app's object may raise whatever it likes where it is looked at: this is the border to it.
        return _OTHER_BYTES


def prints_long(value: object, characters_max: int) -> bool:
    """Whether a list, a map, a set or a buffer would make a text of more characters, or of very many parts."""
    if not isinstance(value, (bytes, bytearray, list, tuple, dict, set, frozenset)):
        return False
    try:
        length = len(value)
    except Exception:
        # The app's own class; how long it is, it does not say.
        return True
    return length > characters_max or value_bytes(value) > _BYTES_A_CHARACTER * characters_max


def attributes_bytes(attributes: Mapping[str, Any] | None) -> int:
    """Bytes that a map of attributes holds; reckoned as for `value_bytes`."""
    return _Reckoning().value(attributes, 0) - _OTHER_BYTES if attributes else 0


def header_characters(headers: Iterable[tuple[bytes, bytes]]) -> int:
    """Length of all names and values of raw headers."""
    size = 0
    for name, value in headers:
        size += len(name) + len(value)
    return size


def owned(value: object) -> tuple[object, int]:
    """What is kept of an attribute's value, and the bytes that it holds.

    Texts and numbers are kept as they are. Lists, tuples and maps are copied, so that what the app does to them later
    does not show; so are its buffers, to bytes. Objects that are no collections stay the app's: they become text on the
    worker.

    Raises:
        TooLargeError: more than 4,096 values, more than 1 MiB of a buffer, more than 8 levels; or any other collection
            (sets, generators, ranges, arrays, frames): how much is in it is known only by running through it. Also
            where the value raises when it is looked at: a proxy out of its context, a map that another thread changes.
    """
    if isinstance(value, (str, bytes)):
        return value, getsizeof(value)
    copying = _Copying()
    try:
        return copying.value(value, 0), copying.size_bytes
    except TooLargeError:
        raise
    except Exception as error:
        # The app's object may raise whatever it likes; the app, which only sets an attribute, must not hear of it.
        raise TooLargeError("a value that cannot be looked at") from error


class _Copying:
    """One value's copy, on its way."""

    __slots__ = ("_left", "size_bytes")

    def __init__(self) -> None:
        self.size_bytes = 0
        self._left = ITEMS_MAX

    def value(self, value: object, depth: int) -> object:
        if isinstance(value, (str, bytes)):
            self.size_bytes += getsizeof(value)
            return value
        self.size_bytes += _OTHER_BYTES
        if value is None or isinstance(value, (bool, int, float)):
            self.size_bytes += max(0, getsizeof(value) - _OTHER_BYTES)
            return value
        if isinstance(value, (list, tuple)):
            self._enter(len(value), depth)
            self.size_bytes += _PLACE_BYTES * len(value)
            return [self.value(item, depth + 1) for item in value]
        if isinstance(value, dict):
            self._enter(2 * len(value), depth)
            self.size_bytes += ENTRY_BYTES * len(value)
            return {self.key(key, depth + 1): self.value(item, depth + 1) for key, item in value.items()}
        if isinstance(value, (bytearray, memoryview)):
            return self._buffer(value)
        return self._object(value)

    def key(self, key: object, depth: int) -> object:
        return self.value(key, depth) if isinstance(key, (str, bytes, int, float)) else self._object(key)

    def _enter(self, values: int, depth: int) -> None:
        self._left -= values
        if self._left < 0 or depth >= _DEPTH_MAX:
            raise TooLargeError("too many values, or too deep")

    def _buffer(self, value: bytearray | memoryview) -> bytes:
        size = value.nbytes if isinstance(value, memoryview) else len(value)
        if size > BUFFER_BYTES_MAX:
            raise TooLargeError("too large a buffer")
        self.size_bytes += size
        return bytes(value)

    def _object(self, value: object) -> object:
        kind = type(value)
        if hasattr(kind, "__len__") or hasattr(kind, "__iter__"):
            raise TooLargeError("a collection whose size cannot be told")
        held: object = getattr(value, "held_bytes", 0)
        self.size_bytes += held if isinstance(held, int) else 0
        return value


class _Reckoning:
    """The size of one value, on its way."""

    __slots__ = ("_left",)

    def __init__(self) -> None:
        self._left = ITEMS_MAX

    def value(self, value: object, depth: int) -> int:
        if isinstance(value, (str, bytes)):
            return getsizeof(value)
        if depth < _DEPTH_MAX:
            if isinstance(value, Mapping):
                return _OTHER_BYTES + self._of(len(value), (self._entry(*item, depth) for item in value.items()))
            if isinstance(value, (list, tuple, set, frozenset)):
                sizes = (_PLACE_BYTES + self.value(item, depth + 1) for item in value)
                return _OTHER_BYTES + self._of(len(value), sizes)
        held: object = getattr(value, "held_bytes", _OTHER_BYTES)
        return held if isinstance(held, int) else _OTHER_BYTES

    def _entry(self, name: object, value: object, depth: int) -> int:
        return ENTRY_BYTES + self.value(name, depth + 1) + self.value(value, depth + 1)

    def _of(self, count: int, sizes: Iterable[int]) -> int:
        seen = min(count, max(self._left, 1))
        self._left -= seen
        return sum(islice(sizes, seen)) * count // seen if seen else 0
