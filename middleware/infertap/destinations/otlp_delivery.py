"""One delivery to an OTLP endpoint: sends batches, halves what is refused, and decides what is lost for good.

1. A refused span is a suspect until the receiver accepts something else: a receiver that refuses everything is a wrong
   setting, not wrong data.
2. A span that is too large goes again, half as large each time: without its bodies, then without its attributes.
3. The receiver's partial success is counted as lost, and never re-sent.
4. A batch that fails again and again while the receiver lives is left aside: the others go on, and its spans travel in
   ever smaller company; see `otlp_suspicion`. Throttling is never a span's fault: there everything waits.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from infertap.clock import Clock
from infertap.destinations.otlp_batches import Item, ItemKey
from infertap.destinations.otlp_exporters import Answer, SpanExport, Verdict
from infertap.destinations.otlp_suspicion import Suspicion
from infertap.record import LossCause

logger = logging.getLogger("infertap.otlp")

_BATCH_BYTES_MIN = 16_384
_REFUSALS_MAX = 64
"""Refused requests of one delivery without a single acceptance, before it is taken for a wrong setting."""
_ASIDE_MAX = 3
"""Batches of one delivery left aside without a single acceptance, before the receiver is taken to be down."""
_SEARCH_S_MAX = 10.0
"""How long one delivery looks for the spans that a receiver fails on: the other destination waits meanwhile."""


@dataclass(slots=True)
class BatchSize:
    """How many bytes one request may have: `now`, which throttling halves and acceptance doubles, up to `cap`.

    A refusal for its size lowers `cap` for good, so that the same request is not tried again and again.
    """

    cap: int
    now: int

    @classmethod
    def of(cls, cap: int) -> "BatchSize":
        return cls(cap, cap)

    def lower(self, size: int, *, for_good: bool) -> None:
        """`size` bytes were too many."""
        self.now = max(min(self.now, size // 2), _BATCH_BYTES_MIN)
        if for_good:
            self.cap = self.now

    def raise_again(self) -> None:
        """A request was accepted."""
        self.now = min(self.now * 2, self.cap)


class NotAccepted(Exception):  # noqa: N818 - not an error: the way out of the recursion
    """Something is to be tried again later. What was settled until then stays settled."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.reason)
        self.answer = answer


class Delivery:
    """One call of `deliver`.

    Args:
        export: Sends one request.
        batch_size: Is adapted to what the receiver says.
        smaller: Renders an item again in half its size; None where it cannot become smaller.
        suspicion: What earlier deliveries have learned of failing batches.
        clock: Bounds the search in failing batches.
        is_alive: Asks the receiver with an empty request.
    """

    def __init__(
        self,
        export: SpanExport,
        batch_size: BatchSize,
        smaller: Callable[[Item], Item | None],
        suspicion: Suspicion,
        clock: Clock,
        is_alive: Callable[[], bool],
    ) -> None:
        self._export = export
        self._is_alive = is_alive
        self._batch_size = batch_size
        self._smaller = smaller
        self._suspicion = suspicion
        self._clock = clock
        self._search_ends_s = clock.monotonic_s() + _SEARCH_S_MAX
        self._accepted = False
        self._aside: list[Answer] = []
        self._tried_alone: set[ItemKey] = set()
        self._separated = False
        self._spans_seen = 0
        self._refusals = 0
        self._suspects: list[Item] = []
        self._last_refusal = Answer(Verdict.REFUSED)
        self._spans_lost = 0
        self._spans_parked = 0

    @property
    def held_back(self) -> Answer | None:
        """Why something was left aside, where nothing at all was accepted."""
        return self._aside[-1] if self._aside and not self._accepted else None

    def is_wanted(self, key: ItemKey) -> bool:
        """Whether a frame may go now: what has failed alone goes once in a delivery."""
        return key not in self._tried_alone

    def send(self, batch: list[Item]) -> None:
        """Send a batch, or its halves.

        Raises:
            NotAccepted: something is to be tried again later; what was settled until then is settled.
        """
        spans = [item.span for item in batch if item.span is not None]
        self._spans_seen += len(spans)
        if not spans:
            self._settle(batch, rejected=0)
            return
        self._send(batch)

    def settle_suspects(self) -> None:
        """Lose what was refused alone, if the receiver accepts anything else.

        Raises:
            NotAccepted: it does not.
        """
        if not self._suspects:
            return
        alone = self._spans_seen == len(self._suspects) == 1
        if not self._accepted and not (alone and self._export.export([]).verdict is Verdict.ACCEPTED):
            reason = f"{self._last_refusal.reason}: every span is refused, so this is no matter of a single record"
            raise NotAccepted(Answer(Verdict.MISCONFIGURED, reason))
        for item in self._suspects:
            self._lose(item)
        self._suspects = []

    def goes_on(self) -> bool:
        """Whether another round is worth while: something was divided in the last one, and there is time."""
        separated, self._separated = self._separated, False
        return separated and self._clock.monotonic_s() < self._search_ends_s

    def report(self) -> None:
        """One log line where anything was lost for good."""
        if self._spans_lost:
            logger.error(
                "the OTLP receiver rejected %d spans for good (%s)", self._spans_lost, self._last_refusal.reason
            )
        if self._spans_parked:
            logger.error(
                "the OTLP receiver fails on %d spans whenever they come (%s), and takes others: given up, and kept in "
                "the spool's folder `parked`",
                self._spans_parked, self._aside[-1].reason,
            )  # fmt: skip

    def _send(self, batch: list[Item]) -> None:
        size = sum(item.size for item in batch)
        answer = self._export.export([item.span for item in batch if item.span is not None])
        match answer.verdict:
            case Verdict.ACCEPTED:
                self._accepted = self._accepted or answer.rejected < sum(item.span is not None for item in batch)
                self._batch_size.raise_again()
                self._suspicion.accepted(batch)
                if answer.rejected:
                    self._last_refusal = answer
                self._settle(batch, rejected=answer.rejected)
            case Verdict.TOO_LARGE:
                self._batch_size.lower(size, for_good=True)
                self._split(batch, answer)
            case Verdict.REFUSED | Verdict.UNENCODABLE:
                self._refusals += 1
                if self._refusals > _REFUSALS_MAX and not self._accepted:
                    raise NotAccepted(answer)
                self._split(batch, answer)
            case Verdict.MISCONFIGURED | Verdict.UNAVAILABLE:
                if answer.verdict is Verdict.UNAVAILABLE and "RESOURCE_EXHAUSTED" in answer.reason:
                    # Throttled, or too large in words that we do not know: smaller requests are right for both.
                    self._batch_size.lower(size, for_good=False)
                self._leave_aside(batch, answer)

    def _leave_aside(self, batch: list[Item], answer: Answer) -> None:
        """Go on without a batch that fails while the receiver lives.

        Raises:
            NotAccepted: the batch may not be the cause.
        """
        is_suspect = self._suspicion.failed(batch)
        self._aside.append(answer)
        if (
            answer.is_throttling
            or not is_suspect
            or (not self._accepted and len(self._aside) > _ASIDE_MAX)
            # Asked after each failure: a receiver that fell ill in between would accuse a span that it did not read.
            or not self._is_alive()
        ):
            raise NotAccepted(answer)
        self._suspicion.separate(batch)
        if len(batch) > 1:
            self._separated = True
        else:
            self._failed_alone(batch[0])
        if self._clock.monotonic_s() > self._search_ends_s:
            raise NotAccepted(answer)

    def _failed_alone(self, item: Item) -> None:
        self._tried_alone.add(item.key)
        if self._accepted and self._suspicion.failed_alone(item):
            self._spans_parked += 1
            item.progress.park(item)

    def _split(self, batch: list[Item], answer: Answer) -> None:
        if len(batch) > 1:
            middle = len(batch) // 2
            for half in (batch[:middle], batch[middle:]):
                if any(item.span is not None for item in half):
                    self._send(half)
                else:
                    self._settle(half, rejected=0)
            return
        self._last_refusal = answer
        (item,) = batch
        if answer.verdict is Verdict.REFUSED:
            self._suspects.append(item)
        elif answer.verdict is Verdict.TOO_LARGE and (smaller := self._smaller(item)) is not None:
            self._send([smaller])
        else:
            self._lose(item)

    def _settle(self, batch: Sequence[Item], *, rejected: int) -> None:
        """`rejected` of the sent ones were lost. Which ones nobody says; the last ones are taken."""
        sent = sum(item.span is not None for item in batch)
        for item in batch:
            if item.span is None:
                self._settle_unsent(item)
                continue
            sent -= 1
            if sent < rejected:
                self._lose(item)
            else:
                item.progress.settle(item, "written")

    def _settle_unsent(self, item: Item) -> None:
        if item.is_request and "span" not in item.progress.left[True, item.index]:
            item.progress.settle(item, "sampled")
        else:
            self._last_refusal = Answer(Verdict.UNENCODABLE, "cannot be read as spans")
            self._lose(item)

    def _lose(self, item: Item) -> None:
        self._spans_lost += 1
        item.progress.settle(item, "lost", LossCause.REJECTED.value)
