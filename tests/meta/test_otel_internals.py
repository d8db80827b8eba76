"""The names of OpenTelemetry that are not public and used all the same: the installed version has them.

A version without them changes what infertap can do, never whether an app starts: each use looks first.
"""

from typing import Any

import pytest
from opentelemetry import context as otel_context
from opentelemetry import trace as otel_trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation import _semconv
from opentelemetry.propagate import get_global_textmap
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import INVALID_SPAN, use_span

from infertap.destinations.http_attributes import _Official
from infertap.destinations.otlp_grpc import _client_of
from infertap.errors import RetryableError
from infertap.otel_current import attach, current_context
from infertap.trace import CURRENT_SPAN_KEY
from infertap.trace_context import is_standard


def test_the_current_span_stands_where_we_look_for_it() -> None:
    """The key is OpenTelemetry's own."""
    with use_span(INVALID_SPAN):
        assert otel_context.get_current()[CURRENT_SPAN_KEY] is INVALID_SPAN


def test_a_provider_shows_its_processors() -> None:
    """What joining sits down on, and the global provider itself."""
    provider = TracerProvider(shutdown_on_exit=False)
    assert provider._active_span_processor._span_processors == ()
    assert hasattr(otel_trace, "_TRACER_PROVIDER")


def test_the_current_context_is_read_and_set_without_detours() -> None:
    """Else each request would pay for the functions around its variable."""
    assert attach is not otel_context.attach
    assert current_context is not otel_context.get_current


def test_the_standard_propagators_are_recognised() -> None:
    """Else every request would pay for the composite one."""
    assert is_standard(get_global_textmap())


def test_the_instrumentations_own_attributes_are_used() -> None:
    """And the enum that says which conventions."""
    assert hasattr(_semconv, "_StabilityMode")
    assert _Official.load(dup=False) is not None


@pytest.mark.parametrize("client", [None, object()])
def test_a_grpc_exporter_that_cannot_be_watched_is_not_believed(client: Any) -> None:
    """It has a client to watch; one without is an error that says what to do, and nothing is sent unseen."""
    exporter = OTLPSpanExporter(endpoint="http://127.0.0.1:9", insecure=True)
    assert _client_of(exporter) is exporter._client
    real, exporter._client = exporter._client, client
    with pytest.raises(RetryableError, match="http/protobuf"):
        _client_of(exporter)
    exporter._client = real
    exporter.shutdown()
