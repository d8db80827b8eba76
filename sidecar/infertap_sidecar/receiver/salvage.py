"""The spans of a request in protobuf: all of it, or the spans that can be read where one text is no UTF-8.

protobuf reads all or nothing. So the frame around the spans is walked, and each span read by itself; how many fields a
request may have is decided before (`elements`).
"""

from collections.abc import Iterator
from typing import TypeVar

from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from infertap_sidecar.receiver.elements import fields_of
from infertap_sidecar.receiver.errors import MalformedError
from infertap_sidecar.receiver.wire import WireSpan, from_protobuf, spans_of

M = TypeVar("M", Resource, InstrumentationScope, Span)

_RESOURCE_SPANS = 1
_AROUND, _WITHIN = 1, 2
"""In ResourceSpans the resource and its ScopeSpans, in ScopeSpans the scope and its spans."""


def spans_of_protobuf(body: bytes) -> Iterator[WireSpan]:
    """All spans of an ExportTraceServiceRequest, in order; of one that cannot be read, why.

    Raises:
        MalformedError: it is none, or the frame around its spans is damaged.
        TooLargeError: more than `elements.ELEMENTS_MAX`.
    """
    try:
        request = from_protobuf(body)
    except MalformedError as error:
        return _readable(body, error)
    return spans_of(request)


def _readable(body: bytes, error: MalformedError) -> Iterator[WireSpan]:
    found = False
    for number, resource_spans in fields_of(memoryview(body)):
        if number == _RESOURCE_SPANS:
            resource, scopes = _parts(Resource(), resource_spans)
            for scope_spans in scopes:
                scope, spans = _parts(InstrumentationScope(), scope_spans)
                for span in spans:
                    found = True
                    yield _span(resource, scope, span)
    if not found:
        raise error


def _parts(around: M, data: memoryview) -> tuple[M | None, list[memoryview]]:
    """What is around, None where it cannot be read, and what is within."""
    fields = list(fields_of(data))
    # A field that comes twice is one message in two parts, which protobuf joins.
    told = _parsed(around, b"".join(part for number, part in fields if number == _AROUND))
    return told, [part for number, part in fields if number == _WITHIN]


def _span(resource: Resource | None, scope: InstrumentationScope | None, data: memoryview) -> WireSpan:
    if resource is None or scope is None:
        what = "resource" if resource is None else "scope"
        return WireSpan(Resource(), InstrumentationScope(), None, f"with an unreadable {what}")
    return WireSpan(resource, scope, _parsed(Span(), data))


def _parsed(message: M, data: bytes | memoryview) -> M | None:
    try:
        message.ParseFromString(data)
    except DecodeError:
        return None
    return message
