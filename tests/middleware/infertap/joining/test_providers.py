"""Seeing through what others put around a provider, its processors and its exporters."""

from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import SpanProcessor, SynchronousMultiSpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import ProxyTracerProvider

from infertap.joining.providers import exports_otlp, processors_of


class Around:
    """Holds a provider, as Logfire's and others' do."""

    def __init__(self, inner: Any) -> None:
        self.name = "mine"
        self.provider = inner


class AroundProcessor(SpanProcessor):
    def __init__(self, inner: SpanProcessor) -> None:
        self.processor = inner


class AroundExporter(SpanExporter):
    def __init__(self, inner: SpanExporter) -> None:
        self.wrapped = inner


class Circle(SpanProcessor):
    def __init__(self) -> None:
        self.children = [self, self]


def otlp() -> OTLPSpanExporter:
    return OTLPSpanExporter(endpoint="http://127.0.0.1:9/v1/traces")


def several(*processors: SpanProcessor) -> SpanProcessor:
    together = SynchronousMultiSpanProcessor()
    for processor in processors:
        together.add_span_processor(processor)
    return together


def test_a_wrapped_provider_is_found() -> None:
    """Bare or in a wrapper, the SDK's provider gives what holds its processors; others give nothing."""
    provider = TracerProvider(shutdown_on_exit=False)
    assert processors_of(provider) is provider._active_span_processor
    assert processors_of(Around(provider)) is provider._active_span_processor
    assert processors_of(ProxyTracerProvider()) is None
    assert processors_of(Around(None)) is None
    assert processors_of(object()) is None


@pytest.mark.parametrize(
    "make",
    [
        lambda: SimpleSpanProcessor(otlp()),
        lambda: BatchSpanProcessor(otlp()),
        lambda: AroundProcessor(several(Circle(), AroundProcessor(BatchSpanProcessor(AroundExporter(otlp()))))),
    ],
)
def test_an_otlp_exporter_is_found_wherever_it_is(make: Any) -> None:
    """Directly, behind the SDK's batching, and within wrappers of wrappers."""
    processor = make()
    assert exports_otlp(processor)
    processor.shutdown()


def test_other_exporters_are_none() -> None:
    """What keeps spans in memory, or holds nothing but itself, exports nothing over OTLP."""
    assert not exports_otlp(SimpleSpanProcessor(AroundExporter(InMemorySpanExporter())))
    assert not exports_otlp(several(Circle(), AroundProcessor(Circle())))
    assert not exports_otlp(object())
