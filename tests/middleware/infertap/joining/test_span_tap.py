"""The processor on somebody's provider: which spans it takes, whose they are, and when it takes none."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from opentelemetry import context as otel_context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

from infertap.joining.request_keys import RequestKeys
from infertap.joining.span_tap import SpanTap
from infertap.record import PendingSpan, SpanRecord, TraceIds, request_id
from infertap.trace import ServerSpan, context_with

OURS = {"service.name": "svc", "host.name": "here"}


class Sink:
    """Keeps what a pipeline would queue."""

    def __init__(self) -> None:
        self.pending: list[PendingSpan] = []
        self.errors: list[Exception] = []

    def submit_span(self, span: PendingSpan) -> bool:
        self.pending.append(span)
        return True

    def capture_failed(self, error: Exception) -> None:
        self.errors.append(error)

    @property
    def records(self) -> list[SpanRecord]:
        return [span.raw() for span in self.pending]


@pytest.fixture
def sink() -> Sink:
    return Sink()


@pytest.fixture
def provider() -> TracerProvider:
    return TracerProvider(resource=Resource(OURS), shutdown_on_exit=False)


def tap(sink: Sink, provider: Any, destination: str = "table", *, orphans: bool = False) -> SpanTap:
    processor = SpanTap(sink, RequestKeys(sink), destination, OURS, orphans=orphans)
    processor.sit_on(provider)
    return processor


def in_request(sink: Sink) -> otel_context.Context:
    span = ServerSpan(sink, TraceIds(0xA, 0xB, 0, 1, "c=1"), None, 7, None, 1_000_000_000)
    return context_with(span, otel_context.Context())


class NowhereExporter(OTLPSpanExporter):
    """Known as an OTLP exporter, and sends nothing: its thread would go on trying beside the tests that follow."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return SpanExportResult.SUCCESS


@pytest.fixture
def exporting() -> Iterator[Callable[[], BatchSpanProcessor]]:
    """Makes processors that would export over OTLP; their threads end with the test."""
    with contextlib.ExitStack() as stack:

        def make() -> BatchSpanProcessor:
            processor = BatchSpanProcessor(NowhereExporter())
            stack.callback(processor.shutdown)
            return processor

        yield make


def test_a_span_in_a_request_is_taken_whole(sink: Sink, provider: TracerProvider) -> None:
    """Ids, parent, our mark, typed attributes, events, status and the request's id are in the record."""
    tap(sink, provider)
    tracer = provider.get_tracer("library", "1.2")
    attributes = {"n": 3, "list": [1.5, 2.5], "text": "t" * 100}
    with contextlib.suppress(ValueError), tracer.start_as_current_span("work", in_request(sink), attributes=attributes):
        raise ValueError("broken")
    (record,) = sink.records
    assert (record.name, record.kind, record.scope_name, record.scope_version) == ("work", "INTERNAL", "library", "1.2")
    assert (record.trace_id, record.parent_span_id) == (f"{0xA:032x}", f"{0xB:016x}")
    assert record.trace_state == f"infertap={0xB:016x},c=1"
    assert record.attributes == {"n": 3, "list": (1.5, 2.5), "text": "t" * 100}
    assert record.events[0][0] == "exception"
    assert record.status is not None
    assert record.status[0] == "ERROR"
    assert record.request_id == request_id(1_000_000_000, 7)
    assert record.resource is None
    assert record.table_only is None
    assert sink.pending[0].held_bytes > 1_100
    assert 0 < record.start_ns <= record.end_ns


def test_descendants_belong_to_the_request_of_their_ancestors(sink: Sink, provider: TracerProvider) -> None:
    """A child made under an explicit parent, where no context knows the request, is the request's, too."""
    tap(sink, provider)
    tracer = provider.get_tracer("library")
    from opentelemetry.trace import set_span_in_context

    parent = tracer.start_span("parent", in_request(sink))
    tracer.start_span("child", set_span_in_context(parent, otel_context.Context())).end()
    parent.end()
    assert [record.request_id for record in sink.records] == [request_id(1_000_000_000, 7)] * 2


@pytest.mark.parametrize("orphans", [False, True])
def test_spans_outside_of_requests_are_taken_where_asked_for(
    sink: Sink, provider: TracerProvider, orphans: bool
) -> None:
    """A background job's span is the app's own affair, except on MLflow's provider."""
    tap(sink, provider, orphans=orphans)
    provider.get_tracer("library").start_span("job").end()
    assert [(record.name, record.request_id) for record in sink.records] == ([("job", None)] if orphans else [])


def test_spans_that_are_not_sampled_are_not_taken(sink: Sink) -> None:
    """What the app's sampler drops stays dropped."""
    provider = TracerProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False)
    tap(sink, provider)
    provider.get_tracer("library").start_span("work", in_request(sink)).end()
    assert sink.records == []


@pytest.mark.parametrize(("destination", "taken"), [("table", [None]), ("otlp", []), ("both", [True])])
@pytest.mark.parametrize("later", [False, True])
def test_what_is_exported_by_others_goes_to_the_table_only(
    sink: Sink,
    provider: TracerProvider,
    destination: str,
    taken: list[bool | None],
    later: bool,
    exporting: Callable[[], BatchSpanProcessor],
) -> None:
    """An OTLP exporter on the provider, there before us or added later, keeps its spans out of our OTLP."""
    if not later:
        provider.add_span_processor(exporting())
    tap(sink, provider, destination)
    if later:
        provider.add_span_processor(exporting())
    provider.get_tracer("library").start_span("work", in_request(sink)).end()
    assert [record.table_only for record in sink.records] == taken


def test_other_exporters_are_no_reason_to_leave_spans_out(sink: Sink, provider: TracerProvider) -> None:
    """Only what goes over OTLP could arrive twice."""
    provider.add_span_processor(SimpleSpanProcessor(InMemorySpanExporter()))
    tap(sink, provider, "otlp")
    provider.get_tracer("library").start_span("work", in_request(sink)).end()
    assert len(sink.records) == 1


def test_a_processor_that_raises_does_not_cost_us_the_span(sink: Sink, provider: TracerProvider) -> None:
    """Ours is asked first."""

    class Broken(SpanProcessor):
        def on_end(self, span: ReadableSpan) -> None:
            raise NameError("as MLflow's does")

    provider.add_span_processor(Broken())
    tap(sink, provider)
    with pytest.raises(NameError):
        provider.get_tracer("library").start_span("work", in_request(sink)).end()
    assert len(sink.records) == 1


def test_our_own_failure_is_counted_and_not_raised(sink: Sink, provider: TracerProvider) -> None:
    """A span of the app ends whatever the pipeline says."""

    def refuse(span: PendingSpan) -> bool:
        raise RuntimeError("ours")

    sink.submit_span = refuse  # type: ignore[method-assign]
    tap(sink, provider)
    provider.get_tracer("library").start_span("work", in_request(sink)).end()
    assert [str(error) for error in sink.errors] == ["ours"]


def test_after_leaving_nothing_is_taken(sink: Sink, provider: TracerProvider) -> None:
    """The provider is as it was."""
    before = provider._active_span_processor._span_processors
    processor = tap(sink, provider)
    processor.leave(provider)
    assert provider._active_span_processor._span_processors == before
    provider.get_tracer("library").start_span("work", in_request(sink)).end()
    assert sink.records == []


def test_a_resource_that_says_more_goes_along(sink: Sink) -> None:
    """Their attributes upon ours; the SDK's name and an unknown service say nothing."""
    theirs = {"service.name": "unknown_service:python", "telemetry.sdk.name": "mlflow", "team": "red"}
    provider = TracerProvider(resource=Resource(theirs), shutdown_on_exit=False)
    tap(sink, provider)
    provider.get_tracer("library").start_span("work", in_request(sink)).end()
    assert sink.records[0].resource == {**OURS, "team": "red"}


def test_requests_of_another_pipeline_are_left_to_it(sink: Sink, provider: TracerProvider) -> None:
    """Two recorders in one process take the spans of their own requests only, also on MLflow's provider."""
    tap(sink, provider, orphans=True)
    provider.get_tracer("library").start_span("work", in_request(Sink())).end()
    assert sink.records == []
