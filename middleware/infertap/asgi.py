"""`InferenceMiddleware`: wraps `receive` and `send` of an ASGI app, feeds a `Capture`, submits the finished exchange.

1. Traffic first: a message is passed on whatever happens to the record of it; our own errors are counted, not raised.
2. The instance holds configuration and the pipeline; the state of a request lives in its own `Tap`.
3. Nothing is parsed, hashed, compressed, logged or waited for on the event loop.
"""

import os
import time
from collections.abc import Callable
from contextvars import Token
from weakref import WeakSet, ref

from opentelemetry import context as otel_context
from opentelemetry.trace import Span, SpanContext

from infertap.asgi_types import ASGIApp, Receive, Scope, Send
from infertap.build import warm_up
from infertap.capture import snapshot
from infertap.config import Config
from infertap.joining.joining import Joined
from infertap.joining.official import official_server_span
from infertap.lifespan import Lifespan
from infertap.otel_current import attach, current_context, detach
from infertap.outer import comes_from_sidecar, incoming_context, without_marker
from infertap.pipeline import Idle, Pipeline
from infertap.record import Headers, TraceIds
from infertap.sharing import start_or_share
from infertap.sizes import header_characters
from infertap.tap import Tap, TapWithId
from infertap.trace import CURRENT_SPAN_KEY, OuterSpan, ServerSpan, context_with, current_server_span
from infertap.trace_context import derive_ids, random_bits
from infertap.wsgi import refuse_wsgi

SCOPE_KEY = "infertap"
"""Where the outermost middleware leaves its recorder in the scope, for `metrics_app` and for an inner middleware."""
SPAN_KEY = "infertap.span"
"""Where it leaves its server span, for an inner middleware that runs in another context."""

_OFFICIAL_KEY = "infertap.official"
"""Says that the official middleware has been asked for its span."""

_MASK_64 = (1 << 64) - 1
_wall_ns, _now_ns = time.time_ns, time.perf_counter_ns


class InferenceMiddleware:
    """Records every request that passes to `app`.

    Args:
        app: Any ASGI 3 application.
        config: The settings; without it they come from the environment.

    Raises: TypeError: `app` is a WSGI app.

    Nothing else raises in the constructor: wrong settings answer the lifespan with `lifespan.startup.failed` and all
    problems; on a server without lifespan they are one log line at ERROR, and traffic passes unrecorded.
    """

    _gives_way = False
    """Whether one with other settings within the app records in place of this one."""

    def __init__(self, app: ASGIApp, *, config: Config | None = None) -> None:
        refuse_wsgi(app)
        self.app = app
        self._config = config
        self._pipeline: Pipeline | None = None
        self._official: ASGIApp | None = None
        self._started = False
        warm_up()
        _made.add(self)
        this = ref(self)

        def forget_parent() -> None:
            # A pipeline made before the fork stays the parent's; the child makes its own at its first request.
            middleware = this()
            if middleware is not None:
                if middleware._pipeline is not None:
                    middleware._pipeline.joining.abandon()
                middleware._adopt(None)

        os.register_at_fork(after_in_child=forget_parent)

    @property
    def pipeline(self) -> Pipeline | None:
        """The running pipeline; None before the start, after the stop, and where nothing is recorded."""
        return self._pipeline

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        tap = token = joined = None
        kind = scope["type"]
        if kind == "http":
            pipeline = self._pipeline or self._first_request()
            if pipeline is not None:
                outer = scope.setdefault(SCOPE_KEY, pipeline)
                if pipeline.outer_secret is not None and comes_from_sidecar(scope, pipeline.outer_secret):
                    await self._leave_to_sidecar(pipeline, scope, receive, send)
                    return
                if pipeline.records(scope["path"]) and (SPAN_KEY not in scope or not _same_place(outer, pipeline)):
                    if self._official is not None and _may_make_span(pipeline, scope):
                        scope[_OFFICIAL_KEY] = True
                        await self._official(scope, receive, send)
                        return
                    tap, token, joined = _begin(pipeline, scope, receive, send)
        elif kind == "lifespan":
            await self._lifespan(scope, receive, send)
            return
        try:
            if tap is None:
                await self.app(scope, receive, send)
            else:
                await self.app(scope, tap.receive, tap.send)
                tap.app_returned()
        except BaseException as error:
            if tap is not None:
                tap.app_raised(error)
            raise
        finally:
            if token is not None:
                detach(token)
            if joined is not None:
                joined.leave()

    def _first_request(self) -> Pipeline | None:
        """A server without lifespan events: start now, without waiting for it. None where nothing is recorded."""
        if not self._started:
            self._started = True
            self._adopt(start_or_share(self._config, _letting_go(ref(self))))
            if self._pipeline is not None:
                self._pipeline.joining.app_started()
        return self._pipeline

    def _adopt(self, recorder: Pipeline | Idle | None) -> None:
        self._started = recorder is not None
        pipeline = self._pipeline = recorder if isinstance(recorder, Pipeline) else None
        self._official = None
        if pipeline is not None:
            pipeline.inbox.belongs_to_this_thread()
        if pipeline is not None and pipeline.settings.server_span == "otel":
            try:
                # It calls us again, inside its span.
                self._official = official_server_span(self, pipeline.joining)
            except Exception as error:
                # OpenTelemetry's own settings are wrong: the light span stands in, and traffic passes.
                pipeline.capture_failed(error)

    async def _leave_to_sidecar(self, pipeline: Pipeline, scope: Scope, receive: Receive, send: Send) -> None:
        """The sidecar in front writes row and server span; here, children only find their parent."""
        token = joined = None
        inner = scope
        try:
            base = current_context()
            current = _outer_span(base, scope)
            if current is None:
                context = incoming_context(pipeline, scope["headers"])
            else:
                # A maker outside of us has read the sidecar's context already; its span stays the parent.
                context = context_with(OuterSpan(pipeline, _joined(current, random_bits(256))), base, current=False)
            inner = without_marker(scope)
            outer = current_server_span(context)
            if outer is not None and pipeline.joining.active:
                joined = pipeline.joining.enter(outer, inner)
            token = attach(context)
        except Exception as error:
            pipeline.capture_failed(error)
        try:
            await self.app(inner, receive, send)
        finally:
            if token is not None:
                detach(token)
            if joined is not None:
                joined.leave()

    async def _lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        lifespan = Lifespan(self.app, self._config, self._adopt, gives_way=self._gives_way)
        await lifespan.run(scope, receive, send)


_made: WeakSet[InferenceMiddleware] = WeakSet()


def made_middlewares() -> list[InferenceMiddleware]:
    """Those that live in this process, in no order; a framework makes those of its list only when it starts."""
    return list(_made)


def _begin(
    pipeline: Pipeline, scope: Scope, receive: Receive, send: Send
) -> tuple[Tap | None, Token[otel_context.Context] | None, Joined | None]:
    """A request to be recorded arrived. What watches it, and what is to be undone at its end; never raises."""
    started_at_ns, started_ns = _wall_ns(), _now_ns()
    tap = token = joined = None
    joining = pipeline.joining
    try:
        headers = tuple(scope["headers"])
        bits = random_bits(256)
        base = current_context()
        usual = not base and SPAN_KEY not in scope and pipeline.span_excluded is None
        special = None if usual else _special_span(pipeline, headers, started_at_ns, bits, scope)
        if special is None:
            trace = pipeline.trace
            traceparent, ids, remote, characters = trace.arrive(headers, bits)
            span = ServerSpan(pipeline, ids, traceparent, bits, trace.pure, started_at_ns)
            scope[SPAN_KEY] = span
            context = context_with(span, base if remote is None else remote)
        else:
            span, context = special
            characters = header_characters(headers)
        make = Tap if pipeline.request_id_header is None else TapWithId
        tap = make(snapshot(scope), headers, pipeline.limits, span, started_ns, characters)
        tap.pipeline, tap.scope, tap.server_receive, tap.server_send = pipeline, scope, receive, send
        if joining.active:
            # First: where MLflow shares OpenTelemetry's context, it replaces it, and ours must be on top.
            joined = joining.enter(span, scope)
        token = attach(context)
        pipeline.began()
    except Exception as error:
        if tap is not None:
            tap.abandon()
        pipeline.capture_failed(error, started_at_ns)
        tap = None
    return tap, token, joined


def _letting_go(middleware: "ref[InferenceMiddleware]") -> Callable[[Pipeline], None]:
    """Has a middleware, while there is one and it records there, begin anew with its next request."""

    def let_go(stopping: Pipeline) -> None:
        holder = middleware()
        if holder is not None and holder._pipeline is stopping:
            holder._adopt(None)

    return let_go


def _may_make_span(pipeline: Pipeline, scope: Scope) -> bool:
    """Whether the official middleware is to make one: neither it nor anybody outside has, and none is unwanted."""
    if _OFFICIAL_KEY in scope:
        return False
    if _outer_span(current_context(), scope) is not None:
        return False
    return pipeline.span_excluded is None or not pipeline.span_excluded(scope)


def _same_place(outer: Pipeline, pipeline: Pipeline) -> bool:
    """Whether an outer middleware writes this request's row to the same place: one request is one row."""
    return outer is pipeline or outer.choice.folder == pipeline.choice.folder


def _special_span(
    pipeline: Pipeline, headers: Headers, started_at_ns: int, bits: int, scope: Scope
) -> tuple[ServerSpan, otel_context.Context] | None:
    """The request's span, and its context, where they do not follow from the headers alone; else None."""
    base = current_context()
    outer, around = _outer_span(base, scope), _request_around(base, scope)
    if outer is not None and around is None:
        # Somebody else's span of this very request stays current.
        span = ServerSpan(pipeline, _joined(outer, bits), None, bits, None, started_at_ns)
        scope.setdefault(SPAN_KEY, span)
        return span, context_with(span, base, current=False)
    if pipeline.span_excluded is not None and pipeline.span_excluded(scope):
        # Resolved here, without a sampler: the worker would sample it after all.
        unsampled = derive_ids(_header(headers, b"traceparent"), bits, None)
        span = ServerSpan(pipeline, unsampled, None, bits, None, started_at_ns)
        span.excluded = True
        scope[SPAN_KEY] = span
        if around is not None:
            base = otel_context.Context({key: value for key, value in base.items() if key != CURRENT_SPAN_KEY})
        return span, context_with(span, base, current=False)
    if outer is not None and around is not None and not around.is_over and _header(headers, b"traceparent") is None:
        span = scope[SPAN_KEY] = ServerSpan(pipeline, _nested(outer, bits), None, bits, None, started_at_ns)
        return span, context_with(span, base)
    return None


def _request_around(base: otel_context.Context, scope: Scope) -> ServerSpan | None:
    """The span of another request, in whose context this one arrives.

    It was made in there (an app that calls an app in its own process), or it is the next one on a connection whose
    server begins it where the one before has ended: that one `is_over`.
    """
    span = None if SPAN_KEY in scope else current_server_span(base)
    return None if isinstance(span, OuterSpan) else span


def _outer_span(base: otel_context.Context, scope: Scope) -> Span | None:
    """The span of this process that is current already. A remote one is only what the caller's headers say."""
    outer: Span | None = base.get(CURRENT_SPAN_KEY) or scope.get(SPAN_KEY)  # type: ignore[assignment]
    if outer is None:
        return None
    current = outer.get_span_context()
    return outer if current.is_valid and not current.is_remote else None


def _joined(outer: Span, bits: int) -> TraceIds:
    child = _nested(outer, bits)
    parent = getattr(outer, "parent", None)
    parent_id = parent.span_id if isinstance(parent, SpanContext) else 0
    return child._replace(
        span_id=child.parent_span_id, parent_span_id=parent_id, foreign=True, own_span_id=child.span_id
    )


def _nested(outer: Span, bits: int) -> TraceIds:
    current = outer.get_span_context()
    state = current.trace_state.to_header() if current.trace_state else ""
    own = (bits >> 64) & _MASK_64 or 1
    return TraceIds(current.trace_id, own, current.span_id, int(current.trace_flags), state)


def _header(headers: Headers, wanted: bytes) -> bytes | None:
    return next((value for name, value in headers if name == wanted), None)
