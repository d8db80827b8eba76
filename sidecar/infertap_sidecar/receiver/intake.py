"""The way of an export request from its spans to the spool, the same for HTTP and gRPC.

1. Accepted means spooled: the answer waits until every span is on the disk.
2. A span is refused alone; a request is refused as a whole only where nothing of it was taken.
3. A span that was received before is accepted and not written again; nor is one that its sender writes into the same
   tables by itself.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple

from infertap.handover import Fate, SpanBatch
from infertap.pipeline import Pipeline
from infertap.record import OfferedSpan
from infertap.table_identity import IN_TABLE
from infertap_sidecar.receiver.errors import BusyError, TooLargeError
from infertap_sidecar.receiver.requests import RequestRule, RowKey
from infertap_sidecar.receiver.spans import InvalidSpanError, ReceivedSpan, plain_attributes, received
from infertap_sidecar.receiver.window import Seen, Window
from infertap_sidecar.receiver.wire import WireSpan

SETTLED_S_MAX = 9.0
"""Longest wait for the disk: most senders give up after 10 s."""


class Answer(NamedTuple):
    """What a sender is told."""

    rejected: int
    message: str
    """Empty where nothing was rejected; holds no word of what was sent."""


class Intake:
    """Takes the spans of export requests. Any thread.

    Args:
        rule: Which spans become rows; None where none does.
        tables: Which tables are written here, by their `table_identity`; None where there are none, or not yet.
        relays: Whether spans go to an OTLP endpoint from here, too.
        on_rejected: Told the message of each answer with rejected spans.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        spans: Window,
        rule: RequestRule | None,
        on_rejected: Callable[[str], None],
        *,
        tables: Callable[[], str | None] = lambda: None,
        relays: bool = False,
    ) -> None:
        self._pipeline = pipeline
        self._tables = tables
        self._relays = relays
        self._spans = spans
        self._rule = rule
        self._on_rejected = on_rejected

    def expect(self, size: int) -> None:
        """Say at once that there is no room for a request of so many bytes, before it is read for nothing.

        Raises:
            BusyError: the spans that wait for the spool leave none. A request that never fits is judged by its spans.
        """
        inbox = self._pipeline.inbox
        if inbox.span_bytes + size > inbox.span_bytes_max >= size:
            raise BusyError("the receiver has no room for these spans now")

    def take(self, wire_spans: Iterable[WireSpan]) -> "Future[Answer]":
        """Hand the spans over.

        Returns:
            The answer, once all is settled; or a BusyError, where the spool did not take it.

        Raises:
            BusyError: there is no room now, or the same spans are just being taken.
            TooLargeError: more than could ever be held at once.
        """
        rejected: Counter[str] = Counter()
        fresh = self._fresh(self._convert(wire_spans, rejected))
        answer: Future[Answer] = Future()
        if not fresh:
            answer.set_result(self._answer(rejected))
            return answer
        rows = self._rule.choose(fresh) if self._rule is not None else {}
        batch = _Batch(self, fresh, rows, rejected, answer)
        offered = [OfferedSpan(span, index in rows) for index, span in enumerate(fresh)]
        if not self._pipeline.submit_batch(SpanBatch(offered, batch.settled)):
            self._forget(range(len(fresh)), fresh, rows)
            raise BusyError("the receiver has no room for these spans now")
        return answer

    def _convert(self, wire_spans: Iterable[WireSpan], rejected: Counter[str]) -> list[ReceivedSpan]:
        """The valid spans, each once; without those that the same tables get by another way."""
        own_tables = self._tables()
        spans: dict[tuple[str, str], ReceivedSpan] = {}
        resource: dict[str, Any] = {}
        known = None
        held_bytes = 0
        for wire in wire_spans:
            if wire.resource is not known:
                known, resource = wire.resource, plain_attributes(wire.resource.attributes)
            try:
                span = received(wire, resource)
            except InvalidSpanError as error:
                rejected[str(error)] += 1
                continue
            if own_tables is not None and span.record.attributes.get(IN_TABLE) == own_tables:
                if not self._relays:
                    continue
                span.record.otlp_only = True
            spans.setdefault(span.key, span)
            held_bytes += span.held_bytes
            if held_bytes > self._pipeline.inbox.span_bytes_max:
                raise TooLargeError("these are more spans than the receiver can hold at once; send smaller batches")
        return list(spans.values())

    def _fresh(self, spans: Sequence[ReceivedSpan]) -> list[ReceivedSpan]:
        """Those that are not known yet, claimed."""
        seen = self._spans.claim([span.key for span in spans])
        fresh = [span for span, before in zip(spans, seen, strict=True) if before is Seen.NEW]
        if Seen.UNDER_WAY in seen:
            self._spans.forget([span.key for span in fresh])
            raise BusyError("these spans are being taken already; ask again")
        return fresh

    def _answer(self, rejected: Counter[str]) -> Answer:
        if not rejected:
            return Answer(0, "")
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(rejected.items()))
        message = f"rejected {rejected.total()} spans: {reasons}"
        self._on_rejected(message)
        return Answer(rejected.total(), message)

    def _confirm(self, indexes: Iterable[int], spans: Sequence[ReceivedSpan], rows: dict[int, RowKey]) -> None:
        indexes = list(indexes)
        self._spans.confirm([spans[index].key for index in indexes])
        if self._rule is not None:
            self._rule.confirm([rows[index] for index in indexes if index in rows])

    def _forget(self, indexes: Iterable[int], spans: Sequence[ReceivedSpan], rows: dict[int, RowKey]) -> None:
        indexes = list(indexes)
        self._spans.forget([spans[index].key for index in indexes])
        if self._rule is not None:
            self._rule.forget([rows[index] for index in indexes if index in rows])


class _Batch(NamedTuple):
    """One request's spans, waiting for their fates."""

    intake: Intake
    spans: Sequence[ReceivedSpan]
    rows: dict[int, RowKey]
    rejected: Counter[str]
    answer: "Future[Answer]"

    def settled(self, fates: Sequence[Fate]) -> None:
        """On the worker thread."""
        intake = self.intake
        spooled = [index for index, fate in enumerate(fates) if fate is Fate.SPOOLED]
        intake._confirm(spooled, self.spans, self.rows)
        intake._forget([index for index, fate in enumerate(fates) if fate is not Fate.SPOOLED], self.spans, self.rows)
        if Fate.LOST in fates:
            self.answer.set_exception(BusyError("the spool does not take these spans now"))
            return
        unbuildable = sum(fate is Fate.UNBUILDABLE for fate in fates)
        if unbuildable:
            self.rejected["that could not be recorded"] += unbuildable
        self.answer.set_result(intake._answer(self.rejected))
