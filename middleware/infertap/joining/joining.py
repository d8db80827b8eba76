"""`Joining`: what else makes spans in this process, found and joined, so that a request's trace is whole.

1. Apps without MLflow and without a tracer provider pay one look at `active` a request.
2. `look` runs on the worker; `enter` and what it returns run on the event loop, and never raise.
"""

import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from contextvars import Token
from typing import Any, NamedTuple

from opentelemetry import trace as otel_trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider

from infertap.joining.echo import echo
from infertap.joining.installed import InstalledProvider
from infertap.joining.mlflow import MlflowBridge, loaded_mlflow
from infertap.joining.providers import processors_of
from infertap.joining.request_keys import RequestKeys
from infertap.joining.span_tap import Sink, SpanTap
from infertap.record import InferenceRecord, TraceIds
from infertap.sdk_env import sdk_disabled
from infertap.trace import ServerSpan, bind_request, unbind_request
from infertap.trace_context import trace_headers

_FLUSH_S_MAX = 5.0
"""OpenTelemetry's `force_flush` ignores its own timeout while a Collector is away; nobody waits longer than this."""
_PROVIDERS_OF_MLFLOW_MAX = 4
"""MLflow makes a new provider at every change of its settings; spans of the last few may still be open."""
_TRACE_HEADERS = (b"traceparent", b"tracestate")


_MLFLOW_EXPORTS = (
    "MLflow exports its spans to the OTLP endpoint by itself: infertap neither redacts, spools nor re-sends them; "
    "point it at `infertap collect` to have that (docs/joining.md)"
)


class JoiningSettings(NamedTuple):
    """What joining needs of the configuration."""

    destination: str
    """`table`, `otlp` or `both`."""
    resource: Mapping[str, Any]
    install_provider: bool


class Joining:
    """One per pipeline.

    Args:
        sink: Takes the spans of others.
        warn: Says a line at WARNING.
    """

    def __init__(self, sink: Sink, settings: JoiningSettings, warn: Callable[[str], None]) -> None:
        self.active = False
        self.keys = RequestKeys(sink)
        self._sink = sink
        self._settings = settings
        self._warn = warn
        self._to_say: list[str] = []
        self._lock = threading.RLock()
        self._taps: list[tuple[Any, SpanTap]] = []
        self._global: object = None
        self._bridge: MlflowBridge | None = None
        self._bridge_failed = False
        self._told: set[str] = set()

    def look(self) -> None:
        """Find what the app has imported or set since the last look."""
        while self._to_say:
            # Said here, on the worker: providers are made on the event loop, too.
            self._warn(self._to_say.pop())
        try:
            with self._lock:
                self._look_for_provider()
                self._sit_down_again()
                self._look_for_mlflow()
        except Exception as error:
            self._sink.capture_failed(error)

    def app_started(self) -> None:
        """The app has had its chance to set a tracer provider; offer ours where it did not."""
        try:
            somebody_elses = sdk_disabled(os.environ) or os.environ.get("OTEL_PYTHON_TRACER_PROVIDER")
            if self._settings.install_provider and _global_provider() is None and not somebody_elses:
                otel_trace.set_tracer_provider(InstalledProvider())
        except Exception as error:
            # Limits in OTEL_* that the SDK does not understand: the app starts without our provider.
            self._sink.capture_failed(error)
        self.look()

    def _look_for_provider(self) -> None:
        found = _global_provider()
        if found is None or found is self._global:
            return
        self._global = found
        self.tap(found, orphans=False)

    def _sit_down_again(self) -> None:
        """Phoenix's provider throws out what sits on it when the app adds a processor; Logfire makes a new provider at
        each `configure`."""
        for provider, tap in self._taps:
            if not tap.orphans and not tap.sits_on(provider):
                tap.sit_on(provider)

    def _look_for_mlflow(self) -> None:
        if self._bridge is not None or self._bridge_failed:
            return
        mlflow = loaded_mlflow()
        if mlflow is None:
            return
        try:
            self._bridge = MlflowBridge(
                mlflow,
                on_provider=lambda provider: self.tap(provider, orphans=True),
                on_failure=self._sink.capture_failed,
                stand_in_told=self._mlflow_cannot,
            )
        except (AttributeError, ImportError) as error:
            self._bridge_failed = True
            self._warn(f"spans of this MLflow cannot be joined to the requests: {type(error).__name__}: {error}")
            return
        self.active = True

    def _mlflow_cannot(self, error: Exception) -> None:
        reason = f"{type(error).__name__}: {error}"
        if reason not in self._told:
            self._told.add(reason)
            self._warn(f"MLflow cannot export its spans by itself here ({reason}); infertap records them")

    def tap(self, provider: Any, *, orphans: bool) -> None:
        """Sit on `provider`, unless we do already or it is none that spans come from."""
        if not callable(getattr(provider, "add_span_processor", None)):
            return
        with self._lock:
            if any(known is provider for known, _ in self._taps):
                return
            tap = SpanTap(self._sink, self.keys, self._settings.destination, self._settings.resource, orphans=orphans)
            tap.sit_on(provider)
            self._taps.append((provider, tap))
            if orphans and tap.exported_by_others and _MLFLOW_EXPORTS not in self._told:
                self._told.add(_MLFLOW_EXPORTS)
                self._to_say.append(_MLFLOW_EXPORTS)
            self._forget_replaced(found for found in self._taps if found[1].orphans)
            self.active = True

    def _forget_replaced(self, of_mlflow: Iterable[tuple[Any, SpanTap]]) -> None:
        for provider, tap in list(of_mlflow)[:-_PROVIDERS_OF_MLFLOW_MAX]:
            tap.leave(provider)
            self._taps.remove((provider, tap))

    # The event loop's side.

    def enter(self, span: ServerSpan, scope: MutableMapping[str, Any]) -> "Joined":
        """Make `span` the parent of what the app's other makers of spans begin in this request."""
        joined = Joined(self._sink)
        try:
            if _global_provider() is not self._global:
                self.look()
            joined.bound = bind_request(span)
            if span.excluded:
                return joined
            ids = span.resolve()
            if ids.foreign:
                self.keys.claim(ids.trace_id, ids.span_id, span.request_key)
            elif ids.span_id and self._global is not None:
                scope["headers"] = _continued(scope["headers"], ids)
            bridge = self._bridge
            if bridge is not None:
                joined.leave_mlflow = bridge.enter(ids)
        except Exception as error:
            self._sink.capture_failed(error)
        return joined

    # The worker's side.

    def echo(self, record: InferenceRecord) -> None:
        """Give the request's server span to the app's own provider, whose spans would miss their parent. Never raises.

        Without content, and only where infertap itself writes nothing but tables.
        """
        active = processors_of(self._global) if self._settings.destination == "table" else None
        if active is None:
            return
        others = tuple(
            processor
            for processor in active._span_processors
            # MLflow's would take it for the root of a trace that it knows.
            if not isinstance(processor, SpanTap) and not type(processor).__module__.startswith("mlflow.")
        )
        if others:
            try:
                resource = getattr(self._global, "resource", None) or Resource.get_empty()
                echo(record, others, resource, self._sink.capture_failed)
            except Exception as error:
                self._sink.capture_failed(error)

    # The end.

    def begin_flush(self, deadline_s: float) -> Callable[[], None]:
        """Have the makers that export by themselves do so now: servers that die of SIGTERM run no `atexit`.

        Returns:
            What waits for it, at most until `deadline_s` or 5 s from now, and lets go of everything.
        """
        providers = [provider for provider, _ in self._taps if hasattr(provider, "force_flush")]
        end_s = time.monotonic() + min(deadline_s, _FLUSH_S_MAX)
        threads = [
            threading.Thread(target=_flush, args=(provider,), name="infertap-flush", daemon=True)
            for provider in providers
        ]
        for thread in threads:
            thread.start()

        def finish() -> None:
            for thread in threads:
                thread.join(max(0.0, end_s - time.monotonic()))
            self._close()

        return finish

    def abandon(self) -> None:
        """Take nothing any more, without a lock: in a forked child, where nobody is left who would release it."""
        self.active = False
        if self._bridge is not None:
            self._bridge.close()
        for _, tap in self._taps:
            tap.mute()

    def _close(self) -> None:
        self.active = False
        with self._lock:
            if self._bridge is not None:
                self._bridge.close()
                self._bridge = None
            for provider, tap in self._taps:
                tap.leave(provider)
            self._taps.clear()
            self._global = None


class Joined:
    """What one request has to undo."""

    __slots__ = ("_sink", "bound", "leave_mlflow")

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self.bound: Token[ServerSpan | None] | None = None
        self.leave_mlflow: Callable[[], None] | None = None

    def leave(self) -> None:
        """The request is over. Never raises."""
        try:
            try:
                if self.leave_mlflow is not None:
                    self.leave_mlflow()
            finally:
                if self.bound is not None:
                    unbind_request(self.bound)
        except Exception as error:
            self._sink.capture_failed(error)


def _global_provider() -> Any:
    """The provider that somebody set, None where nobody did. OpenTelemetry's own getter would make one at this."""
    return getattr(otel_trace, "_TRACER_PROVIDER", None)


def _flush(provider: TracerProvider) -> None:
    try:
        provider.force_flush(int(_FLUSH_S_MAX * 1000))
    except Exception:
        # Somebody else's exporter failed at the very end; it has said so in its own log.
        return


def _continued(headers: Any, ids: TraceIds) -> list[tuple[bytes, bytes]]:
    """The headers as the app sees them: FastAPI's and Starlette's own tracing look at these, not at the context, and
    would make the caller's child, or a new trace, of what happens inside our span."""
    kept = [(name, value) for name, value in headers if name not in _TRACE_HEADERS]
    return [*kept, *((name.encode(), value.encode()) for name, value in trace_headers(ids).items())]
