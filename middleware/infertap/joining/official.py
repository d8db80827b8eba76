"""`server_span = "otel"`: OpenTelemetry's own ASGI middleware makes the server span, on a provider that only we hear.

Its spans are the official ones to the letter, hooks of instrumentations included, and cost what they cost; the row
takes its ids, and our record joins it as that of any other maker would be joined.
"""

from collections.abc import Awaitable, Callable
from typing import Any

from opentelemetry import context as otel_context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import INVALID_SPAN, set_span_in_context

from infertap.joining.joining import Joining

Application = Callable[[Any, Any, Any], Awaitable[None]]


def official_server_span(app: Application, joining: Joining) -> Application:
    """`app` inside OpenTelemetry's middleware; no spans for single messages.

    Args:
        app: What is to happen inside the span.
        joining: Takes the finished spans.
    """
    # Imported for those who ask for it: it is not small, and the light span needs none of it.
    from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware

    provider = TracerProvider(resource=Resource.create(), shutdown_on_exit=False)
    joining.tap(provider, orphans=False)
    middleware: Application = OpenTelemetryMiddleware(app, tracer_provider=provider, exclude_spans=["receive", "send"])

    async def without_remote_span(scope: Any, receive: Any, send: Any) -> None:
        # Under a context that somebody extracted from the headers it would make an INTERNAL span.
        token = otel_context.attach(set_span_in_context(INVALID_SPAN))
        try:
            await middleware(scope, receive, send)
        finally:
            otel_context.detach(token)

    return without_remote_span
