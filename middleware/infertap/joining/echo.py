"""The server span for a provider of others: the parent of the spans that the app itself exports, without content.

1. Only where infertap's records go to tables alone: over OTLP the span arrives by itself.
2. It is made on the worker, of a record that has been redacted, and handed to the processors that others have set.
"""

from collections.abc import Callable, Mapping
from typing import Any

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState

from infertap.record import InferenceRecord, ServerSpanFacts
from infertap.trace_context import marked_state

_SERVER_ERROR = 500


def echo(
    record: InferenceRecord,
    processors: tuple[SpanProcessor, ...],
    resource: Resource,
    on_failure: Callable[[Exception], None],
) -> None:
    """Hand the finished server span of `record` to each processor. Never raises.

    Args:
        record: Redacted, with a sampled SERVER span.
        processors: Those of the provider, ours and MLflow's left out.
        resource: The provider's.
    """
    facts = record.span
    if facts is None or facts.kind != "SERVER" or record.trace_id is None:
        return
    span = _span(record, facts, int(record.trace_id, 16), resource)
    for processor in processors:
        try:
            processor.on_end(span)
        except Exception as error:
            on_failure(error)


def _span(record: InferenceRecord, facts: ServerSpanFacts, trace_id: int, resource: Resource) -> ReadableSpan:
    own = int(facts.span_id, 16)
    flags = TraceFlags(facts.trace_flags)
    parent = None
    if facts.parent_span_id:
        parent = SpanContext(trace_id, int(facts.parent_span_id, 16), is_remote=True, trace_flags=flags)
    failed = record.status_code >= _SERVER_ERROR or record.error_type is not None
    start_ns = record.request_time * 1000
    return ReadableSpan(
        name=f"{record.method} {facts.route or record.path}",
        context=SpanContext(
            trace_id, own, False, flags, TraceState.from_header([marked_state(facts.trace_state, own)])
        ),
        parent=parent,
        resource=resource,
        attributes=_attributes(record, facts),
        kind=SpanKind.SERVER,
        status=Status(StatusCode.ERROR if failed else StatusCode.UNSET),
        start_time=start_ns,
        end_time=start_ns + record.duration_ns,
        instrumentation_scope=InstrumentationScope("infertap"),
    )


def _attributes(record: InferenceRecord, facts: ServerSpanFacts) -> Mapping[str, Any]:
    known = {
        "http.request.method": record.method,
        "http.response.status_code": record.status_code or None,
        "http.route": facts.route,
        "url.path": record.path,
        "url.scheme": facts.scheme,
        "error.type": record.error_type,
        "infertap.request_id": record.request_id,
    }
    return {name: value for name, value in known.items() if value is not None}
