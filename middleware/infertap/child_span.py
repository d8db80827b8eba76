"""`start_span`: the spans that an app makes itself, inside its request's trace.

1. A child costs the event loop two clock readings, one context and one place in the queue. Its ids are derived from
   its parent's where somebody asks, mostly the worker.
2. Content is serialised when it is set: what the app changes later does not show.
"""

import functools
import inspect
import time
from collections.abc import Awaitable, Callable, Mapping
from contextvars import Token
from types import TracebackType
from typing import Any, ParamSpec, TypeVar, cast

import orjson
from opentelemetry import context as otel_context
from opentelemetry.trace import Span, StatusCode
from opentelemetry.util.types import AttributeValue

from infertap.otel_current import attach, current_context, detach
from infertap.record import PendingSpan, SpanRecord, TraceIds, request_id
from infertap.sizes import prints_long, value_bytes
from infertap.texts import text_of
from infertap.trace import CURRENT_SPAN_KEY, SERVER_SPAN_KEY, ServerSpan, bound_request
from infertap.trace_context import marked_state, random_bits

P = ParamSpec("P")
R = TypeVar("R")

_INPUT_KEYS = ("input.value", "input.mime_type")
_OUTPUT_KEYS = ("output.value", "output.mime_type")
_SPAN_BYTES = 1 << 10
"""What a child span holds in memory without what the app sets on it, and with a name of ordinary length."""
_NAME_CHARACTERS_FREE = 256
_REPR_CHARACTERS_MAX = 64 << 10
"""Of an object in inputs and outputs that JSON does not know."""
_NO_IDS = TraceIds(0, 0, 0, 0, "")

_wall_ns = time.time_ns


class ChildSpan(ServerSpan):
    """A span of the app; becomes a row of `spans`, or an OTLP span, when it ends.

    Args:
        server: The request's span.
        parent: Of infertap's making; its ids become this span's trace and parent ids.
    """

    __slots__ = ("_parent", "_server", "_span_id", "end_ns", "held_bytes", "name", "start_ns")

    def __init__(self, name: str, server: ServerSpan, parent: ServerSpan) -> None:
        # Not the parent's constructor: it is for spans that are made from a traceparent.
        self.name = name if name.__class__ is str else text_of(name)
        self.sink = server.sink
        self.ids = None
        self.closed = self.touched = False
        self.content_bytes = self.end_ns = 0
        self.held_bytes = _SPAN_BYTES
        self._server = server
        self._parent = parent
        self._span_id = random_bits(64)
        self.start_ns = _wall_ns()

    @property
    def request_key(self) -> tuple[int, int] | None:
        """The request's."""
        return self._server.request_key

    def resolve(self) -> TraceIds:
        ids = self.ids
        if ids is None:
            parent = self._parent.resolve()
            ids = self.ids = _child_ids(
                parent.trace_id, parent.span_id, parent.trace_flags, parent.trace_state, self._span_id
            )
        return ids

    def update_name(self, name: str) -> None:
        if not self.closed:
            self.name = text_of(name)

    def set_inputs(self, inputs: object) -> None:
        """What went in, as JSON (`input.value`). Serialised now, so that later changes do not show."""
        self._set_json(_INPUT_KEYS, inputs)

    def set_outputs(self, outputs: object) -> None:
        """What came out, as JSON (`output.value`)."""
        self._set_json(_OUTPUT_KEYS, outputs)

    def _set_json(self, keys: tuple[str, str], value: object) -> None:
        try:
            text = orjson.dumps(value, default=_repr_of, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS)
        except (TypeError, ValueError):
            self.set_attribute(f"infertap.withheld.{keys[0]}", "not serialisable")
            return
        self.set_attribute(keys[0], text.decode())
        self.set_attribute(keys[1], "application/json")

    def end(self, end_time: int | None = None) -> None:
        if self.closed:
            return
        self.end_ns = end_time or _wall_ns()
        self.closed = True
        if self.content_bytes or len(self.name) > _NAME_CHARACTERS_FREE:
            # Fixed here: as much is given back as was taken.
            self.held_bytes = _SPAN_BYTES + self.content_bytes + value_bytes(self.name)
        ids = self.ids
        # Where the ids are not known yet, the worker finds out whether the trace is sampled.
        if ids is None or ids.trace_flags & 1:
            self.sink.submit_span(self)

    def raw(self) -> SpanRecord | None:
        """The finished span, not redacted, for the worker; None where its trace is not sampled."""
        ids = self.resolve()
        if not ids.trace_flags & 1:
            return None
        facts = self.facts()
        return SpanRecord(
            trace_id=f"{ids.trace_id:032x}",
            span_id=f"{ids.span_id:016x}",
            parent_span_id=f"{ids.parent_span_id:016x}" if ids.parent_span_id else None,
            name=self.name,
            kind="INTERNAL",
            start_ns=self.start_ns,
            end_ns=self.end_ns,
            # As in its context: wherever it is received, it is no request of its own.
            trace_state=marked_state(ids.trace_state, ids.span_id),
            trace_flags=ids.trace_flags,
            attributes=facts.attributes,
            events=[list(event) for event in facts.events],
            links=[
                [f"{trace_id:032x}", f"{span_id:016x}", flags, values]
                for trace_id, span_id, flags, values in facts.links
            ],
            status=list(facts.status) if facts.status else None,
            dropped_attributes_count=self.dropped_attributes,
            dropped_events_count=self.dropped_events,
            dropped_links_count=self.dropped_links,
            scope_name="infertap",
            request_id=request_id(*self.request_key) if self.request_key is not None else None,
        )


def _child_ids(trace_id: int, parent_id: int, flags: int, state: str, span_id: int) -> TraceIds:
    parts = (trace_id, span_id or 1, parent_id, flags, state, False, 0)
    return tuple.__new__(TraceIds, parts)


def _under_foreign(parent: Span, name: str, server: ServerSpan) -> ChildSpan | None:
    """A child of a span that another library made; None where that one is not valid."""
    context = parent.get_span_context()
    if not context.is_valid:
        return None
    span = ChildSpan(name, server, server)
    state = context.trace_state.to_header() if context.trace_state else ""
    span.ids = _child_ids(context.trace_id, context.span_id, int(context.trace_flags), state, random_bits(64))
    return span


def _repr_of(value: object) -> str:
    if prints_long(value, _REPR_CHARACTERS_MAX):
        return f"<{type(value).__qualname__} that is too large to be printed>"
    try:
        return repr(value)
    except Exception:
        return text_of(value)


class _Discard:
    """The sink of spans started outside a recorded request."""

    def submit_span(self, span: PendingSpan) -> bool:  # noqa: ARG002 - part of the interface
        return False


_NOWHERE = ServerSpan(_Discard(), _NO_IDS)


class start_span:  # noqa: N801 - reads as the function it is used as
    """A child span around a block or a function.

    As a context manager it yields the span (`set_inputs`, `set_outputs`, `set_attribute`, all of OpenTelemetry's API);
    as a decorator it wraps sync and async functions. The parent is whatever OpenTelemetry span is current, so spans of
    other libraries nest on both sides. Outside a recorded request the block runs and nothing is recorded.
    """

    __slots__ = ("_attributes", "_name", "_span", "_token")

    _span: ChildSpan
    _token: Token[otel_context.Context] | None

    def __init__(self, name: str, *, attributes: Mapping[str, AttributeValue] | None = None) -> None:
        self._name = name
        self._attributes = attributes

    def __enter__(self) -> ChildSpan:
        current = current_context()
        token = None
        # What stands under these keys is known; a cast() would be a call on the event loop.
        server: ServerSpan | None = current.get(SERVER_SPAN_KEY) or bound_request.get()  # type: ignore[assignment]
        if server is None:
            span = ChildSpan(self._name, _NOWHERE, _NOWHERE)
        else:
            parent: Span | None = current.get(CURRENT_SPAN_KEY)  # type: ignore[assignment]
            span = ChildSpan(self._name, server, server) if parent is server else _child(self._name, server, parent)
            token = attach(otel_context.Context({**current, CURRENT_SPAN_KEY: span}))
        self._span, self._token = span, token
        if self._attributes is not None:
            span.set_attributes(self._attributes)
        return span

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._token is not None:
            detach(self._token)
        span = self._span
        if error is not None and isinstance(error, Exception):
            span.record_exception(error)
            span.set_status(StatusCode.ERROR, f"{type(error).__name__}: {text_of(error)}")
        span.end()

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        name, attributes = self._name, self._attributes
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def run_async(*args: P.args, **kwargs: P.kwargs) -> Any:
                with start_span(name, attributes=attributes):
                    return await cast("Callable[P, Awaitable[Any]]", function)(*args, **kwargs)

            return cast("Callable[P, R]", run_async)

        @functools.wraps(function)
        def run(*args: P.args, **kwargs: P.kwargs) -> R:
            with start_span(name, attributes=attributes):
                return function(*args, **kwargs)

        return run


def _child(name: str, server: ServerSpan, parent: Span | None) -> ChildSpan:
    """A child of the current span; of the request's where somebody put a context without a span in its place."""
    if parent is None:
        return ChildSpan(name, server, server)
    # An exact class first: isinstance() on an abstract base is ten times as dear.
    if parent.__class__ is ChildSpan or isinstance(parent, ServerSpan):
        return ChildSpan(name, server, parent)
    return _under_foreign(parent, name, server) or ChildSpan(name, server, server)
