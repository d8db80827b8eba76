"""The middleware behind a sidecar: how it knows that the request is recorded already, and what it still does.

1. Only the secret that both were given proves the sidecar; a client that sends the header changes nothing.
2. The header goes no further than this: neither the app nor a record sees it.
"""

import hmac
from collections.abc import Mapping, MutableMapping
from typing import Any

from opentelemetry import context as otel_context

from infertap.pipeline import Pipeline
from infertap.record import OUTER_HEADER, Headers, TraceIds
from infertap.trace import OuterSpan, context_with
from infertap.trace_context import derive_ids, random_bits

_SCOPE_KEY = "infertap.outer"
"""Tells a second middleware further in, which no longer sees the header."""


def comes_from_sidecar(scope: Mapping[str, Any], secret: bytes) -> bool:
    """Whether a sidecar in front records this request."""
    if scope.get(_SCOPE_KEY) is True:
        return True
    # Compared in constant time, so that nobody learns the secret letter by letter.
    return any(name == OUTER_HEADER and hmac.compare_digest(value, secret) for name, value in scope["headers"])


def without_marker(scope: Mapping[str, Any]) -> MutableMapping[str, Any]:
    """The scope for the app: without the secret."""
    headers = [header for header in scope["headers"] if header[0] != OUTER_HEADER]
    return {**scope, "headers": headers, _SCOPE_KEY: True}


def incoming_context(pipeline: Pipeline, headers: Headers) -> otel_context.Context:
    """The context of a request whose server span is the sidecar's: children nest under that one."""
    headers = tuple(headers)
    bits = random_bits(256)
    traceparent, ids, context, _ = pipeline.trace.arrive(headers, bits)
    if ids is None:
        ids = derive_ids(traceparent, bits, pipeline.trace.pure)
    base = otel_context.get_current() if context is None else context
    if not ids.parent_span_id:
        return otel_context.Context(base)
    parent = TraceIds(ids.trace_id, ids.parent_span_id, 0, ids.trace_flags, ids.trace_state)
    return context_with(OuterSpan(pipeline, parent), base)
