"""What of which segment still has to go to OTLP: items, their order, and batches cut by bytes.

1. A frame is settled once: sent, sampled, lost or parked. What is settled is not sent again, also where another frame
   of the same segment keeps the segment from being delivered, and (`otlp_memory`) over a restart.
2. Requests and other spans travel in separate requests, because only requests are counted in the ledger: a partial
   success then says exactly how many of those were lost.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from opentelemetry.sdk.trace import ReadableSpan

from infertap.destinations.protocol import OutcomeKey
from infertap.record import LossCause
from infertap.spool.reader import Segment

_MICROSECONDS_PER_MINUTE = 60_000_000


FrameKey = tuple[bool, int]
"""(whether it is a request, index of the frame in its segment)."""

ItemKey = tuple[str, int, bool, int]
"""(spool_id, segment_no) and the frame's key."""


@dataclass(slots=True)
class Progress:
    """What is left of one segment, and what became of the rest."""

    segment: Segment
    """Without its frames."""
    left: dict[FrameKey, dict[str, Any]]
    """The payloads that are not settled yet, in the order of the spool, requests first."""
    outcomes: Counter[OutcomeKey] = field(default_factory=Counter)
    parked: list[tuple[FrameKey, dict[str, Any]]] = field(default_factory=list)
    frames: int = 0
    """How many there are, settled or not."""

    @classmethod
    def of(cls, segment: Segment) -> "Progress":
        """Nothing is settled yet."""
        left = {(True, index): payload for index, payload in enumerate(segment.requests)}
        left |= {(False, index): payload for index, payload in enumerate(segment.spans)}
        return cls(replace(segment, requests=(), spans=()), left, frames=len(left))

    @property
    def key(self) -> tuple[str, int]:
        """(spool_id, segment_no)."""
        return self.segment.spool_id, self.segment.segment_no

    @property
    def is_complete(self) -> bool:
        """Whether every frame has been settled."""
        return not self.left

    @property
    def parked_frames(self) -> Segment:
        """The segment with nothing but what was parked of it."""
        requests = tuple(payload for (is_request, _), payload in self.parked if is_request)
        spans = tuple(payload for (is_request, _), payload in self.parked if not is_request)
        return replace(self.segment, requests=requests, spans=spans)

    def settle(self, item: "Item", outcome: str, cause: str = "") -> None:
        """Note what became of a frame; only requests are counted."""
        del self.left[item.is_request, item.index]
        if item.is_request:
            self.outcomes[(item.minute, "otlp", outcome, cause)] += 1

    def park(self, item: "Item") -> None:
        """Give a frame up, and keep it for people."""
        self.parked.append(((item.is_request, item.index), self.left[item.is_request, item.index]))
        self.settle(item, "lost", LossCause.PARKED.value)


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

    @property
    def key(self) -> ItemKey:
        """Names the frame among all frames of the spool."""
        return (*self.progress.key, self.is_request, self.index)


def pending(
    progresses: Iterable[Progress], *, requests: bool, wanted: Callable[[ItemKey], bool] = lambda _: True
) -> Iterator[tuple[Progress, int, dict[str, Any]]]:
    """The wanted frames of one sort that are not settled, in the order of the spool."""
    for progress in progresses:
        for (is_request, index), payload in list(progress.left.items()):
            if is_request is not requests or (is_request, index) not in progress.left:
                continue
            if payload.get("table_only"):
                del progress.left[is_request, index]
            elif wanted((*progress.key, is_request, index)):
                yield progress, index, payload


def forfeited(progress: Progress) -> Mapping[OutcomeKey, int]:
    """What became of the requests of a segment that will not be sent any further."""
    outcomes = Counter(progress.outcomes)
    for (is_request, _), payload in progress.left.items():
        if is_request and not payload.get("table_only"):
            outcome, cause = ("lost", LossCause.SPOOL_FULL.value) if "span" in payload else ("sampled", "")
            outcomes[minute_of(payload), "otlp", outcome, cause] += 1
    return outcomes


def batches(
    items: Iterable[Item], *, bytes_max: Callable[[], int], company_max: Callable[[Item], int]
) -> Iterator[list[Item]]:
    """Cut before an item that does not fit any more; an item larger than `bytes_max()` goes alone.

    Both are asked for each item, because the answer to one batch may change the size of the next. No item gets into a
    batch of more items than its `company_max`.
    """
    batch: list[Item] = []
    size, room = 0, 0
    for item in items:
        limit = company_max(item)
        if batch and (size + item.size > bytes_max() or len(batch) >= min(room, limit)):
            yield batch
            batch, size = [], 0
        room = min(room, limit) if batch else limit
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
