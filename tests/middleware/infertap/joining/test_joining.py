"""Finding other makers of spans, and what a request does with them."""

from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry import trace as otel_trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

from infertap.child_span import start_span
from infertap.joining.joining import Joining, JoiningSettings
from infertap.record import InferenceRecord, PendingSpan, ServerSpanFacts, TraceIds
from infertap.trace import ServerSpan, annotate, current_server_span


class Sink:
    def __init__(self) -> None:
        self.names: list[str] = []
        self.errors: list[Exception] = []

    def submit_span(self, span: PendingSpan) -> bool:
        self.names.append(span.raw().name)
        return True

    def capture_failed(self, error: Exception) -> None:
        self.errors.append(error)


@pytest.fixture
def no_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process as it is before anybody sets a provider."""
    monkeypatch.setattr(otel_trace, "_TRACER_PROVIDER", None)
    monkeypatch.setattr(otel_trace, "_TRACER_PROVIDER_SET_ONCE", type(otel_trace._TRACER_PROVIDER_SET_ONCE)())


@pytest.fixture
def sink() -> Sink:
    return Sink()


def make(sink: Sink, *, install: bool = False, destination: str = "table") -> Joining:
    warnings: list[str] = []
    return Joining(sink, JoiningSettings(destination, {}, install), warnings.append)


@pytest.fixture
def joining(sink: Sink, no_provider: None) -> Iterator[Joining]:
    joining = make(sink)
    yield joining
    joining.begin_flush(1.0)()


def server_span(sink: Sink) -> ServerSpan:
    return ServerSpan(sink, TraceIds(0xA, 0xB, 0xC, 1, ""), None, 7, None, 1)


def test_without_makers_nothing_is_active(joining: Joining, sink: Sink) -> None:
    """An app without a provider pays one look; its spans find nobody."""
    joining.look()
    joining.app_started()
    assert joining.active is False
    assert otel_trace._TRACER_PROVIDER is None


def test_a_provider_is_found_whenever_it_comes(joining: Joining, sink: Sink) -> None:
    """Set after the start, it is tapped at the next look."""
    joining.look()
    otel_trace.set_tracer_provider(TracerProvider(shutdown_on_exit=False))
    joining.look()
    joining.look()
    assert joining.active is True
    joined = joining.enter(server_span(sink), {"headers": []})
    otel_trace.get_tracer("library").start_span("work").end()
    joined.leave()
    assert sink.names == ["work"]


def test_a_provider_is_offered_only_where_there_is_none(sink: Sink, no_provider: None) -> None:
    """The app's own provider is never replaced."""
    theirs = TracerProvider(shutdown_on_exit=False)
    otel_trace.set_tracer_provider(theirs)
    joining = make(sink, install=True)
    joining.app_started()
    assert otel_trace.get_tracer_provider() is theirs
    joining.begin_flush(1.0)()


@pytest.mark.parametrize("variable", ["OTEL_SDK_DISABLED", "OTEL_PYTHON_TRACER_PROVIDER"])
def test_the_standard_switches_keep_our_provider_out(
    sink: Sink, no_provider: None, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    """Where OpenTelemetry is off, or told which provider to load, none of ours is set."""
    monkeypatch.setenv(variable, "true")
    joining = make(sink, install=True)
    joining.app_started()
    assert otel_trace._TRACER_PROVIDER is None


def test_a_request_hands_its_context_to_those_who_read_headers(joining: Joining, sink: Sink) -> None:
    """FastAPI's and Starlette's tracing extract the parent from the headers: they find our span there."""
    otel_trace.set_tracer_provider(TracerProvider(shutdown_on_exit=False))
    joining.look()
    scope: dict[str, Any] = {"headers": [(b"host", b"h"), (b"traceparent", b"the caller's"), (b"tracestate", b"a=1")]}
    joining.enter(server_span(sink), scope).leave()
    assert scope["headers"] == [
        (b"host", b"h"),
        (b"traceparent", f"00-{0xA:032x}-{0xB:016x}-01".encode()),
        (b"tracestate", f"infertap={0xB:016x}".encode()),
    ]


def test_the_request_is_known_where_the_context_was_replaced(joining: Joining, sink: Sink) -> None:
    """`annotate` reaches the row though FastAPI has put another OpenTelemetry context in place."""
    otel_trace.set_tracer_provider(TracerProvider(shutdown_on_exit=False))
    joining.look()
    span = server_span(sink)
    joined = joining.enter(span, {"headers": []})
    annotate(user="u-1")
    joined.leave()
    assert span.tags == {"user": "u-1"}
    assert current_server_span() is None


def test_an_excluded_request_keeps_the_callers_headers(joining: Joining, sink: Sink) -> None:
    """Without a span of ours there is nothing to hand on."""
    otel_trace.set_tracer_provider(TracerProvider(shutdown_on_exit=False))
    joining.look()
    span = server_span(sink)
    span.excluded = True
    scope: dict[str, Any] = {"headers": [(b"traceparent", b"the caller's")]}
    joining.enter(span, scope).leave()
    assert scope["headers"] == [(b"traceparent", b"the caller's")]


def test_a_failure_costs_the_request_nothing(joining: Joining, sink: Sink) -> None:
    """A scope that is none is counted, and the request goes on."""
    otel_trace.set_tracer_provider(TracerProvider(shutdown_on_exit=False))
    joining.look()
    joining.enter(server_span(sink), {}).leave()
    assert [type(error) for error in sink.errors] == [KeyError]


def test_a_stop_flushes_and_leaves(sink: Sink, no_provider: None) -> None:
    """Whoever exports by itself is told to; nothing of ours stays behind."""

    class Told(TracerProvider):
        flushed = 0

        def force_flush(self, timeout_millis: int = 30_000) -> bool:
            self.flushed += 1
            return True

    theirs = Told(shutdown_on_exit=False)
    otel_trace.set_tracer_provider(theirs)
    joining = make(sink)
    joining.look()
    joining.begin_flush(5.0)()
    assert theirs.flushed == 1
    assert theirs._active_span_processor._span_processors == ()
    assert joining.active is False


def test_our_child_span_finds_the_request_where_the_context_was_replaced(joining: Joining, sink: Sink) -> None:
    """In a context without a span it becomes the server span's child."""
    otel_trace.set_tracer_provider(TracerProvider(shutdown_on_exit=False))
    joining.look()
    joined = joining.enter(server_span(sink), {"headers": []})
    with start_span("ours") as span:
        assert span.resolve().parent_span_id == 0xB
    joined.leave()
    assert sink.names == ["ours"]


def test_a_forked_child_takes_nothing_for_its_parent(joining: Joining, sink: Sink) -> None:
    """What the parent set up is mute, and waits for no lock."""
    otel_trace.set_tracer_provider(TracerProvider(shutdown_on_exit=False))
    joining.look()
    joining.abandon()
    joined = joining.enter(server_span(sink), {"headers": []})
    otel_trace.get_tracer("library").start_span("work").end()
    joined.leave()
    assert (joining.active, sink.names) == (False, [])


@pytest.mark.parametrize(
    ("destination", "kind", "names"),
    [
        ("table", "SERVER", ["POST /items/{id}"]),
        ("table", "INTERNAL", []),
        ("otlp", "SERVER", []),
        ("both", "SERVER", []),
    ],
)
def test_the_apps_own_backend_gets_the_parent_of_its_spans(
    sink: Sink, no_provider: None, destination: str, kind: str, names: list[str]
) -> None:
    """With tables alone, the provider's exporters get the server span: its ids, no content, and not into our tables."""
    exporter = InMemorySpanExporter()
    theirs = TracerProvider(shutdown_on_exit=False)
    theirs.add_span_processor(SimpleSpanProcessor(exporter))
    otel_trace.set_tracer_provider(theirs)
    joining = make(sink, destination=destination)
    joining.look()
    facts = ServerSpanFacts(
        kind, f"{0xB:016x}", f"{0xC:016x}", "", 1, "1.1", "http", "", None, None, [], [], route="/items/{id}"
    )
    joining.echo(
        InferenceRecord(
            request_id="r1", request_time=1_000, trace_id=f"{0xA:032x}", method="POST", path="/items/7",
            status_code=500, duration_ns=5, request="a body", response="an answer", span=facts,
        )
    )  # fmt: skip
    joining.begin_flush(1.0)()
    spans = exporter.get_finished_spans()
    assert [span.name for span in spans] == names
    assert sink.names == []
    for span in spans:
        assert (span.context.trace_id, span.context.span_id, span.kind) == (0xA, 0xB, SpanKind.SERVER)
        assert span.parent is not None
        assert (span.parent.span_id, span.start_time, span.end_time) == (0xC, 1_000_000, 1_000_005)
        assert span.resource is theirs.resource
        assert dict(span.attributes or {}) == {
            "http.request.method": "POST", "http.response.status_code": 500, "http.route": "/items/{id}",
            "url.path": "/items/7", "url.scheme": "http", "infertap.request_id": "r1",
        }  # fmt: skip


class Logfire:
    """A provider that others put around the SDK's, and that they exchange at each `configure`."""

    def __init__(self) -> None:
        self.provider = TracerProvider(shutdown_on_exit=False)

    def add_span_processor(self, processor: Any) -> None:
        self.provider.add_span_processor(processor)


def test_a_provider_exchanged_within_its_wrapper_is_found_again(
    joining: Joining, sink: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker's next look sits down on the new one."""
    wrapper = Logfire()
    monkeypatch.setattr(otel_trace, "_TRACER_PROVIDER", wrapper)
    joining.look()
    wrapper.provider = TracerProvider(shutdown_on_exit=False)
    joining.look()
    joining.look()
    joined = joining.enter(server_span(sink), {"headers": []})
    wrapper.provider.get_tracer("library").start_span("work").end()
    joined.leave()
    assert sink.names == ["work"]


def test_who_was_thrown_out_sits_down_again(joining: Joining, sink: Sink, monkeypatch: pytest.MonkeyPatch) -> None:
    """Phoenix's provider drops the processors it has when the app adds its own."""
    provider = TracerProvider(shutdown_on_exit=False)
    monkeypatch.setattr(otel_trace, "_TRACER_PROVIDER", provider)
    joining.look()
    provider._active_span_processor._span_processors = ()
    joining.look()
    joined = joining.enter(server_span(sink), {"headers": []})
    provider.get_tracer("library").start_span("work").end()
    joined.leave()
    assert sink.names == ["work"]
