"""What the values that an app sets hold in memory, so that the byte budgets bound memory and not a guess."""

from collections.abc import Iterable, Mapping, Sequence
from sys import getsizeof
from typing import Any

ENTRY_BYTES = 100
"""What one more entry of a map or a list of events costs beside key and value."""
HEADER_BYTES = 136
"""One raw header beside its text: its tuple, its place, and two objects of bytes."""
_PLACE_BYTES = 8
_OTHER_BYTES = 64
"""An object that we only point to: a number, or something of the app's."""
_DEPTH_MAX = 8


def value_bytes(value: object, depth: int = 0) -> int:
    """Bytes that an attribute's value holds, its own object included.

    What is nested deeper than 8 levels, which no attribute is, counts as one object.
    """
    if isinstance(value, (str, bytes)):
        return getsizeof(value)
    if depth < _DEPTH_MAX:
        if isinstance(value, Mapping):
            return _OTHER_BYTES + sum(_entry(name, item, depth + 1) for name, item in value.items())
        if isinstance(value, Sequence):
            return _OTHER_BYTES + sum(_PLACE_BYTES + value_bytes(item, depth + 1) for item in value)
    held: object = getattr(value, "held_bytes", _OTHER_BYTES)
    return held if isinstance(held, int) else _OTHER_BYTES


def attributes_bytes(attributes: Mapping[str, Any] | None) -> int:
    """Bytes that a map of attributes holds."""
    return sum(_entry(name, value, 0) for name, value in attributes.items()) if attributes else 0


def header_characters(headers: Iterable[tuple[bytes, bytes]]) -> int:
    """Length of all names and values of raw headers."""
    size = 0
    for name, value in headers:
        size += len(name) + len(value)
    return size


def _entry(name: object, value: object, depth: int) -> int:
    return ENTRY_BYTES + value_bytes(name, depth) + value_bytes(value, depth)
