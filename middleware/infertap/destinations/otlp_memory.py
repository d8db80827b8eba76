"""What an OTLP destination remembers over a restart: what of a segment is settled already, and whom it suspects.

1. Without it, a drainer that is started again every few minutes would send the neighbours of a failing span again and
   again, and never come to park it.
2. It is a memory, not a promise: what is missing in it, or was lost with it, is sent again.
3. It holds what is begun or has failed; in the ordinary case there is no file.
"""

import contextlib
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from infertap.destinations.otlp_batches import FrameKey, Progress
from infertap.destinations.otlp_suspicion import Suspicion
from infertap.spool.jsonfile import read_json, write_json_atomic
from infertap.spool.reader import Segment

_RANGES_MAX = 20_000
"""Of frames, over all segments: about a megabyte. Segments behind it are forgotten."""
_SUSPECTS_MAX = 4_096
"""Likewise, of frames that failed alike and are neighbours."""

SegmentKey = tuple[str, int]
"""(spool_id, segment_no)."""


class OtlpMemory:
    """One destination's file. Belongs to the drainer's thread.

    Args:
        path: None remembers nothing.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._segments: dict[SegmentKey, dict[str, Any]] = {}
        """As of the last drainer; what has come again is in here no more."""
        self._written = False

    def load(self, suspicion: Suspicion) -> None:
        """Read what the last drainer left; a file that is missing or damaged says nothing."""
        if self._path is None:
            return
        with contextlib.suppress(OSError, KeyError, TypeError, ValueError):
            data = read_json(self._path)
            if data is not None:
                self._written = True
                suspicion.recall(data["suspects"])
                self._segments = {(str(each["spool_id"]), int(each["segment_no"])): each for each in data["segments"]}

    def progress_of(self, segment: Segment) -> Progress:
        """How far this segment had come."""
        progress = Progress.of(segment)
        known = self._segments.pop((segment.spool_id, segment.segment_no), None)
        if known is not None:
            with contextlib.suppress(KeyError, TypeError, ValueError):
                return _resumed(progress, known)
        return progress

    def save(self, progresses: Iterable[Progress], suspicion: Suspicion, delivered: Mapping[str, int]) -> None:
        """Write down what is begun. Never raises: on a full disk, delivering is what helps.

        Args:
            delivered: spool_id -> highest segment that the drainer is about to settle.
        """
        if self._path is None:
            return
        progresses = list(progresses)
        self._forget_passed({progress.key for progress in progresses})
        suspects = suspicion.remembered(_SUSPECTS_MAX)
        begun = [_described(progress) for progress in progresses if _is_worth_it(progress, delivered)]
        segments = list(_bounded([*begun, *self._segments.values()]))
        with contextlib.suppress(OSError):
            if segments or suspects:
                write_json_atomic(self._path, {"segments": segments, "suspects": suspects}, durable=False)
                self._written = True
            elif self._written:
                self._path.unlink(missing_ok=True)
                self._written = False

    def _forget_passed(self, brought: Collection[SegmentKey]) -> None:
        """Of slots that are gone, and of segments before the first that still comes, nothing will come again."""
        first: dict[str, int] = {}
        for spool_id, number in brought:
            first[spool_id] = min(number, first.get(spool_id, number))
        self._segments = {
            key: each for key, each in self._segments.items() if key[0] in first and key[1] >= first[key[0]]
        }


def _is_worth_it(progress: Progress, delivered: Mapping[str, int]) -> bool:
    """Whether it is begun and stays, or holds parked frames that are still to be put away."""
    spool_id, segment_no = progress.key
    stays = segment_no > delivered.get(spool_id, 0)
    return bool(progress.parked) or (stays and len(progress.left) < progress.frames)


def _described(progress: Progress) -> dict[str, Any]:
    spool_id, segment_no = progress.key
    return {
        "spool_id": spool_id,
        "segment_no": segment_no,
        "frames": progress.frames,
        "left": {name: _ranges(progress.left, is_request) for name, is_request in _SORTS.items()},
        "outcomes": [[*key, count] for key, count in progress.outcomes.items()],
        "parked": [list(key) for key, _ in progress.parked],
    }


def _resumed(progress: Progress, known: dict[str, Any]) -> Progress:
    if known["frames"] != progress.frames:
        raise ValueError("frames have become unreadable since, and the others' numbers have changed")
    frames = progress.left
    left = {(is_request, index) for name, is_request in _SORTS.items() for index in _numbers(known["left"][name])}
    parked = [(bool(is_request), int(index)) for is_request, index in known["parked"]]
    outcomes = Counter(
        {
            (int(minute), str(name), str(outcome), str(cause)): int(count)
            for minute, name, outcome, cause, count in known["outcomes"]
        }
    )
    return Progress(
        progress.segment,
        {key: payload for key, payload in frames.items() if key in left},
        outcomes,
        [(key, frames[key]) for key in parked],
        frames=progress.frames,
    )


_SORTS = {"requests": True, "spans": False}


def _ranges(left: Iterable[FrameKey], is_request: bool) -> list[list[int]]:
    """Ascending numbers as pairs of first and last."""
    ranges: list[list[int]] = []
    for sort, index in left:
        if sort is is_request:
            if ranges and ranges[-1][1] == index - 1:
                ranges[-1][1] = index
            else:
                ranges.append([index, index])
    return ranges


def _numbers(ranges: Iterable[tuple[int, int]]) -> Iterator[int]:
    for first, last in ranges:
        yield from range(first, last + 1)


def _bounded(segments: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    room = _RANGES_MAX
    for segment in segments:
        room -= sum(map(len, segment["left"].values())) + len(segment["outcomes"]) + len(segment["parked"]) + 1
        if room < 0:
            return
        yield segment
