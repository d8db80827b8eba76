"""MLflow inside the app: its spans become children of the request's, and reach the destination of the request.

1. MLflow is never imported by us: the app did that, or there is no bridge. Nor is its provider made before MLflow
   itself makes it, at its first span: in an app that only loads models, that would open a tracking store for nothing.
2. Whatever fails here costs MLflow's spans their place in the trace, never the request anything.
3. MLflow keeps one entry per trace id. Requests that run at once under one trace id share it: it goes with the last.
"""

import sys
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from importlib import import_module
from types import ModuleType
from typing import Any

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from infertap.record import TraceIds
from infertap.trace_context import marked_state


def loaded_mlflow() -> ModuleType | None:
    """The app's `mlflow` or `mlflow-tracing`, once it has been imported completely."""
    for name in ("mlflow", "mlflow.tracing", "mlflow.tracing.provider"):
        module = sys.modules.get(name)
        if module is None or getattr(getattr(module, "__spec__", None), "_initializing", False):
            return None
    return sys.modules["mlflow"]


class MlflowBridge:
    """Both directions of the joint with one process's MLflow.

    Args:
        mlflow: The imported module.
        on_provider: Takes MLflow's tracer provider before it makes a span, and each one that replaces it.
        on_failure: Takes what went wrong here or in MLflow's own start.
        stand_in_told: Called once MLflow could not make a provider by itself, with the reason.

    Raises:
        AttributeError, ImportError: this version of MLflow has no such way in.
    """

    def __init__(
        self,
        mlflow: ModuleType,
        *,
        on_provider: Callable[[Any], None],
        on_failure: Callable[[Exception], None],
        stand_in_told: Callable[[Exception], None],
    ) -> None:
        self._enter = _without_usage_report(mlflow.tracing.set_tracing_context_from_http_request_headers)
        self._manager: Any = import_module("mlflow.tracing.trace_manager").InMemoryTraceManager
        utils = import_module("mlflow.tracing.utils")
        self._mlflow_id: Callable[[int], str] = utils.generate_mlflow_trace_id_from_otel_trace_id
        self._wrapper: Any = import_module("mlflow.tracing.provider").provider
        self._on_provider = on_provider
        self._on_failure = on_failure
        self._stand_in_told = stand_in_told
        self._known: object = None
        self._running: Counter[int] = Counter()
        self._make_tracer: Callable[[str], Any] = self._wrapper.get_or_init_tracer
        self._wrapper.get_or_init_tracer = self._tracer

    @property
    def provider(self) -> Any:
        """MLflow's tracer provider as it is now."""
        return self._wrapper.get()

    def close(self) -> None:
        """Give MLflow back as it was."""
        if self._wrapper.__dict__.get("get_or_init_tracer") == self._tracer:
            del self._wrapper.get_or_init_tracer

    # The request's side.

    def enter(self, ids: TraceIds) -> Callable[[], None]:
        """Make the span `ids` the parent of MLflow's spans in this context; returns what undoes it."""
        context = self._enter(
            {
                "traceparent": f"00-{ids.trace_id:032x}-{ids.span_id:016x}-{ids.trace_flags:02x}",
                "tracestate": marked_state(ids.trace_state, ids.span_id),
            }
        )
        manager = self._manager.get_instance()
        with manager._lock:
            shared = self._entry(manager, ids.trace_id)
            context.__enter__()
            if self._running[ids.trace_id] and shared is not None:
                self._keep(manager, ids.trace_id, shared)
            self._running[ids.trace_id] += 1
        return lambda: self._leave(context, ids.trace_id)

    def _leave(self, context: AbstractContextManager[object], trace_id: int) -> None:
        manager = self._manager.get_instance()
        with manager._lock:
            shared = self._entry(manager, trace_id)
            try:
                context.__exit__(None, None, None)
            finally:
                self._running[trace_id] -= 1
                if self._running[trace_id] > 0 and shared is not None:
                    self._keep(manager, trace_id, shared)
                elif self._running[trace_id] <= 0:
                    del self._running[trace_id]

    def _entry(self, manager: Any, trace_id: int) -> Any:
        return manager._traces.get(self._mlflow_id(trace_id))

    def _keep(self, manager: Any, trace_id: int, entry: Any) -> None:
        mlflow_id = self._mlflow_id(trace_id)
        manager._traces[mlflow_id] = entry
        manager._otel_id_to_mlflow_trace_id[trace_id] = mlflow_id

    # MLflow's side.

    def _tracer(self, module_name: str) -> Any:
        """In the place of MLflow's own `get_or_init_tracer`, which it calls for every span that it starts."""
        try:
            tracer = self._make_tracer(module_name)
        except Exception as error:
            # MLflow would swallow this and make spans that are none.
            self._stand_in_told(error)
            self._stand_in()
            tracer = self._wrapper.get().get_tracer(module_name)
        try:
            current = self._wrapper.get()
            if current is not self._known:
                self._known = current
                _without_broken_metrics(current)
                self._on_provider(current)
        except Exception as error:
            self._on_failure(error)
        return tracer

    def _stand_in(self) -> None:
        """A provider that only makes spans, where MLflow cannot make its own (`mlflow-tracing` without a tracking URI,
        an OTLP protocol it does not know)."""
        processor = import_module("mlflow.tracing.processor.mlflow_v3").MlflowV3SpanProcessor
        _with_default_uri()
        provider = TracerProvider(resource=Resource.create(), shutdown_on_exit=False)
        # Without MLflow's processor its spans are not registered, and what an app sets on them goes nowhere.
        provider.add_span_processor(processor(span_exporter=_Nowhere(), export_metrics=False))
        self._wrapper.set(provider)
        self._wrapper.once._done = True


class _Nowhere(SpanExporter):
    """An exporter for spans that are taken elsewhere."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:  # noqa: ARG002 - part of the interface
        return SpanExportResult.SUCCESS


def _without_usage_report(function: Callable[..., Any]) -> Callable[..., Any]:
    """The bare context manager: MLflow wraps it to report its use, and we would be the one who uses it."""
    inner = getattr(function, "__wrapped__", None)
    # Two layers: the report around `contextmanager` around a generator.
    return inner if inner is not None and hasattr(inner, "__wrapped__") else function


def _with_default_uri() -> None:
    """Let `mlflow-tracing` know its own default: it looks for it, at each span, with what only `mlflow` has."""
    module: Any = import_module("mlflow.tracking._tracking_service.utils")
    try:
        module.get_tracking_uri()
    except ImportError:
        default = module.DEFAULT_TRACKING_URI
        module._get_default_tracking_uri = lambda: default


def _without_broken_metrics(provider: Any) -> None:
    """Switch off MLflow's span metrics where `mlflow-tracing` alone lacks what they need: each span would be lost."""
    function = import_module("mlflow.tracing.utils").get_experiment_id_for_trace
    needed = "default_experiment_registry"
    if needed not in function.__code__.co_names or needed in function.__globals__:
        return
    for processor in getattr(getattr(provider, "_active_span_processor", None), "_span_processors", ()):
        if getattr(processor, "_export_metrics", False):
            processor._export_metrics = False
