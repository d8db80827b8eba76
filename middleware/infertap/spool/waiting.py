"""What waits in segments, for people: read from a sealed one's last frame, and frame by frame where there is none."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple, Self

from infertap.spool.cursors import Cursors
from infertap.spool.folder import OPEN, SEALED, SpoolFolder, list_segments, segment_no_of
from infertap.spool.frames import OVERHEAD_BYTES, Kind, UnsupportedFormat, scan, unpack
from infertap.words import plural

_TAIL_BYTES = 256
"""A SEAL frame is far smaller."""


class Waiting(NamedTuple):
    """What some segments hold. Every number of `requests` and `spans` is a lower bound where `uncounted` is not 0."""

    segments: int = 0
    requests: int = 0
    spans: int = 0
    uncounted: int = 0
    """Segments that could not be read."""

    @classmethod
    def of(cls, paths: Iterable[Path]) -> Self:
        """Counts the given segments; one that is gone by now counts for nothing."""
        segments = requests = spans = uncounted = 0
        for path in paths:
            try:
                counts = _sealed_counts(path) or _frame_counts(path)
            except FileNotFoundError:
                continue
            except (OSError, UnsupportedFormat):
                counts = None
            segments += 1
            if counts is None:
                uncounted += 1
            else:
                requests += counts[0]
                spans += counts[1]
        return cls(segments, requests, spans, uncounted)

    @classmethod
    def for_destination(cls, folder: SpoolFolder, name: str) -> Self:
        """Counts what the destination of that name has not passed in a folder, open segments included."""
        return cls.of(
            path
            for spool_id in folder.slot_ids()
            for passed in (Cursors.load(folder, spool_id).segment_no(name),)
            for suffix in (SEALED, OPEN)
            for path in list_segments(folder.slot_dir(spool_id), suffix)
            if segment_no_of(path) > passed
        )

    @property
    def words(self) -> str:
        """`3 requests and 1 span`; `at least` before it, where not every segment tells."""
        parts = [plural(count, noun) for count, noun in self._counted if count]
        if not self.uncounted:
            return " and ".join(parts) or "ledger counts"
        return f"at least {' and '.join(parts)}" if parts else plural(self.uncounted, "unreadable segment")

    @property
    def sentence(self) -> str:
        """`3 requests and 1 span wait`."""
        total = self.requests + self.spans or self.uncounted
        return f"{self.words} {'waits' if total == 1 else 'wait'}"

    @property
    def _counted(self) -> tuple[tuple[int, str], tuple[int, str]]:
        return (self.requests, "request"), (self.spans, "span")


def _sealed_counts(path: Path) -> tuple[int, int] | None:
    """Requests and spans, as the SEAL frame that ends the file says. Raises OSError, UnsupportedFormat."""
    with open(path, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _TAIL_BYTES))
        tail = file.read()
    for start in range(len(tail) - OVERHEAD_BYTES, -1, -1):
        result = scan(tail[start:])
        # Only the one that ends with the file. A body can forge that where a failed disk left no seal: a number, once.
        if len(result.frames) == 1 and start + result.good_end == len(tail) and result.frames[0].kind == Kind.SEAL:
            return _counts(result.frames[0].payload)
    return None


def _counts(payload: bytes) -> tuple[int, int] | None:
    try:
        seal = unpack(payload)
        return int(seal["requests"]), int(seal["spans"])
    except (ValueError, KeyError, TypeError):
        return None


def _frame_counts(path: Path) -> tuple[int, int]:
    """Requests and spans of a segment that its owner has not sealed. Raises OSError, UnsupportedFormat."""
    kinds = [frame.kind for frame in scan(path.read_bytes()).frames]
    return kinds.count(Kind.REQUEST), kinds.count(Kind.SPAN)
