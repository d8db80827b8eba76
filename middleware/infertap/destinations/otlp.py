"""Delivers segments to an OTLP endpoint: at least once, by the standard exporters, believing only true answers.

1. A frame counts as written when the receiver has accepted it. Anything that may be different later (down, throttled,
   wrong credentials, a redirect, a login page) leaves the frame in the spool.
2. A frame without a span (its trace is not sampled) counts as `sampled`, and nothing of it leaves.
3. A body over a limit is withheld and marked, never cut.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

from infertap.clock import Clock
from infertap.destinations.otlp_batches import Item, Progress, batches, delivered_prefixes, minute_of, pending
from infertap.destinations.otlp_delivery import BatchSize, Delivery, NotAccepted
from infertap.destinations.otlp_exporters import Answer, SpanExport, connect, shown
from infertap.destinations.otlp_probe import explain
from infertap.destinations.protocol import OutcomeKey, Receipt
from infertap.destinations.readable_spans import UNREADABLE, Resources, readable_span, size_estimate
from infertap.destinations.server_span import bodies_as_attributes, render_server_span
from infertap.errors import RetryableError
from infertap.spool.reader import Segment
from infertap.targets import OtlpTarget

logger = logging.getLogger("infertap.otlp")

BATCH_BYTES_MAX = {"grpc": 3_500_000, "http/protobuf": 900_000}
"""Bytes of one request, uncompressed. gRPC servers refuse 4 MiB; behind HTTP, nginx and New Relic refuse 1 MB."""
_BATCH_SPANS_MAX = 4096
_EXPLANATION_AGE_S_MAX = 60.0


class OtlpDestination:
    """`Destination` named `otlp`.

    Args:
        target: Endpoint, protocol, credentials and limits.
        clock: Decides when a repeated failure is looked into again.
        content: `metadata` sends no bodies, even if a row has them.
        tables_uri: Where the tables are written, too: the spans then carry references instead of bodies.
        batch_bytes_max: Bytes of one request; default by protocol. Halved while the receiver says that it is too much.
        connect: Makes the exporter.
    """

    name = "otlp"

    def __init__(
        self,
        target: OtlpTarget,
        *,
        clock: Clock,
        content: Literal["full", "metadata"] = "full",
        tables_uri: str | None = None,
        batch_bytes_max: int | None = None,
        connect: Callable[[OtlpTarget], SpanExport] = connect,
    ) -> None:
        self._target = target
        self._clock = clock
        self._content = content
        self._tables_uri = tables_uri
        self._batch_size = BatchSize.of(batch_bytes_max or BATCH_BYTES_MAX[target.protocol])
        self._connect = connect
        self._export: SpanExport | None = None
        self._resources = Resources()
        self._progress: dict[tuple[str, int], Progress] = {}
        self._explained: tuple[str, float, str] = ("", 0.0, "")

    def open(self) -> None:
        """Import the exporter. A certificate that cannot be read is reported by `deliver`."""
        try:
            self._exporter()
        except RetryableError as error:
            logger.warning("%s", error)

    def deliver(self, segments: Sequence[Segment], outcomes: Mapping[str, Mapping[OutcomeKey, int]]) -> Receipt:  # noqa: ARG002
        """See `Destination`. `outcomes` are not used: OTLP has no ledger.

        The receipt's outcomes count requests: `written`, `sampled` (the request has no span) and `lost/rejected`.
        """
        export = self._exporter()
        keys = [(segment.spool_id, segment.segment_no) for segment in segments]
        self._progress = {
            key: self._progress.get(key) or Progress(segment) for key, segment in zip(keys, segments, strict=True)
        }
        run = Delivery(export, self._batch_size, self._without_content)
        failure: RetryableError | None = None
        try:
            for requests in (True, False):
                items = self._items(requests=requests)
                for batch in batches(items, bytes_max=lambda: self._batch_size.now, spans_max=_BATCH_SPANS_MAX):
                    run.send(batch)
            run.settle_suspects()
        except NotAccepted as error:
            failure = RetryableError(self._reason(error.answer), retry_after_s=error.answer.retry_after_s)
        run.report()
        receipt = self._receipt(segments)
        if failure is not None and not receipt.delivered:
            raise failure
        return receipt

    def maintain(self) -> None:
        """Nothing to do."""

    def close(self, *, deadline_s: float) -> None:  # noqa: ARG002 - closing a connection takes no time
        """Give up the connection."""
        export, self._export = self._export, None
        if export is not None:
            export.close()

    def _exporter(self) -> SpanExport:
        if self._export is None:
            try:
                self._export = self._connect(self._target)
            except OSError as error:
                raise RetryableError(f"cannot read a certificate or key: {error.strerror}") from error
            except ValueError as error:
                raise RetryableError("the certificate or key of the OTLP endpoint cannot be used") from error
        return self._export

    def _receipt(self, segments: Sequence[Segment]) -> Receipt:
        delivered = delivered_prefixes(segments, self._progress)
        counts: dict[str, dict[OutcomeKey, int]] = {}
        for key in [key for key in self._progress if key[1] <= delivered.get(key[0], -1)]:
            of_slot = counts.setdefault(key[0], {})
            for outcome, count in self._progress.pop(key).outcomes.items():
                of_slot[outcome] = of_slot.get(outcome, 0) + count
        return Receipt(delivered=delivered, outcomes={spool_id: of for spool_id, of in counts.items() if of})

    def _items(self, *, requests: bool) -> Iterator[Item]:
        for progress, index, payload in pending(self._progress.values(), requests=requests):
            try:
                yield self._item(progress, index, payload, requests=requests, with_content=True)
            except UNREADABLE:
                # Made by another version or damaged in a way that the checksums did not see: nothing can be sent.
                yield Item(progress, requests, index, minute_of(payload) if requests else 0, None, 0)

    def _item(
        self, progress: Progress, index: int, payload: dict[str, Any], *, requests: bool, with_content: bool
    ) -> Item:
        header = progress.segment.header
        limit = self._target.value_length_max
        if not requests:
            resource = self._resources.of(payload.get("resource") or header.get("resource", {}))
            span = readable_span(payload, resource, limit)
            return Item(progress, False, index, 0, span, size_estimate(span))
        minute = minute_of(payload)
        if "span" not in payload:
            return Item(progress, True, index, minute, None, 0)
        record = render_server_span(payload, header)
        content = self._content_of(payload) if with_content else {"infertap.withheld": "platform_limit"}
        record.attributes.update(content)
        span = readable_span(record.to_payload(), self._resources.of(header.get("resource", {})), limit)
        return Item(
            progress, True, index, minute, span, size_estimate(span), has_content=with_content and bool(content)
        )

    def _without_content(self, item: Item) -> Item:
        payload = item.progress.segment.requests[item.index]
        return self._item(item.progress, item.index, payload, requests=True, with_content=False)

    def _content_of(self, request: Mapping[str, Any]) -> dict[str, Any]:
        if self._content == "metadata":
            return {}
        if self._tables_uri is None:
            return bodies_as_attributes(request, value_length_max=self._target.value_length_max)
        reference = f"{shown(self._tables_uri)}/inference?request_id={request['request_id']}"
        names = {"request": "gen_ai.input.messages_ref", "response": "gen_ai.output.messages_ref"}
        return {name: reference for side, name in names.items() if request.get(side) or request.get(f"{side}_ref")}

    def _reason(self, answer: Answer) -> str:
        """What was seen and, looked into at most once a minute, what to do about it."""
        reason, at_s, fix = self._explained
        if reason != answer.reason or self._clock.monotonic_s() - at_s > _EXPLANATION_AGE_S_MAX:
            fix = explain(self._target, answer).fix
            self._explained = (answer.reason, self._clock.monotonic_s(), fix)
        text = f"OTLP {shown(self._target.endpoint)}: {answer.reason}"
        return f"{text}; {fix}" if fix else text
