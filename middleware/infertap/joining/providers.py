"""What stands behind a tracer provider of others: the SDK's provider, what holds its processors, who exports.

1. Wrappers are seen through by what they hold, never by their names: Logfire wraps the provider, its processors and
   its exporters.
2. Nothing is called on what is found; only attributes are read.
"""

from collections.abc import Iterator
from typing import Any

from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter

_OTLP_EXPORTERS = "opentelemetry.exporter.otlp"
_BATCHING = "opentelemetry.sdk._shared_internal"
"""Where the SDK keeps what stands between a batch processor and its exporter."""


def processors_of(provider: object) -> Any:
    """What holds the processors of an SDK provider, also of one in a wrapper; None for another one."""
    for found in (provider, *_attributes(provider)):
        active = getattr(found, "_active_span_processor", None) if isinstance(found, TracerProvider) else None
        if isinstance(getattr(active, "_span_processors", None), tuple):
            return active
    return None


def exports_otlp(processor: object) -> bool:
    """Whether an OTLP exporter of OpenTelemetry, or one derived from it, is in this processor, wrapped or not."""
    seen: set[int] = set()
    stack = [processor]
    while stack:
        part = stack.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        if isinstance(part, SpanExporter) and _is_otlp(part):
            return True
        stack += _parts(part)
    return False


def _is_otlp(exporter: SpanExporter) -> bool:
    return any(kind.__module__.startswith(_OTLP_EXPORTERS) for kind in type(exporter).__mro__)


def _parts(processor: object) -> Iterator[object]:
    for value in _attributes(processor):
        for part in value if isinstance(value, (tuple, list)) else (value,):
            if isinstance(part, (SpanProcessor, SpanExporter)) or type(part).__module__.startswith(_BATCHING):
                yield part


def _attributes(owner: object) -> tuple[object, ...]:
    return tuple(getattr(owner, "__dict__", {}).values())
