"""`InferenceMiddleware`: wraps `receive` and `send` of an ASGI app, feeds a `Capture`, submits the finished exchange.

1. Traffic first: a message is passed on whatever happens to the record of it; our own errors are counted, not raised.
2. The instance holds configuration and the pipeline; the state of a request lives in its own `Tap`.
3. Nothing is parsed, hashed, compressed, logged or waited for on the event loop.
"""

import os
import time
from weakref import ref

from opentelemetry import context as otel_context
from opentelemetry.trace import Span, SpanContext

from infertap.asgi_types import ASGIApp, Receive, Scope, Send
from infertap.build import warm_up
from infertap.capture import Capture, snapshot
from infertap.config import Config
from infertap.joining.official import official_server_span
from infertap.lifespan import Lifespan
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

    def __init__(self, app: ASGIApp, *, config: Config | None = None) -> None:
        refuse_wsgi(app)
        self.app = app
        self._config = config
        self._pipeline: Pipeline | None = None
        self._official: ASGIApp | None = None
        self._started = False
        warm_up()
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
        kind = scope["type"]
        if kind == "http":
            pipeline = self._pipeline or self._first_request()
            if pipeline is not None:
                outer = scope.setdefault(SCOPE_KEY, pipeline)
                if pipeline.outer_secret is not None and comes_from_sidecar(scope, pipeline.outer_secret):
                    await self._leave_to_sidecar(pipeline, scope, receive, send)
                    return
                if pipeline.records(scope["path"]) and not _recorded_already(scope, outer, pipeline):
                    if self._official is not None and _may_make_span(pipeline, scope):
                        await self._official(scope, receive, send)
                    else:
                        await self._record(pipeline, scope, receive, send)
                    return
        elif kind == "lifespan":
            await self._lifespan(scope, receive, send)
            return
        await self.app(scope, receive, send)

    def _first_request(self) -> Pipeline | None:
        """A server without lifespan events: start now, without waiting for it. None where nothing is recorded."""
        if not self._started:
            self._started = True
            self._adopt(start_or_share(self._config))
            if self._pipeline is not None:
                self._pipeline.joining.app_started()
        return self._pipeline

    def _adopt(self, recorder: Pipeline | Idle | None) -> None:
        self._started = recorder is not None
        pipeline = self._pipeline = recorder if isinstance(recorder, Pipeline) else None
        self._official = None
        if pipeline is not None and pipeline.settings.server_span == "otel":

            async def record(scope: Scope, receive: Receive, send: Send) -> None:
                await self._record(pipeline, scope, receive, send)

            try:
                self._official = official_server_span(record, pipeline.joining)
            except Exception as error:
                # OpenTelemetry's own settings are wrong: the light span stands in, and traffic passes.
                pipeline.capture_failed(error)

    async def _record(self, pipeline: Pipeline, scope: Scope, receive: Receive, send: Send) -> None:
        started_at_ns, started_ns = _wall_ns(), _now_ns()
        tap = token = joined = capture = None
        joining = pipeline.joining
        try:
            frozen = snapshot(scope)
            bits = random_bits(256)
            span, context, characters = _server_span(pipeline, frozen.headers, started_at_ns, bits, scope)
            started = (started_at_ns, started_ns)
            capture = Capture(frozen, pipeline.limits, pipeline.budget, span, started, bits, characters)
            make = Tap if pipeline.request_id_header is None else TapWithId
            tap = make(pipeline, capture, scope, receive, send)
            if joining.active:
                # First: where MLflow shares OpenTelemetry's context, it replaces it, and ours must be on top.
                joined = joining.enter(span, scope)
            token = otel_context.attach(context)
            pipeline.began()
        except Exception as error:
            if capture is not None:
                capture.abandon()
            pipeline.capture_failed(error, started_at_ns)
            tap = None
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
                otel_context.detach(token)
            if joined is not None:
                joined.leave()

    async def _leave_to_sidecar(self, pipeline: Pipeline, scope: Scope, receive: Receive, send: Send) -> None:
        """The sidecar in front writes row and server span; here, children only find their parent."""
        token = joined = None
        inner = scope
        try:
            base = otel_context.get_current()
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
            token = otel_context.attach(context)
        except Exception as error:
            pipeline.capture_failed(error)
        try:
            await self.app(inner, receive, send)
        finally:
            if token is not None:
                otel_context.detach(token)
            if joined is not None:
                joined.leave()

    async def _lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        await Lifespan(self.app, self._config, self._adopt).run(scope, receive, send)


def _may_make_span(pipeline: Pipeline, scope: Scope) -> bool:
    """Whether the official middleware is to make one: nobody outside of us has, and none is unwanted."""
    if _outer_span(otel_context.get_current(), scope) is not None:
        return False
    return pipeline.settings.span_excluded is None or not pipeline.span_excluded(scope)


def _recorded_already(scope: Scope, outer: Pipeline, pipeline: Pipeline) -> bool:
    """Whether an outer middleware writes this request's row to the same place: one request is one row."""
    if SPAN_KEY not in scope:
        return False
    return outer is pipeline or outer.choice.folder == pipeline.choice.folder


def _server_span(
    pipeline: Pipeline, headers: Headers, started_at_ns: int, bits: int, scope: Scope
) -> tuple[ServerSpan, otel_context.Context, int]:
    """The request's span, and its context; a valid span that is current already stays current. And the characters of
    the headers."""
    base = otel_context.get_current()
    outer = _outer_span(base, scope) if base or SPAN_KEY in scope else None
    if outer is not None:
        span = ServerSpan(pipeline, _joined(outer, bits), None, bits, None, started_at_ns)
        scope.setdefault(SPAN_KEY, span)
        return span, context_with(span, base, current=False), header_characters(headers)
    if pipeline.settings.span_excluded is not None and pipeline.span_excluded(scope):
        # Resolved here, without a sampler: the worker would sample it after all.
        unsampled = derive_ids(_header(headers, b"traceparent"), bits, None)
        span = ServerSpan(pipeline, unsampled, None, bits, None, started_at_ns)
        span.excluded = True
        scope[SPAN_KEY] = span
        return span, context_with(span, base, current=False), header_characters(headers)
    traceparent, ids, context, characters = pipeline.trace.arrive(headers, bits)
    span = ServerSpan(pipeline, ids, traceparent, bits, pipeline.trace.pure, started_at_ns)
    scope[SPAN_KEY] = span
    return span, context_with(span, base if context is None else context), characters


def _outer_span(base: otel_context.Context, scope: Scope) -> Span | None:
    """The span of this process that is current already. A remote one is only what the caller's headers say."""
    outer: Span | None = base.get(CURRENT_SPAN_KEY) or scope.get(SPAN_KEY)  # type: ignore[assignment]
    if outer is None:
        return None
    current = outer.get_span_context()
    return outer if current.is_valid and not current.is_remote else None


def _joined(outer: Span, bits: int) -> TraceIds:
    current = outer.get_span_context()
    parent = getattr(outer, "parent", None)
    state = current.trace_state.to_header() if current.trace_state else ""
    parent_id = parent.span_id if isinstance(parent, SpanContext) else 0
    own = (bits >> 64) & _MASK_64 or 1
    return TraceIds(current.trace_id, current.span_id, parent_id, int(current.trace_flags), state, True, own)


def _header(headers: Headers, wanted: bytes) -> bytes | None:
    return next((value for name, value in headers if name == wanted), None)
