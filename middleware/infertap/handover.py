"""Spans that another process handed over, and the answer it is waiting for: what became of each of them."""

from collections.abc import Callable, Sequence
from enum import Enum

from infertap.record import OfferedSpan


class Fate(Enum):
    """What became of one span."""

    SPOOLED = "spooled"
    """On the disk: it will be delivered."""
    LOST = "lost"
    """The spool did not take it now; later it may."""
    UNBUILDABLE = "unbuildable"
    """It can never be taken as it is."""


class SpanBatch:
    """Spans that are accepted or refused together, and judged one by one.

    Args:
        spans: In the order in which they are to be spooled.
        settled: Called once, on the worker thread, with one fate for each span. Must not raise or block.
    """

    __slots__ = ("_fates", "_open", "_settled", "held_bytes", "spans")

    def __init__(self, spans: Sequence[OfferedSpan], settled: Callable[[Sequence[Fate]], None]) -> None:
        self.spans = tuple(spans)
        self.held_bytes = sum(offered.span.held_bytes for offered in self.spans)
        """What they hold in memory, roughly."""
        self._fates = [Fate.LOST] * len(self.spans)
        self._open = len(self.spans)
        self._settled = settled

    def settle(self, index: int, fate: Fate) -> None:
        """Note what became of one span; each is settled once, all by the same thread."""
        self._fates[index] = fate
        self._open -= 1
        if self._open == 0:
            self._settled(tuple(self._fates))
