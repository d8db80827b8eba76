"""What of which segment still has to go to OTLP: items, their order, and batches cut by bytes.

1. A frame is settled once: sent, sampled or lost. What is settled is not sent again while this process lives, also
   where a later frame of the same segment keeps the segment from being delivered.
2. Requests and other spans travel in separate requests, because only requests are counted in the ledger: a partial
   success then says exactly how many of those were lost.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from opentelemetry.sdk.trace import ReadableSpan

from infertap.destinations.protocol import OutcomeKey
from infertap.spool.reader import Segment

_MICROSECONDS_PER_MINUTE = 60_000_000


@dataclass(slots=True)
class Progress:
    """What has been settled of one segment."""

    segment: Segment
    settled: set[tuple[bool, int]] = field(default_factory=set)
    """(whether it is a request, index of the frame)."""
    outcomes: Counter[OutcomeKey] = field(default_factory=Counter)

    @property
    def is_complete(self) -> bool:
        """Whether every frame has been settled."""
        return len(self.settled) == len(self.segment.requests) + len(self.segment.spans)

    def settle(self, item: "Item", outcome: str, cause: str = "") -> None:
        """Note what became of a frame; only requests are counted."""
        self.settled.add((item.is_request, item.index))
        if item.is_request:
            self.outcomes[(item.minute, "otlp", outcome, cause)] += 1


@dataclass(frozen=True, slots=True)
class Item:
    """One frame on its way. `span` is None where the frame has nothing to send."""

    progress: Progress
    is_request: bool
    index: int
    minute: int
    """Epoch minute of the request's arrival; 0 for other spans."""
    span: ReadableSpan | None
    size: int


def pending(progresses: Iterable[Progress], *, requests: bool) -> Iterator[tuple[Progress, int, dict[str, Any]]]:
    """The frames of one sort that are not settled, in the order of the spool."""
    for progress in progresses:
        frames = progress.segment.requests if requests else progress.segment.spans
        for index, payload in enumerate(frames):
            if (requests, index) in progress.settled:
                continue
            if payload.get("table_only"):
                progress.settled.add((requests, index))
                continue
            yield progress, index, payload


def batches(items: Iterable[Item], *, bytes_max: Callable[[], int], spans_max: int) -> Iterator[list[Item]]:
    """Cut before an item that does not fit any more; an item larger than `bytes_max()` goes alone.

    `bytes_max` is asked for each item, because the answer to one batch may change the size of the next.
    """
    batch: list[Item] = []
    size = 0
    for item in items:
        if batch and (size + item.size > bytes_max() or len(batch) >= spans_max):
            yield batch
            batch, size = [], 0
        batch.append(item)
        size += item.size
    if batch:
        yield batch


def minute_of(request: Mapping[str, Any]) -> int:
    """Epoch minute of a REQUEST payload's arrival."""
    return int(request.get("request_time", 0)) // _MICROSECONDS_PER_MINUTE


def delivered_prefixes(segments: Sequence[Segment], progresses: Mapping[tuple[str, int], Progress]) -> dict[str, int]:
    """spool_id to the highest segment number up to which every given segment of that slot is complete."""
    delivered: dict[str, int] = {}
    blocked: set[str] = set()
    for segment in segments:
        if not progresses[segment.spool_id, segment.segment_no].is_complete:
            blocked.add(segment.spool_id)
        elif segment.spool_id not in blocked:
            delivered[segment.spool_id] = segment.segment_no
    return delivered
