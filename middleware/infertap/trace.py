"""The light server span of a request, and the context that makes it the parent of the app's spans.

1. Everything expensive happens behind the spool; here are ids, flags and references only.
2. The span object and the capture are two objects: an app that keeps the span must not keep the bodies alive.
"""

import time
from collections.abc import Mapping
from contextvars import ContextVar, Token
from itertools import islice
from typing import Any, Protocol, cast

from opentelemetry import context as otel_context
from opentelemetry.trace import (
    INVALID_SPAN,
    Span,
    SpanContext,
    Status,
    StatusCode,
    TraceFlags,
    TraceState,
    set_span_in_context,
)
from opentelemetry.util.types import AttributeValue

from infertap.otel_current import current_context
from infertap.record import FIELD_CHARACTERS_MAX, TAGS_MAX, ErrorCode, PendingSpan, SpanFacts, TraceIds
from infertap.sizes import ENTRY_BYTES, ITEMS_MAX, TooLargeError, owned, prints_long, value_bytes
from infertap.stacks import Stack
from infertap.texts import text_of
from infertap.trace_context import STATE_KEY, PureSampler, derive_ids, marked_state

CONTENT_BYTES_MAX = 8 << 20
"""What an app may set on one span: attributes, events and links together. What does not fit is counted and marked."""
WITHHELD_KEY, WITHHELD_BY_SIZE = "infertap.withheld", "span_limit"


class SpanSink(Protocol):
    """Takes finished child spans; never blocks, never raises."""

    def submit_span(self, span: PendingSpan) -> bool:
        """Queue a finished span for the worker; false where there is no room for it."""


class ServerSpan(Span):
    """The light server span: satisfies OpenTelemetry's API, costs a few hundred nanoseconds, keeps no body alive."""

    # What each request needs; what is rarely set is found on the class, at ten times the cost.
    __slots__ = (
        "_sampler", "_traceparent", "bits", "closed", "content_bytes", "ids", "sink", "started_at_ns", "tags",
        "touched",
    )  # fmt: skip

    answered = False
    """Whether the answer is complete, though the record may wait for the app's return."""
    excluded = False
    """Whether this request is to have a row and no span."""
    codes: tuple[str, ...] = ()
    """What could not be kept of what the app said."""
    dropped_attributes = dropped_events = dropped_links = 0
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
        self.ids: TraceIds | None = ids
        self.closed = self.touched = False
        self.content_bytes = 0
        """What the app's attributes, events, links and tags hold in memory."""
        self.tags: dict[str, str] | None = None
        self.started_at_ns = started_at_ns
        self.bits = bits
        self._traceparent = traceparent
        self._sampler = sampler

    @property
    def is_over(self) -> bool:
        """Whether the request was answered."""
        return self.closed or self.answered

    @property
    def request_key(self) -> tuple[int, int] | None:
        """What names the request; None where its row is written elsewhere."""
        return self.started_at_ns, self.bits

    def resolve(self) -> TraceIds:
        """The ids, derived at the first call."""
        ids = self.ids
        if ids is None:
            ids = self.ids = derive_ids(self._traceparent, self.bits, self._sampler)
        return ids

    def get_span_context(self) -> SpanContext:
        context = self._context
        if context is None:
            ids = self.resolve()
            if ids.trace_state:
                state = TraceState.from_header([marked_state(ids.trace_state, ids.span_id)])
            else:
                state = TraceState([(STATE_KEY, f"{ids.span_id:016x}")])
            context = self._context = SpanContext(ids.trace_id, ids.span_id, False, TraceFlags(ids.trace_flags), state)
        return context

    def is_recording(self) -> bool:
        return not self.closed and bool(self.resolve().trace_flags & 1)

    def set_attribute(self, key: str, value: AttributeValue) -> None:
        if not isinstance(key, str):
            # As OpenTelemetry's SDK: the app may say it, and it is not kept.
            self.dropped_attributes += 1  # type: ignore[unreachable]
        elif not self.closed:
            self.touched = True
            if self.attributes is None:
                self.attributes = {}
            room = ENTRY_BYTES + len(key)
            try:
                if key in self.attributes:
                    self.content_bytes -= room + owned(self.attributes.pop(key))[1]
                kept, size = owned(value)
            except TooLargeError:
                self.left_out(ErrorCode.SPAN_OVER_LIMIT)
                self.dropped_attributes += 1
                return
            if self._fits(room + size):
                self.attributes[key] = kept
            else:
                self.dropped_attributes += 1

    def _owned_map(self, attributes: Mapping[str, AttributeValue] | None) -> tuple[dict[str, Any], int]:
        """A copy of what fits, and the bytes that it holds."""
        kept: dict[str, Any] = {}
        size = 0
        if attributes is None:
            return kept, size
        try:
            count, items = len(attributes), tuple(islice(attributes.items(), ITEMS_MAX))
        except Exception:
            # The app's own mapping may raise whatever it likes; the app must not hear of it from here.
            self.left_out(ErrorCode.SPAN_OVER_LIMIT)
            return kept, size
        for key, value in items:
            try:
                kept[key], held = owned(value)
            except TooLargeError:
                self.left_out(ErrorCode.SPAN_OVER_LIMIT)
            else:
                size += ENTRY_BYTES + value_bytes(key) + held
        if count > ITEMS_MAX:
            self.left_out(ErrorCode.SPAN_OVER_LIMIT)
        return kept, size

    def _fits(self, size: int) -> bool:
        """Whether so many bytes more may be kept; they count as kept then."""
        size += self.content_bytes
        if size <= CONTENT_BYTES_MAX:
            self.content_bytes = size
            return True
        self.left_out(ErrorCode.SPAN_OVER_LIMIT)
        return False

    def left_out(self, code: ErrorCode) -> None:
        """Something that the app said is not kept."""
        if code.value not in self.codes:
            self.codes += (code.value,)
            # The codes are looked for only where something was said.
            self.content_bytes += ENTRY_BYTES

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
            values, size = self._owned_map(attributes)
            event = (text_of(name), timestamp or time.time_ns(), values)
            if self._fits(ENTRY_BYTES + value_bytes(event[0]) + size):
                self._events.append(event)
            else:
                self.dropped_events += 1

    def add_link(self, context: SpanContext, attributes: Mapping[str, AttributeValue] | None = None) -> None:
        if not self.closed:
            self.touched = True
            if self._links is None:
                self._links = []
            values, size = self._owned_map(attributes)
            if self._fits(2 * ENTRY_BYTES + size):
                self._links.append((context.trace_id, context.span_id, int(context.trace_flags), values))
            else:
                self.dropped_links += 1

    def update_name(self, name: str) -> None:
        if not self.closed:
            self.touched = True
            self._name = text_of(name)

    def set_status(self, status: Status | StatusCode, description: str | None = None) -> None:
        if self.closed:
            return
        if isinstance(status, Status):
            code, description = status.status_code, status.description
        else:
            code = status
        if not isinstance(code, StatusCode):
            return  # type: ignore[unreachable]
        # The API's order: OK is final, and UNSET never replaces anything.
        if code is StatusCode.UNSET or (self._status is not None and self._status[0] == "OK"):
            return
        self.touched = True
        if code is not StatusCode.ERROR or (description is not None and not self._fits(value_bytes(description))):
            description = None
        self._status = (code.name, description)

    def record_exception(
        self,
        exception: BaseException,
        attributes: Mapping[str, AttributeValue] | None = None,
        timestamp: int | None = None,
        escaped: bool = False,  # noqa: ARG002 - part of the API
    ) -> None:
        # OpenTelemetry's attributes; the stack becomes text where the record is made.
        said: dict[str, Any] = {
            "exception.type": type(exception).__qualname__,
            "exception.message": text_of(exception),
            "exception.stacktrace": Stack(exception),
        }
        self.add_event("exception", {**said, **(attributes or {})}, timestamp)

    def end(self, end_time: int | None = None) -> None:
        """Does nothing: the server span ends with the answer, not when the app says so."""

    def facts(self) -> SpanFacts:
        """What the app set; nothing unless the span is `touched`."""
        attributes = self.attributes or {}
        if ErrorCode.SPAN_OVER_LIMIT.value in self.codes:
            attributes = {**attributes, WITHHELD_KEY: WITHHELD_BY_SIZE}
        return SpanFacts(
            self._name,
            attributes,
            tuple(self._events or ()),
            tuple(self._links or ()),
            self._status,
        )


class OuterSpan(ServerSpan):
    """Stands for the server span that a sidecar in front makes: a parent for children, and nothing that is kept."""

    def __init__(self, sink: SpanSink, ids: TraceIds) -> None:
        super().__init__(sink, ids)
        self.closed = True

    @property
    def request_key(self) -> None:
        """The row is the sidecar's, and its id is not known here."""


(CURRENT_SPAN_KEY,) = set_span_in_context(INVALID_SPAN, otel_context.Context())
"""Under it OpenTelemetry itself keeps the span that is current; its name is not public, and new in each process."""
SERVER_SPAN_KEY = otel_context.create_key("infertap-server-span")
"""Under it a request's server span stands in the request's context, whatever span is current there."""
bound_request: ContextVar["ServerSpan | None"] = ContextVar("infertap_request_span", default=None)
"""The same again, set where others make spans, too: FastAPI, Starlette and MLflow put contexts of their own in the
place of the one that they found."""


def context_with(span: ServerSpan, base: Mapping[str, object], *, current: bool = True) -> otel_context.Context:
    """The context of a request: `span` is its server span and, unless another one stays so, the current span.

    Args:
        base: The context to build on.
        current: False where a span that we did not make is current.
    """
    if current:
        keys = {SERVER_SPAN_KEY: span, CURRENT_SPAN_KEY: span}
        return otel_context.Context({**base, **keys} if base else keys)
    return otel_context.Context({**base, SERVER_SPAN_KEY: span})


def bind_request(span: ServerSpan) -> "Token[ServerSpan | None]":
    """Make `span` the request's also for code that replaces OpenTelemetry's context; undone by `unbind_request`."""
    return bound_request.set(span)


def unbind_request(token: "Token[ServerSpan | None]") -> None:
    """Undo `bind_request`."""
    bound_request.reset(token)


def current_server_span(context: Mapping[str, object] | None = None) -> ServerSpan | None:
    """The server span of the request that this context belongs to, also where another span is current."""
    found = (current_context() if context is None else context).get(SERVER_SPAN_KEY)
    return cast("ServerSpan | None", found) or bound_request.get()


def annotate(**tags: object) -> None:
    """Put the app's own facts on the current request: column `tags` of its row, attributes of its server span.

    Args:
        tags: name to value; values are stored as text (`str(value)`). A later value replaces an earlier one; None is
            left out, and changes nothing.

    Outside a recorded request nothing happens. Values are redacted like any other text. A tag of over 8,192 characters,
    or beyond the 128th, is withheld, and the row's `logging_error_codes` say so.
    """
    span = current_server_span()
    if span is None or span.closed:
        return
    if span.tags is None:
        span.tags = {}
    for name, value in tags.items():
        if value is None:
            continue
        text = None if prints_long(value, FIELD_CHARACTERS_MAX) else text_of(value)
        replaced = span.tags.pop(name, None)
        if replaced is not None:
            span.content_bytes -= _tag_bytes(name, replaced)
        if text is not None and len(name) + len(text) <= FIELD_CHARACTERS_MAX and len(span.tags) < TAGS_MAX:
            span.tags[name] = text
            span.content_bytes += _tag_bytes(name, text)
        else:
            span.left_out(ErrorCode.TAGS_OVER_LIMIT)


def _tag_bytes(name: str, text: str) -> int:
    return ENTRY_BYTES + value_bytes(name) + value_bytes(text)
