"""The tracer provider that infertap sets where the app has none, so that instrumentations have somewhere to go."""

from typing import Any

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import NoOpTracer, Tracer

_SERVER_SPAN_MAKERS = frozenset({"fastapi", "starlette"})
"""Frameworks that make a server span of their own as soon as there is a provider."""


class InstalledProvider(TracerProvider):
    """An SDK provider without an exporter: a `SpanTap` takes its spans.

    FastAPI and Starlette get a tracer that makes none: the server span is infertap's, and an app that did not ask for
    tracing shall not pay for a second one.
    """

    def __init__(self) -> None:
        super().__init__(resource=Resource.create(), shutdown_on_exit=False)

    def get_tracer(self, instrumenting_module_name: str, *args: Any, **kwargs: Any) -> Tracer:
        """As the SDK's."""
        if instrumenting_module_name in _SERVER_SPAN_MAKERS:
            return NoOpTracer()
        return super().get_tracer(instrumenting_module_name, *args, **kwargs)
