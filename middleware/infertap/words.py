"""Numbers as people read them, and names that they nearly wrote."""

import difflib
from collections.abc import Iterable

_LIKENESS_MIN = 0.75
"""Below, a name that has nothing to do with the given one is proposed (`content` for `nonsense`)."""


def plural(count: int, noun: str) -> str:
    """`1 request`, `2,000 requests`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def exact_size(size_bytes: int) -> str:
    """`64MiB`, as sizes are written in settings: the largest unit that leaves nothing over, or bytes."""
    for shift, unit in ((30, "GiB"), (20, "MiB"), (10, "KiB")):
        if size_bytes >= 1 << shift and size_bytes % (1 << shift) == 0:
            return f"{size_bytes >> shift}{unit}"
    return f"{size_bytes}B"


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that was meant, where one is really near."""
    found = difflib.get_close_matches(name, sorted(known), n=1, cutoff=_LIKENESS_MIN)
    return found[0] if found else None
