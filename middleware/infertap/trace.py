"""The spans that an app sees: the light server span of its request, and the child spans that it makes itself.

1. Everything expensive happens behind the spool; here are ids, flags and references only.
2. The span object and the capture are two objects: an app that keeps the span must not keep the bodies alive.
"""

import functools
import inspect
import time
import traceback
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar, Token
from types import TracebackType
from typing import Any, ParamSpec, Protocol, TypeVar, cast

import orjson
from opentelemetry import context as otel_context
from opentelemetry.trace import (
    Span,
    SpanContext,
    Status,
    StatusCode,
    TraceFlags,
    TraceState,
)
from opentelemetry.trace.propagation import _SPAN_KEY
from opentelemetry.util.types import AttributeValue

from infertap.record import PendingSpan, SpanFacts, SpanRecord, TraceIds, request_id
from infertap.trace_context import PureSampler, derive_ids, marked_state, new_span_id

P = ParamSpec("P")
R = TypeVar("R")

_INPUT_KEYS = ("input.value", "input.mime_type")
_SPAN_BYTES = 1 << 10
"""What a child span without its text attributes is taken to hold in memory."""
_OUTPUT_KEYS = ("output.value", "output.mime_type")


class SpanSink(Protocol):
    """Takes finished child spans; never blocks, never raises."""

    def submit_span(self, span: PendingSpan) -> bool:
        """Queue a finished span for the worker; false where there is no room for it."""


class ServerSpan(Span):
    """The light server span: satisfies OpenTelemetry's API, costs a few hundred nanoseconds, keeps no body alive."""

    # Defaults live on the class: most requests never touch their span.
    closed = touched = False
    excluded = False
    """Whether this request is to have a row and no span."""
    tags: dict[str, str] | None = None
    attributes: dict[str, Any] | None = None
    _context: SpanContext | None = None
    _events: list[tuple[str, int, dict[str, Any]]] | None = None
    _links: list[tuple[int, int, int, dict[str, Any]]] | None = None
    _name: str | None = None
    _status: tuple[str, str | None] | None = None

    def __init__(
        self,
        sink: SpanSink,
        ids: TraceIds | None,
        traceparent: bytes | None = None,
        bits: int = 0,
        sampler: PureSampler | None = None,
        started_at_ns: int = 0,
    ) -> None:
        """Either `ids`, or what `derive_ids` makes them from. `started_at_ns` and `bits` also name the request."""
        self.sink = sink
        self.ids = ids
        self.request_key: tuple[int, int] | None = (started_at_ns, bits)
        self._origin = (traceparent, bits, sampler)

    def resolve(self) -> TraceIds:
        """The ids, derived at the first call."""
        ids = self.ids
        if ids is None:
            ids = self.ids = derive_ids(*self._origin)
        return ids

    def get_span_context(self) -> SpanContext:
        context = self._context
        if context is None:
            ids = self.resolve()
            state = TraceState.from_header([marked_state(ids.trace_state, ids.span_id)])
            context = self._context = SpanContext(ids.trace_id, ids.span_id, False, TraceFlags(ids.trace_flags), state)
        return context

    def is_recording(self) -> bool:
        return not self.closed and bool(self.resolve().trace_flags & 1)

    def set_attribute(self, key: str, value: AttributeValue) -> None:
        if not self.closed:
            self.touched = True
            if self.attributes is None:
                self.attributes = {}
            self.attributes[key] = value

    def set_attributes(self, attributes: Mapping[str, AttributeValue]) -> None:
        for key, value in attributes.items():
            self.set_attribute(key, value)

    def add_event(
        self, name: str, attributes: Mapping[str, AttributeValue] | None = None, timestamp: int | None = None
    ) -> None:
        if not self.closed:
            self.touched = True
            if self._events is None:
                self._events = []
            self._events.append((name, timestamp or time.time_ns(), dict(attributes or {})))

    def add_link(self, context: SpanContext, attributes: Mapping[str, AttributeValue] | None = None) -> None:
        if not self.closed:
            self.touched = True
            if self._links is None:
                self._links = []
            self._links.append((context.trace_id, context.span_id, int(context.trace_flags), dict(attributes or {})))

    def update_name(self, name: str) -> None:
        if not self.closed:
            self.touched = True
            self._name = name

    def set_status(self, status: Status | StatusCode, description: str | None = None) -> None:
        if self.closed:
            return
        if isinstance(status, Status):
            code, description = status.status_code, status.description
        else:
            code = status
        # The API's order: OK is final, and UNSET never replaces anything.
        if code is StatusCode.UNSET or (self._status is not None and self._status[0] == "OK"):
            return
        self.touched = True
        self._status = (code.name, description if code is StatusCode.ERROR else None)

    def record_exception(
        self,
        exception: BaseException,
        attributes: Mapping[str, AttributeValue] | None = None,
        timestamp: int | None = None,
        escaped: bool = False,  # noqa: ARG002 - part of the API
    ) -> None:
        self.add_event("exception", {**exception_attributes(exception), **(attributes or {})}, timestamp)

    def end(self, end_time: int | None = None) -> None:
        """Does nothing: the server span ends with the answer, not when the app says so."""

    def facts(self) -> SpanFacts | None:
        """What the app set, None where it set nothing."""
        if not self.touched:
            return None
        return SpanFacts(
            self._name,
            self.attributes or {},
            tuple(self._events or ()),
            tuple(self._links or ()),
            self._status,
        )


class OuterSpan(ServerSpan):
    """Stands for the server span that a sidecar in front makes: a parent for children, and nothing that is kept."""

    closed = True

    def __init__(self, sink: SpanSink, ids: TraceIds) -> None:
        super().__init__(sink, ids)
        # The row is the sidecar's, and its id is not known here.
        self.request_key = None


_SERVER_SPAN = otel_context.create_key("infertap-server-span")
_request_span: ContextVar["ServerSpan | None"] = ContextVar("infertap_request_span", default=None)
"""The same again, set where others make spans, too: FastAPI, Starlette and MLflow put contexts of their own in the
place of the one that they found."""


def context_with(span: ServerSpan, base: Mapping[str, object], *, current: bool = True) -> otel_context.Context:
    """The context of a request: `span` is its server span and, unless another one stays so, the current span.

    Args:
        base: The context to build on.
        current: False where a span that we did not make is current.
    """
    context = otel_context.Context(base)
    # A Context is a dict that refuses `[]=`; nobody has seen this one yet, so one copy of `base` is enough.
    dict.__setitem__(context, _SERVER_SPAN, span)
    if current:
        dict.__setitem__(context, _SPAN_KEY, span)
    return context


def span_in(context: Mapping[str, object]) -> Span | None:
    """The span that is current in `context`."""
    return context.get(_SPAN_KEY)  # type: ignore[return-value]


def bind_request(span: ServerSpan) -> "Token[ServerSpan | None]":
    """Make `span` the request's also for code that replaces OpenTelemetry's context; undone by `unbind_request`."""
    return _request_span.set(span)


def unbind_request(token: "Token[ServerSpan | None]") -> None:
    """Undo `bind_request`."""
    _request_span.reset(token)


def current_server_span(context: Mapping[str, object] | None = None) -> ServerSpan | None:
    """The server span of the request that this context belongs to, also where another span is current."""
    found = (otel_context.get_current() if context is None else context).get(_SERVER_SPAN)
    return cast("ServerSpan | None", found) or _request_span.get()


def annotate(**tags: object) -> None:
    """Put the app's own facts on the current request: column `tags` of its row, attributes of its server span.

    Args:
        tags: name to value; values are stored as text (`str(value)`). A later value replaces an earlier one.

    Outside a recorded request nothing happens. Values are redacted like any other text.
    """
    span = current_server_span()
    if span is None or span.closed:
        return
    if span.tags is None:
        span.tags = {}
    span.tags.update({name: text_of(value) for name, value in tags.items()})


class ChildSpan(ServerSpan):
    """A span of the app made by `start_span`; becomes a row of `spans`, or an OTLP span, when it ends."""

    def __init__(self, name: str, sink: SpanSink, ids: TraceIds, request_key: tuple[int, int] | None) -> None:
        # Not the parent's constructor: a child always has its ids.
        self.sink = sink
        self.ids = ids
        self.request_key = request_key
        self.name = name
        self.held_bytes = _SPAN_BYTES
        self.start_ns = time.time_ns()
        self.end_ns = 0

    def update_name(self, name: str) -> None:
        if not self.closed:
            self.name = name

    def set_attribute(self, key: str, value: AttributeValue) -> None:
        if isinstance(value, str):
            self.held_bytes += len(value)
        super().set_attribute(key, value)

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
        self.end_ns = end_time or time.time_ns()
        self.closed = True
        if self.resolve().trace_flags & 1:
            self.sink.submit_span(self)

    def raw(self) -> SpanRecord:
        """The finished span, not redacted; for the worker."""
        ids = self.resolve()
        facts = self.facts() or SpanFacts(None, {}, (), (), None)
        return SpanRecord(
            trace_id=f"{ids.trace_id:032x}",
            span_id=f"{ids.span_id:016x}",
            parent_span_id=f"{ids.parent_span_id:016x}" if ids.parent_span_id else None,
            name=self.name,
            kind="INTERNAL",
            start_ns=self.start_ns,
            end_ns=self.end_ns,
            trace_state=ids.trace_state,
            trace_flags=ids.trace_flags,
            attributes=facts.attributes,
            events=[list(event) for event in facts.events],
            links=[
                [f"{trace_id:032x}", f"{span_id:016x}", flags, values]
                for trace_id, span_id, flags, values in facts.links
            ],
            status=list(facts.status) if facts.status else None,
            scope_name="infertap",
            request_id=request_id(*self.request_key) if self.request_key is not None else None,
        )


def text_of(value: object) -> str:
    """`str(value)`; a placeholder where an object of the app cannot be printed."""
    try:
        return str(value)
    except Exception:
        return f"<{type(value).__qualname__} that cannot be printed>"


def _repr_of(value: object) -> str:
    try:
        return repr(value)
    except Exception:
        return text_of(value)


def exception_attributes(error: BaseException) -> dict[str, str]:
    """OpenTelemetry's attributes of an `exception` event."""
    return {
        "exception.type": type(error).__qualname__,
        "exception.message": text_of(error),
        "exception.stacktrace": "".join(traceback.format_exception(error)),
    }


class _Discard:
    """The sink of spans started outside a recorded request."""

    def submit_span(self, span: PendingSpan) -> bool:  # noqa: ARG002 - part of the interface
        return False


_DISCARD = _Discard()


_NO_IDS = TraceIds(0, 0, 0, 0, "")


def _child_ids(parent: Span) -> TraceIds | None:
    """The ids of a new child of `parent`; None where the parent is no valid span."""
    if isinstance(parent, ServerSpan):
        # One of ours: no need to make a SpanContext of it first.
        ids = parent.resolve()
        trace_id, parent_id, flags, state = ids.trace_id, ids.span_id, ids.trace_flags, ids.trace_state
    else:
        context = parent.get_span_context()
        trace_id, parent_id, flags = context.trace_id, context.span_id, int(context.trace_flags)
        state = context.trace_state.to_header() if context.trace_state else ""
    if trace_id == 0 or parent_id == 0:
        return None
    parts = (trace_id, new_span_id(), parent_id, flags, state, False, 0)
    return tuple.__new__(TraceIds, parts)


class start_span:  # noqa: N801 - reads as the function it is used as
    """A child span around a block or a function.

    As a context manager it yields the span (`set_inputs`, `set_outputs`, `set_attribute`, all of OpenTelemetry's API);
    as a decorator it wraps sync and async functions. The parent is whatever OpenTelemetry span is current, so spans of
    other libraries nest on both sides. Outside a recorded request the block runs and nothing is recorded.
    """

    __slots__ = ("_attributes", "_name", "_span", "_token")

    def __init__(self, name: str, *, attributes: Mapping[str, AttributeValue] | None = None) -> None:
        self._name = name
        self._attributes = attributes
        self._span: ChildSpan | None = None
        self._token: Token[otel_context.Context] | None = None

    def __enter__(self) -> ChildSpan:
        current = otel_context.get_current()
        # What stands under these keys is known; a cast() would be a call on the event loop.
        server: ServerSpan | None = current.get(_SERVER_SPAN) or _request_span.get()  # type: ignore[assignment]
        parent: Span | None = current.get(_SPAN_KEY)  # type: ignore[assignment]
        ids = _child_ids(parent) if parent is not None else None
        if ids is None and server is not None:
            # Somebody put a context without a span in the place of ours.
            ids = _child_ids(server)
        if server is None or ids is None:
            span = ChildSpan(self._name, _DISCARD, _NO_IDS, (0, 0))
        else:
            span = ChildSpan(self._name, server.sink, ids, server.request_key)
            context = otel_context.Context(current)
            dict.__setitem__(context, _SPAN_KEY, span)
            self._token = otel_context.attach(context)
        if self._attributes:
            span.set_attributes(self._attributes)
        self._span = span
        return span

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        span, token = self._span, self._token
        if token is not None:
            otel_context.detach(token)
        if span is not None:
            if isinstance(error, Exception):
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
