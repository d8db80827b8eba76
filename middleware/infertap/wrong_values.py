"""What is wrong with a value that a setting was given: our own plain words, one line, for every way to be wrong."""

import difflib
from collections.abc import Mapping
from typing import Any, get_args

from pydantic.fields import FieldInfo

from infertap.words import exact_size

SIZE_WORDS = "expected a size such as 64MiB, or a number of bytes"
MAP_WORDS = "expected name=value,name=value or a JSON object"

_SHOWN_CHARS_MAX = 20
"""A longer value may be a credential in the wrong place, so it is not repeated."""

_BOUNDS = {"greater_than": ("gt", "more than"), "greater_than_equal": ("ge", "at least"),
           "less_than": ("lt", "less than"), "less_than_equal": ("le", "at most")}  # fmt: skip
_UNITS = {"s": "seconds, such as 2.5", "ms": "milliseconds, such as 50"}


def describe(name: str, field: FieldInfo, details: Mapping[str, Any]) -> str:
    """One line about one of pydantic's errors.

    Args:
        name: The setting's.
        details: One item of `ValidationError.errors()`.
    """
    kind, context = details["type"], details.get("ctx", {})
    if kind == "value_error":
        return str(details["msg"]).removeprefix("Value error, ")
    given = f"{shown(details['input'])} is " if field.repr else "it is "
    if kind == "literal_error":
        return f"{given}none of {', '.join(choices_of(field))}{_nearest(details['input'], field)}"
    if kind in _BOUNDS:
        key, words = _BOUNDS[kind]
        bound = exact_size(context[key]) if _is_size(name) else f"{context[key]:g}"
        return f"{given}out of range; expected {words} {bound}"
    return f"{given}{_expected(name, kind)}"


def choices_of(field: FieldInfo) -> tuple[str, ...]:
    """The words that a setting can be; empty where it is no choice of words."""
    parts = get_args(field.annotation)
    return tuple(word for part in parts for word in (get_args(part) or (part,)) if isinstance(word, str))


def shown(value: object) -> str:
    """The value where it is short and plain, else `it`."""
    text = repr(value)
    return text if isinstance(value, str | int | float) and len(text) <= _SHOWN_CHARS_MAX else "it"


def _is_size(name: str) -> bool:
    return name.endswith("_bytes_max")


def _expected(name: str, kind: str) -> str:
    if _is_size(name):
        return f"no size; {SIZE_WORDS}"
    if kind.startswith(("int", "float", "finite_number")):
        unit = _UNITS.get(name.rsplit("_", 1)[-1])
        return "no whole number" if unit is None else f"no number; expected {unit}, without the unit"
    if kind.startswith("bool"):
        return "neither true nor false"
    if kind.startswith("tuple"):
        return "no list of names"
    if kind.startswith("dict"):
        return f"no map; {MAP_WORDS}"
    return "no text"


def _nearest(value: object, field: FieldInfo) -> str:
    found = difflib.get_close_matches(str(value).lower(), choices_of(field), n=1)
    return f"; did you mean {found[0]}?" if found else ""
