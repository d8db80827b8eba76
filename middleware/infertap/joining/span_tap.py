"""`SpanTap`: the span processor that sits on a provider of others and hands their finished spans to the pipeline.

1. An app's span must start and end whatever happens here: our own errors are counted, not raised.
2. Nothing is converted or redacted here; that is the worker's.
3. A span goes nowhere twice: whether its provider exports it over OTLP by itself is looked at whenever the
   provider's processors change.
"""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor

from infertap.joining.finished_span import FinishedSpan
from infertap.joining.providers import exports_otlp, processors_of
from infertap.joining.request_keys import RequestKeys
from infertap.record import PendingSpan


class Sink(Protocol):
    """What a tap needs of the pipeline. Any thread."""

    def submit_span(self, span: PendingSpan) -> object:
        """Queue a finished span for the worker."""

    def capture_failed(self, error: Exception) -> None:
        """Our own code failed beside a request."""


class SpanTap(SpanProcessor):
    """Takes the spans of one provider.

    Args:
        destination: `table`, `otlp` or `both`.
        orphans: Whether spans that belong to no recorded request are taken, too.
        resource: The resource attributes of this process as infertap records them.
    """

    def __init__(
        self, sink: Sink, keys: RequestKeys, destination: str, resource: Mapping[str, Any], *, orphans: bool
    ) -> None:
        self._sink: Sink | None = sink
        self._keys = keys
        self._destination = destination
        self._resource = resource
        self.orphans = orphans
        self._takes, self._table_only = True, False
        self._processors: Callable[[], object] = tuple
        self._judged: object = None

    def sit_on(self, provider: Any) -> None:
        """Become a processor of `provider`, the first one where that is possible: another one may raise."""
        active = processors_of(provider)
        if active is not None:
            with active._lock:
                active._span_processors = (self, *active._span_processors)
            self._processors = lambda: active._span_processors
        else:
            # No provider of the SDK: it knows the method, and hides what it holds.
            provider.add_span_processor(self)
        self._judge()

    def sits_on(self, provider: Any) -> bool:
        """Whether it still calls us: a provider may be exchanged within its wrapper, processors within the provider."""
        active = processors_of(provider)
        return active is None or any(processor is self for processor in active._span_processors)

    def leave(self, provider: Any) -> None:
        """Take nothing any more; the provider lives on."""
        self.mute()
        active = processors_of(provider)
        if active is not None:
            with active._lock:
                active._span_processors = tuple(other for other in active._span_processors if other is not self)

    def mute(self) -> None:
        """Take nothing any more, and stay where it is."""
        self._sink = None

    @property
    def exported_by_others(self) -> bool:
        """Whether the provider sends its spans over OTLP by itself."""
        processors = self._processors()
        return isinstance(processors, tuple) and any(exports_otlp(processor) for processor in processors)

    def _judge(self) -> None:
        self._judged = self._processors()
        exported = self.exported_by_others
        self._takes = self._destination != "otlp" or not exported
        self._table_only = self._destination == "both" and exported

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        sink = self._sink
        if sink is None:
            return
        try:
            if self._processors() is not self._judged:
                self._judge()
            if self._takes:
                self._keys.began(span.context, span.parent, parent_context)
        except Exception as error:
            sink.capture_failed(error)

    def on_end(self, span: ReadableSpan) -> None:
        sink = self._sink
        if sink is None:
            return
        try:
            belonging = self._keys.ended(span.context)
            if belonging is None or not span.context.trace_flags.sampled:
                return
            if belonging.inside or self.orphans:
                sink.submit_span(FinishedSpan(span, belonging.key, self._resource, table_only=self._table_only))
        except Exception as error:
            sink.capture_failed(error)
