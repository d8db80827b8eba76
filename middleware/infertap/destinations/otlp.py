"""Delivers segments to an OTLP endpoint: at least once, by the standard exporters, believing only true answers.

1. A frame counts as written when the receiver has accepted it. Anything that may be different later (down, throttled,
   wrong credentials, a redirect, a login page) leaves the frame in the spool.
2. A frame without a span (its trace is not sampled) counts as `sampled`, and nothing of it leaves.
3. What is over a limit is withheld and marked, never cut; no span is lost for its size.
4. A span that the receiver fails on while it takes others holds nobody up: what is behind it goes on.
"""

import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from infertap.clock import Clock
from infertap.destinations.otlp_batches import (
    Item,
    ItemKey,
    Progress,
    batches,
    delivered_prefixes,
    forfeited,
    minute_of,
    pending,
)
from infertap.destinations.otlp_delivery import BatchSize, Delivery, NotAccepted
from infertap.destinations.otlp_exporters import Answer, SpanExport, Verdict, connect
from infertap.destinations.otlp_headers_file import HeadersFile
from infertap.destinations.otlp_memory import OtlpMemory
from infertap.destinations.otlp_probe import ProbeResult, explain, probe
from infertap.destinations.otlp_rendering import SpanRendering
from infertap.destinations.otlp_suspicion import Suspicion
from infertap.destinations.protocol import OutcomeKey, Receipt
from infertap.destinations.readable_spans import UNREADABLE
from infertap.destinations.span_size import size_estimate
from infertap.errors import RetryableError
from infertap.spool.reader import Segment
from infertap.targets import OtlpTarget, TableTarget
from infertap.urls import without_credentials

logger = logging.getLogger("infertap.otlp")

BATCH_BYTES_MAX = {"grpc": 3_500_000, "http/protobuf": 900_000}
"""Bytes of one request, uncompressed. gRPC servers refuse 4 MiB; behind HTTP, nginx and New Relic refuse 1 MB."""
_BATCH_SPANS_MAX = 4096
_KEPT_BYTES_MAX = 16 << 20
"""Of spans that have failed alone and are kept in memory, so that the segments behind them can be read."""
_EXPLANATION_AGE_S_MAX = 60.0
_SIGN_OF_LIFE_S_MAX = 2.0
"""How long a receiver that failed may take for an empty request: the other destination waits meanwhile."""


class OtlpDestination:
    """`Destination` named `otlp`.

    Args:
        target: Endpoint, protocol, credentials and limits.
        clock: Decides when a repeated failure is looked into again.
        content: `metadata` sends no bodies, even if a row has them.
        tables: Where the tables are written, too: the spans then carry references instead of bodies.
        batch_bytes_max: Bytes of one request; default by protocol. Halved while the receiver says that it is too much.
        connect: Makes the exporter.
        probes: Whether `open` asks the endpoint with an empty request, and says what is wrong before anything waits.
        memory: Where it is written down what a restart must not forget. None: nowhere.
    """

    name = "otlp"

    def __init__(
        self,
        target: OtlpTarget,
        *,
        clock: Clock,
        content: Literal["full", "metadata"] = "full",
        tables: TableTarget | None = None,
        batch_bytes_max: int | None = None,
        connect: Callable[[OtlpTarget], SpanExport] = connect,
        probes: bool = False,
        memory: Path | None = None,
    ) -> None:
        self._target = target
        self._headers = HeadersFile(target)
        self._clock = clock
        self._rendering = SpanRendering(target, content=content, tables=tables)
        limit = batch_bytes_max or BATCH_BYTES_MAX[target.protocol]
        self._batch_size = BatchSize.of(min(limit, target.limits.request_bytes_max or limit))
        self._connect = connect
        self._probes = probes
        self._export: SpanExport | None = None
        self._progress: dict[tuple[str, int], Progress] = {}
        self._suspicion = Suspicion(clock)
        self._memory = OtlpMemory(memory)
        self._explained: tuple[str, float, str] = ("", 0.0, "")
        self._told = _Told()

    def open(self) -> None:
        """Import the exporter. A certificate that cannot be read is reported by `deliver`."""
        self._memory.load(self._suspicion)
        try:
            self._exporter()
        except RetryableError as error:
            logger.warning("%s", error)
            return
        if self._probes:
            # Apart, because an endpoint that hangs must hold up neither us nor the other destination.
            threading.Thread(target=_say_what_is_wrong, args=(self._target, self._told), daemon=True).start()

    def deliver(self, segments: Sequence[Segment], outcomes: Mapping[str, Mapping[OutcomeKey, int]]) -> Receipt:  # noqa: ARG002
        """See `Destination`. `outcomes` are not used: OTLP has no ledger.

        The receipt's outcomes count requests: `written`, `sampled` (the request has no span) and `lost/rejected`.
        """
        if not segments:
            return Receipt({})
        export = self._exporter()
        keys = [(segment.spool_id, segment.segment_no) for segment in segments]
        self._progress = {
            key: self._progress.get(key) or self._memory.progress_of(segment)
            for key, segment in zip(keys, segments, strict=True)
        }
        self._suspicion.keep_only(self._progress.keys())
        run = Delivery(export, self._batch_size, self._smaller, self._suspicion, self._clock, self._is_alive)
        failure: Answer | None = None
        try:
            self._send_rounds(run)
            failure = run.held_back
        except NotAccepted as error:
            failure = error.answer
        run.report()
        delivered = delivered_prefixes(segments, self._progress)
        self._memory.save(self._progress.values(), self._suspicion, delivered)
        receipt = self._receipt(delivered)
        if failure is None:
            self._told.forget()
            return receipt
        reason = self._reason(failure)
        setback = RetryableError(reason, retry_after_s=failure.retry_after_s, is_told=not self._told.is_news(reason))
        if not receipt.delivered:
            raise setback
        return replace(receipt, setback=setback)

    @property
    def keeps(self) -> AbstractSet[tuple[str, int]]:
        """See `Destination`: what is complete behind a span that is held back, and what lacks only such spans."""
        kept: set[tuple[str, int]] = set()
        size_bytes = 0
        for key, progress in self._progress.items():
            sizes = [self._suspicion.lonely_bytes((*key, *frame)) for frame in progress.left]
            if all(sizes) and size_bytes + sum(sizes) <= _KEPT_BYTES_MAX:
                kept.add(key)
                size_bytes += sum(sizes)
        return kept

    def forfeit(self, segment: Segment, lost: Mapping[OutcomeKey, int]) -> Mapping[OutcomeKey, int]:  # noqa: ARG002
        """See `Destination`: what was settled of it stays so; the rest is lost, but for what had nothing to send."""
        progress = self._progress.pop((segment.spool_id, segment.segment_no), None)
        return forfeited(progress or self._memory.progress_of(segment))

    def decide(
        self,
        spool_id: str,  # noqa: ARG002
        undecided: Mapping[OutcomeKey, int],  # noqa: ARG002
        *,
        started_ns: int,  # noqa: ARG002
    ) -> Mapping[OutcomeKey, int]:
        """See `Destination`: nothing is left undecided."""
        return {}

    def maintain(self) -> None:
        """Nothing to do."""

    def close(self, *, deadline_s: float) -> None:  # noqa: ARG002 - closing a connection takes no time
        """Give up the connection."""
        export, self._export = self._export, None
        if export is not None:
            export.close()

    def _send_rounds(self, run: Delivery) -> None:
        """Send all that is left; what is suspected comes last, so that the receiver has shown by then how it is."""
        goes_on = True
        while goes_on:
            for suspected in (False, True):
                for requests in (True, False):
                    items = self._items(run, requests=requests, suspected=suspected)
                    for batch in batches(items, bytes_max=lambda: self._batch_size.now, company_max=self._company_max):
                        run.send(batch)
            run.settle_suspects()
            goes_on = run.goes_on()

    def _company_max(self, item: Item) -> int:
        return min(self._suspicion.company_max(item.key) or _BATCH_SPANS_MAX, _BATCH_SPANS_MAX)

    def _exporter(self) -> SpanExport:
        target = self._headers.current()
        if target is not self._target:
            self.close(deadline_s=0)
            self._target = target
        if self._export is None:
            try:
                self._export = self._connect(target)
            except OSError as error:
                raise RetryableError(f"cannot read a certificate or key: {error.strerror}") from error
            except ValueError as error:
                raise RetryableError("the certificate or key of the OTLP endpoint cannot be used") from error
        return self._export

    def _is_alive(self) -> bool:
        """Ask with an empty request. What hangs is not alive: that costs less than the target's whole timeout."""
        target = replace(self._target, timeout_s=min(self._target.timeout_s, _SIGN_OF_LIFE_S_MAX))
        try:
            export = self._connect(target)
        except (OSError, ValueError):
            return False  # the certificate is just being replaced: no span is to blame for that
        try:
            # Some, as MLflow's, do not like that nothing is in it; then they have read it.
            return export.export([]).verdict in (Verdict.ACCEPTED, Verdict.REFUSED)
        finally:
            export.close()

    def _receipt(self, delivered: Mapping[str, int]) -> Receipt:
        counts: dict[str, dict[OutcomeKey, int]] = {}
        parked: list[Segment] = []
        for key in [key for key in self._progress if key[1] <= delivered.get(key[0], -1)]:
            # It stays until the next delivery comes without it: where parking fails, this one comes again.
            progress = self._progress[key]
            of_slot = counts.setdefault(key[0], {})
            for outcome, count in progress.outcomes.items():
                of_slot[outcome] = of_slot.get(outcome, 0) + count
            if progress.parked:
                parked.append(progress.parked_frames)
        outcomes = {spool_id: of for spool_id, of in counts.items() if of}
        return Receipt(delivered=delivered, outcomes=outcomes, parked=parked)

    def _items(self, run: Delivery, *, requests: bool, suspected: bool) -> Iterator[Item]:
        def is_wanted(key: ItemKey) -> bool:
            return self._suspicion.suspects(key) is suspected and run.is_wanted(key)

        for progress, index, payload in pending(self._progress.values(), requests=requests, wanted=is_wanted):
            try:
                yield self._item(progress, index, payload, requests=requests)
            except UNREADABLE:
                # Made by another version or damaged in a way that the checksums did not see: nothing can be sent.
                yield Item(progress, requests, index, minute_of(payload) if requests else 0, None, 0)

    def _item(
        self,
        progress: Progress,
        index: int,
        payload: dict[str, Any],
        *,
        requests: bool,
        bytes_max: int | None = None,
    ) -> Item:
        render = self._rendering.request if requests else self._rendering.span
        span = render(payload, progress.segment.header, bytes_max=bytes_max)
        minute = minute_of(payload) if requests else 0
        return Item(progress, requests, index, minute, span, size_estimate(span) if span is not None else 0)

    def _smaller(self, item: Item) -> Item | None:
        """The item in at most half its size, or as small as it gets; None where it is that already."""
        payload = item.progress.left[item.is_request, item.index]
        smaller = self._item(item.progress, item.index, payload, requests=item.is_request, bytes_max=item.size // 2)
        return smaller if smaller.size < item.size else None

    def _reason(self, answer: Answer) -> str:
        """What was seen and, looked into at most once a minute, what to do about it."""
        reason, at_s, fix = self._explained
        if reason != answer.reason or self._clock.monotonic_s() - at_s > _EXPLANATION_AGE_S_MAX:
            fix = explain(self._target, answer).fix
            self._explained = (answer.reason, self._clock.monotonic_s(), fix)
        return _failure(self._target, ProbeResult(False, answer.reason, fix))


class _Told:
    """Which failure was said last, by the probe or by a delivery: one failure is one line. Both threads."""

    def __init__(self) -> None:
        self._text = ""
        self._lock = threading.Lock()

    def is_news(self, text: str) -> bool:
        """Whether it is to be said now; whoever asks first says it."""
        with self._lock:
            before, self._text = self._text, text
        return before != text

    def forget(self) -> None:
        """It works again: the next failure is news."""
        with self._lock:
            self._text = ""


def _failure(target: OtlpTarget, result: ProbeResult) -> str:
    return f"OTLP {without_credentials(target.endpoint)}: {result.line}"


def _say_what_is_wrong(target: OtlpTarget, told: _Told) -> None:
    result = probe(target)
    if not result.ok and told.is_news(text := _failure(target, result)):
        logger.warning("%s; records wait in the spool", text)
