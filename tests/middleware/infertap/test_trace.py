"""The spans that an app sees: OpenTelemetry's API in full, and nothing that could harm the app."""

import asyncio
import contextvars
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import Link, NonRecordingSpan, Span, SpanContext, Status, StatusCode, TraceFlags

from infertap import annotate, start_span
from infertap.child_span import ChildSpan
from infertap.record import PendingSpan, TraceIds
from infertap.trace import CURRENT_SPAN_KEY, ServerSpan, context_with, current_server_span
from infertap.trace_context import PureSampler

_TRACEPARENT = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
_TRACE_ID = 0x0AF7651916CD43DD8448EB211C80319C


class Sink:
    """Takes finished child spans."""

    def __init__(self) -> None:
        self.spans: list[ChildSpan] = []

    def submit_span(self, span: PendingSpan) -> None:
        assert isinstance(span, ChildSpan)
        self.spans.append(span)

    def names(self) -> list[str]:
        return [span.name for span in self.spans]


@pytest.fixture
def sink() -> Sink:
    """Where child spans go."""
    return Sink()


@pytest.fixture
def server(sink: Sink) -> Iterator[ServerSpan]:
    """The server span of a sampled request, current while the test runs."""
    span = ServerSpan(sink, None, _TRACEPARENT, 5 << 64, PureSampler(ratio=1, parent_based=True), 1_000)
    token = otel_context.attach(context_with(span, otel_context.get_current()))
    yield span
    otel_context.detach(token)


def test_the_server_span_is_opentelemetrys_current_span(server: ServerSpan) -> None:
    """An instance of the API's class, valid, recording, with ids derived once."""
    assert isinstance(server, Span)
    assert trace.get_current_span() is server
    assert current_server_span() is server
    context = server.get_span_context()
    assert context is server.get_span_context()
    assert context.is_valid
    assert not context.is_remote
    assert (context.trace_id, context.span_id, context.trace_flags) == (_TRACE_ID, 5, 1)
    assert server.is_recording()


def test_an_untouched_span_has_no_facts(server: ServerSpan) -> None:
    """Most requests never touch theirs."""
    server.get_span_context()
    assert server.is_recording()
    assert not server.touched


def test_every_method_of_the_api_is_kept(server: ServerSpan) -> None:
    """Attributes keep their types, events and links their attributes."""
    server.set_attribute("a", 1)
    server.set_attributes({"a": 2, "b": [1.5, 2.5], "c": True})
    server.add_event("first", {"k": "v"}, 123)
    server.add_event("second")
    server.add_link(SpanContext(1, 2, is_remote=True, trace_flags=TraceFlags(1)), {"why": "batch"})
    server.update_name("POST /x")
    server.set_status(StatusCode.ERROR, "broken")
    facts = server.facts()
    assert facts is not None
    assert (facts.name, facts.attributes) == ("POST /x", {"a": 2, "b": [1.5, 2.5], "c": True})
    assert facts.events[0] == ("first", 123, {"k": "v"})
    assert facts.events[1][0] == "second"
    assert facts.events[1][1] > 1_600_000_000_000_000_000
    assert facts.links == ((1, 2, 1, {"why": "batch"}),)
    assert facts.status == ("ERROR", "broken")


def test_record_exception_is_opentelemetrys_event(server: ServerSpan) -> None:
    """Type, message and stack trace; the caller's attributes win."""
    try:
        raise KeyError("missing")
    except KeyError as error:
        server.record_exception(error, {"exception.type": "mine", "more": 1})
    facts = server.facts()
    assert facts is not None
    name, _, attributes = facts.events[0]
    assert name == "exception"
    assert (attributes["exception.type"], attributes["more"]) == ("mine", 1)
    assert attributes["exception.message"] == "'missing'"
    assert "raise KeyError" in str(attributes["exception.stacktrace"])


@pytest.mark.parametrize(
    ("calls", "status"),
    [
        ([(StatusCode.ERROR, "a"), (StatusCode.OK, None)], ("OK", None)),
        ([(StatusCode.OK, None), (StatusCode.ERROR, "a")], ("OK", None)),
        ([(StatusCode.ERROR, "a"), (StatusCode.UNSET, None)], ("ERROR", "a")),
        ([(Status(StatusCode.ERROR, "in it"), None)], ("ERROR", "in it")),
        ([(StatusCode.ERROR, "a"), (StatusCode.ERROR, "b")], ("ERROR", "b")),
        ([(StatusCode.OK, "OK has no description")], ("OK", None)),
    ],
)
def test_the_status_follows_the_apis_order(
    server: ServerSpan, calls: list[tuple[Any, str | None]], status: tuple[str, str | None]
) -> None:
    """OK is final, UNSET replaces nothing, and only an error has a description."""
    for code, description in calls:
        server.set_status(code, description)
    facts = server.facts()
    assert facts is not None
    assert facts.status == status


def test_nothing_is_kept_after_the_end(server: ServerSpan) -> None:
    """What a background task does to the span of a finished request is not part of it."""
    server.set_attribute("before", 1)
    server.closed = True
    server.set_attribute("after", 1)
    server.set_attributes({"after": 1})
    server.add_event("after")
    server.add_link(SpanContext(1, 2, is_remote=True))
    server.update_name("after")
    server.set_status(StatusCode.ERROR)
    server.record_exception(ValueError("after"))
    annotate(after=1)
    facts = server.facts()
    assert facts is not None
    assert facts == (None, {"before": 1}, (), (), None)
    assert server.tags is None
    assert not server.is_recording()


def test_the_app_cannot_end_the_server_span(server: ServerSpan) -> None:
    """It ends with the answer."""
    with trace.use_span(server, end_on_exit=True):
        pass
    server.end()
    assert server.is_recording()


def test_an_unsampled_request_has_a_span_that_does_not_record(sink: Sink) -> None:
    """Its context goes on; its tags are kept, because the row does not hang on sampling."""
    span = ServerSpan(sink, None, _TRACEPARENT[:-1] + b"0", 5 << 64, PureSampler(ratio=1, parent_based=True))
    token = otel_context.attach(context_with(span, {}))
    try:
        assert not span.is_recording()
        assert span.get_span_context().trace_flags == 0
        annotate(arm=2)
        with start_span("child") as child:
            assert not child.is_recording()
    finally:
        otel_context.detach(token)
    assert span.tags == {"arm": "2"}
    assert sink.spans == []


def test_the_context_keeps_what_it_was_built_on(sink: Sink) -> None:
    """And the base is not changed."""
    base = otel_context.Context({"a": 1})
    span = ServerSpan(sink, TraceIds(1, 2, 0, 1, ""))
    context = context_with(span, base)
    assert dict(base) == {"a": 1}
    assert context["a"] == 1
    assert context.get(CURRENT_SPAN_KEY) is span
    assert context_with(span, base, current=False).get(CURRENT_SPAN_KEY) is None
    with pytest.raises(ValueError):
        context["b"] = 1


def test_the_trace_state_of_the_caller_is_in_the_context(sink: Sink) -> None:
    """So that the app's own clients pass it on."""
    span = ServerSpan(sink, TraceIds(1, 2, 0, 1, "a=1,b=2"))
    assert span.get_span_context().trace_state.to_header() == f"infertap={span.get_span_context().span_id:016x},a=1,b=2"


def test_annotate_keeps_text_and_the_last_value(server: ServerSpan) -> None:
    """From anywhere in the request, also under another current span."""
    annotate(user="ann", arm=1)
    with trace.use_span(NonRecordingSpan(SpanContext(1, 2, is_remote=False))):
        annotate(arm=2.5, flag=True)
    assert server.tags == {"user": "ann", "arm": "2.5", "flag": "True"}


def test_annotate_leaves_none_out(server: ServerSpan) -> None:
    """Nobody means the text `None`; what was said before stays."""
    annotate(user=None, arm="a")
    annotate(arm=None)
    assert server.tags == {"arm": "a"}
    assert server.codes == ()


def test_annotate_outside_a_request_does_nothing() -> None:
    """The same code runs in a notebook."""
    annotate(user="ann")
    assert current_server_span() is None


class _UnprintableError(Exception):
    """Its text cannot be had."""

    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


def test_what_cannot_be_printed_never_raises_into_the_app(server: ServerSpan, sink: Sink) -> None:
    """Tags, inputs and exceptions alike; the app's own exception is the one that passes."""
    annotate(broken=_UnprintableError(), fine=1)
    assert server.tags is not None
    assert server.tags["fine"] == "1"
    with pytest.raises(_UnprintableError), start_span("child"):
        raise _UnprintableError
    with start_span("child") as child:
        child.set_inputs(_UnprintableError())
    server.record_exception(_UnprintableError())
    assert sink.names() == ["child", "child"]


def test_a_child_span_nests_under_the_request(server: ServerSpan, sink: Sink) -> None:
    """And its own children under it; each goes to the sink when it ends."""
    with start_span("outer", attributes={"k": 1}) as outer:
        assert trace.get_current_span() is outer
        assert isinstance(outer, Span)
        with start_span("inner") as inner:
            assert inner.is_recording()
        assert trace.get_current_span() is outer
    assert trace.get_current_span() is server
    assert sink.names() == ["inner", "outer"]
    ids = outer.resolve()
    assert (ids.trace_id, ids.parent_span_id, ids.trace_flags) == (_TRACE_ID, 5, 1)
    assert inner.resolve().parent_span_id == ids.span_id
    assert outer.request_key == (1_000, 5 << 64)
    assert outer.end_ns >= outer.start_ns > 0
    assert outer.touched
    assert outer.attributes == {"k": 1}


def test_inputs_and_outputs_are_json_of_that_moment(server: ServerSpan) -> None:
    """Later changes do not show; what JSON does not know becomes its text."""
    with start_span("child") as child:
        inputs: dict[Any, Any] = {"a": [1, {2: 3}]}
        child.set_inputs(inputs)
        inputs["a"].clear()
        child.set_outputs({"x": object})
    assert child.attributes is not None
    assert child.attributes["input.value"] == '{"a":[1,{"2":3}]}'
    assert child.attributes["input.mime_type"] == child.attributes["output.mime_type"] == "application/json"
    assert child.attributes["output.value"].startswith('{"x":"<class')


def test_inputs_that_are_no_json_are_withheld(server: ServerSpan) -> None:
    """A circle, or a lone surrogate."""
    circle: list[Any] = []
    circle.append(circle)
    for value in (circle, "\ud800"):
        with start_span("child") as child:
            child.set_inputs(value)
        assert child.attributes == {"infertap.withheld.input.value": "not serialisable"}


def test_an_exception_is_recorded_and_passes(server: ServerSpan, sink: Sink) -> None:
    """The span ends as an error."""
    with pytest.raises(ValueError, match="no"), start_span("child"):
        raise ValueError("no")
    facts = sink.spans[0].facts()
    assert facts is not None
    assert facts.status == ("ERROR", "ValueError: no")
    assert facts.events[0][2]["exception.message"] == "no"
    assert trace.get_current_span() is server


def test_a_cancellation_is_no_error(server: ServerSpan, sink: Sink) -> None:
    """`CancelledError` and `GeneratorExit` end a span, and pass."""
    for leave in (asyncio.CancelledError, GeneratorExit, KeyboardInterrupt):
        with pytest.raises(leave), start_span("child"):
            raise leave
    assert [span.touched for span in sink.spans] == [False] * 3


def test_the_decorator_wraps_functions(server: ServerSpan, sink: Sink) -> None:
    """Name, result, arguments and exceptions are the function's own; each call is a span of its own."""

    @start_span("twice")
    def twice(number: int, *, plus: int = 0) -> int:
        """Doc."""
        return number * 2 + plus if number < 2 else twice(1) + plus

    assert twice(2, plus=1) == 3
    assert (twice.__name__, twice.__doc__) == ("twice", "Doc.")
    inner, outer = sink.spans
    assert inner.resolve().parent_span_id == outer.resolve().span_id


def test_the_decorator_wraps_coroutines(server: ServerSpan, sink: Sink) -> None:
    """The span lasts until the coroutine is done, and concurrent calls do not mix."""

    @start_span("wait", attributes={"k": 1})
    async def wait(turn: asyncio.Event) -> Span:
        await turn.wait()
        return trace.get_current_span()

    async def main() -> list[Span]:
        turn = asyncio.Event()
        waiting = asyncio.gather(wait(turn), wait(turn))
        await asyncio.sleep(0)
        assert sink.spans == []
        turn.set()
        return list(await waiting)

    spans = asyncio.run(main())
    assert spans == sink.spans
    assert {span.resolve().parent_span_id for span in sink.spans} == {5}
    assert all(span.attributes == {"k": 1} for span in sink.spans)


def test_spans_in_threads(server: ServerSpan, sink: Sink) -> None:
    """`asyncio.to_thread` carries the request along; a bare thread does not, and then nothing is recorded."""

    def work() -> None:
        with start_span("work"):
            pass

    asyncio.run(asyncio.to_thread(work))
    assert sink.names() == ["work"]
    bare = threading.Thread(target=contextvars.Context().run, args=(work,))
    bare.start()
    bare.join()
    assert sink.names() == ["work"]


def test_outside_a_request_the_block_runs_and_nothing_is_recorded() -> None:
    """The span accepts every call and is invalid."""
    with start_span("alone") as span:
        span.set_inputs({"a": 1})
        span.set_attribute("b", 2)
        assert not span.is_recording()
        assert not span.get_span_context().is_valid
        assert trace.get_current_span() is not span
    assert start_span("alone")(lambda: 5)() == 5


def test_nothing_is_kept_of_a_child_that_has_ended(server: ServerSpan, sink: Sink) -> None:
    """And it is submitted once."""
    with start_span("child") as child:
        child.end(7)
        child.end()
    child.set_inputs(1)
    child.update_name("late")
    child.set_status(StatusCode.ERROR)
    assert (child.name, child.end_ns, child.touched) == ("child", 7, False)
    assert sink.spans == [child]


def test_a_child_says_what_it_holds_in_memory(server: ServerSpan) -> None:
    """Texts are counted, so that spans are bounded by bytes."""
    with start_span("child") as child:
        before = child.held_bytes
        child.set_inputs("x" * 1_000)
    assert child.held_bytes >= before + 1_000


def test_spans_of_the_sdk_nest_on_both_sides(server: ServerSpan, sink: Sink) -> None:
    """An SDK span takes ours for its parent, and ours takes the SDK's."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer("app")
    with start_span("ours") as ours, tracer.start_as_current_span("theirs") as theirs, start_span("innermost") as inner:
        inner.add_link(theirs.get_span_context())
    with tracer.start_as_current_span("direct", links=[Link(server.get_span_context())]):
        pass
    first, second = exporter.get_finished_spans()
    assert isinstance(first, ReadableSpan)
    assert first.parent is not None
    assert second.parent is not None
    assert first.parent.span_id == ours.resolve().span_id
    assert second.parent.span_id == server.resolve().span_id
    assert {first.context.trace_id, second.context.trace_id} == {_TRACE_ID}
    assert inner.resolve().parent_span_id == first.context.span_id
    provider.shutdown()


def test_a_child_of_an_unsampled_trace_is_left_out_where_that_is_found(sink: Sink) -> None:
    """Its ids are derived on the worker, so the event loop does not know yet."""
    span = ServerSpan(sink, None, _TRACEPARENT[:-2] + b"00", 5 << 64, PureSampler(ratio=1, parent_based=True), 1_000)
    token = otel_context.attach(context_with(span, otel_context.get_current()))
    with start_span("child"):
        pass
    assert [child.raw() for child in sink.spans] == [None]
    span.resolve()
    with start_span("known"):
        pass
    otel_context.detach(token)
    assert [child.raw() for child in sink.spans] == [None] * 2


@pytest.mark.parametrize(
    "value",
    [range(10**9), {"a", "b"}, iter("ab"), bytearray(2 << 20), memoryview(bytes(2 << 20)), [0] * 100_000],
    ids=lambda value: type(value).__name__,
)
def test_what_would_hold_up_the_event_loop_is_left_out_and_said(server: ServerSpan, sink: Sink, value: Any) -> None:
    """As attribute of either span, and of an event: the rest stays, what is missing is counted and marked."""
    server.set_attributes({"replaced": 1, "kept": "x"})
    with start_span("child") as child:
        for span in (server, child):
            span.set_attribute("replaced", value)
            span.add_event("event", {"value": value, "kept": 1})
            span.add_link(span.get_span_context(), {"value": value, "kept": 1})
    record = child.raw()
    assert record is not None
    assert record.dropped_attributes_count == server.dropped_attributes == 1
    assert record.attributes == {"infertap.withheld": "span_limit"}
    assert server.facts().attributes == {"kept": "x", "infertap.withheld": "span_limit"}
    for facts in (server.facts(), child.facts()):
        assert [values for _, _, values in facts.events] == [{"kept": 1}]
        assert [link[3] for link in facts.links] == [{"kept": 1}]
    assert server.codes == ("SPAN_OVER_LIMIT",)


class _Proxy:
    """Stands for something that is gone, as a request's proxy does in a background task."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(f"{name}: out of its context")


class _ChangingMap(dict[str, Any]):
    def items(self) -> Any:
        raise RuntimeError("dictionary changed size during iteration")


class _ChangingList(list[Any]):
    def __iter__(self) -> Any:
        raise RuntimeError("no items")


class _LongList(list[Any]):
    def __len__(self) -> int:
        raise RuntimeError("no length")


@pytest.mark.parametrize(
    "value",
    [_Proxy(), {"a": [_Proxy()]}, _ChangingMap(a=1), _ChangingList([1]), _LongList([1])],
    ids=lambda value: type(value).__name__,
)
def test_a_value_that_cannot_be_looked_at_raises_nothing_into_the_app(
    server: ServerSpan, sink: Sink, value: Any
) -> None:
    """It is left out, and said; what stands beside it is kept."""
    annotate(tag=value)
    with start_span("child") as child:
        child.set_inputs(value)
        for span in (server, child):
            span.set_attribute("odd", value)
            span.set_attribute("odd", 1)
            span.set_attribute("other", 2)
            span.add_event("event", {"odd": value, "fine": 1})
            span.add_event("map", value)
            span.set_status(StatusCode.ERROR, value)
    assert server.facts().attributes["other"] == 2
    assert server.facts().events[0][2] == {"fine": 1}
    assert "SPAN_OVER_LIMIT" in server.codes


def test_a_map_of_too_many_attributes_is_cut(server: ServerSpan) -> None:
    """Of an event's attributes some thousand are looked at."""
    server.add_event("event", {str(number): number for number in range(10_000)})
    ((_, _, values),) = server.facts().events
    assert len(values) == 4096
    assert server.codes == ("SPAN_OVER_LIMIT",)


def test_attributes_are_kept_as_they_were_set(server: ServerSpan) -> None:
    """What the app does to a list or a map afterwards does not show, and a replaced value gives its room back."""
    given: dict[str, Any] = {"list": [1], "map": {"a": [2]}}
    server.set_attributes(given)
    held = server.content_bytes
    server.set_attributes({"list": [0] * 1_000, "map": 5})
    server.set_attributes(given)
    assert server.content_bytes == held
    given["list"].append(3)
    given["map"]["a"].append(4)
    assert server.facts().attributes == {"list": [1], "map": {"a": [2]}}


@pytest.mark.parametrize(
    "value", [[0] * 10_000, [["x" * 900_000]], bytes(9_000), set(range(9_000))], ids=lambda value: type(value).__name__
)
def test_a_tag_that_would_print_long_is_not_printed(server: ServerSpan, value: Any) -> None:
    """It would be withheld anyway."""

    class Within(list[Any]):
        def __repr__(self) -> str:
            raise AssertionError("printed")

    annotate(kept=[1, {"a"}], long=Within(value) if isinstance(value, list) else value)
    assert server.tags == {"kept": "[1, {'a'}]"}
    assert server.codes == ("TAGS_OVER_LIMIT",)


def test_inputs_that_would_print_long_are_not_printed(server: ServerSpan) -> None:
    """Objects that JSON does not know are shown as Python shows them, short ones."""
    with start_span("child") as child:
        child.set_inputs({"short": b"ab", "long": bytearray(100_000)})
    assert child.attributes is not None
    assert child.attributes["input.value"] == (
        '{"short":"b\'ab\'","long":"<bytearray that is too large to be printed>"}'
    )
