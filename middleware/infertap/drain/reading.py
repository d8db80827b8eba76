"""Reads a helping of segments for one destination, and spares what the destination keeps in mind.

1. Ascending without a gap in each slot: where one segment is not read, no later one of its slot comes with the helping.
2. What a destination keeps (`Destination.keeps`) was read before: it comes without frames and counts no bytes.
"""

import logging
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from infertap.drain.slots import SegmentFile
from infertap.errors import SpoolError
from infertap.spool.reader import Segment, UnsupportedFormat, read_segment

Key = tuple[str, int]
"""(spool_id, segment_no)."""

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Helping:
    """What was read, file by file, and what could not be."""

    files: list[SegmentFile] = field(default_factory=list)
    segments: list[Segment] = field(default_factory=list)
    unsupported: dict[str, int] = field(default_factory=dict)
    """spool_id -> the segment from which on a newer infertap wrote."""
    error: str = ""


class _Known(NamedTuple):
    segment: Segment
    """Without its frames."""
    requests: int
    spans: int


class Reading:
    """One destination's reader. Belongs to the drainer's thread."""

    def __init__(self) -> None:
        self._known: dict[Key, _Known] = {}
        """The segments of the last helping."""

    def read(self, files: Sequence[SegmentFile], *, keeps: AbstractSet[Key], bytes_max: int) -> Helping:
        """Reads up to `bytes_max`, at least one segment. A slot that cannot be read on ends there for this helping."""
        helping = Helping()
        before, self._known = self._known, {}
        stuck: set[str] = set()
        size_bytes = 0
        for file in files:
            key = (file.spool_id, file.segment_no)
            if file.spool_id in stuck:
                continue
            if key in keeps and key in before:
                self._add(helping, file, before[key])
            elif size_bytes and size_bytes + file.size_bytes > bytes_max:
                stuck.add(file.spool_id)
            elif (segment := _read(file, helping)) is not None:
                known = _Known(replace(segment, requests=(), spans=()), len(segment.requests), len(segment.spans))
                self._add(helping, file, known, segment)
                size_bytes += file.size_bytes
            else:
                stuck.add(file.spool_id)
        return helping

    def frames_of(self, segment: Segment) -> tuple[int, int]:
        """How many requests and spans a segment of the last helping has, those that the destination keeps included."""
        known = self._known[segment.spool_id, segment.segment_no]
        is_kept = segment is known.segment
        return (known.requests, known.spans) if is_kept else (len(segment.requests), len(segment.spans))

    def _add(self, helping: Helping, file: SegmentFile, known: _Known, segment: Segment | None = None) -> None:
        self._known[file.spool_id, file.segment_no] = known
        helping.files.append(file)
        helping.segments.append(segment or known.segment)


def _read(file: SegmentFile, helping: Helping) -> Segment | None:
    try:
        return read_segment(file.path)
    except UnsupportedFormat as error:
        helping.unsupported[file.spool_id] = file.segment_no
        _log.warning("slot %s waits for a newer infertap: %s", file.spool_id, error)
    except FileNotFoundError:
        pass
    except SpoolError as error:
        helping.error = str(error)
    return None
