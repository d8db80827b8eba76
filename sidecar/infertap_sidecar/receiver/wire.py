"""From the bytes of an export request to its spans: protobuf, or the JSON that OTLP defines (which is not protobuf's).

1. OTLP's JSON has trace and span ids in hex where protobuf's JSON has base64. Everything else is protobuf's: int64 as
   text or number, enums by number or name, bytes in base64, unknown fields ignored.
2. In JSON, what cannot be read of a span, or of the resource or scope around it, costs these spans and no others (in
   protobuf: `salvage`); text that is no Unicode costs none.
"""

import base64
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

import orjson
from google.protobuf.json_format import ParseDict, ParseError  # type: ignore[import-untyped]
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from infertap_sidecar.receiver.elements import check_json, check_protobuf
from infertap_sidecar.receiver.errors import MalformedError

M = TypeVar("M", Resource, InstrumentationScope)

_DEPTH_MAX = 100
"""As deep as protobuf's own parser goes."""


class WireSpan(NamedTuple):
    """One span with what surrounds it."""

    resource: Resource
    scope: InstrumentationScope
    span: Span | None
    """None where it could not be read; the others of the request could."""
    problem: str = "unreadable"
    """Why there is no span, where there is none."""


def from_protobuf(body: bytes) -> ExportTraceServiceRequest:
    """Raises: MalformedError, TooLargeError (more than `elements.ELEMENTS_MAX`)."""
    check_protobuf(body)
    request = ExportTraceServiceRequest()
    try:
        request.ParseFromString(body)
    except DecodeError:
        raise MalformedError("the body is not an ExportTraceServiceRequest in protobuf") from None
    return request


def spans_of(request: ExportTraceServiceRequest) -> Iterator[WireSpan]:
    """All spans of a request, in order."""
    for resource_spans in request.resource_spans:
        resource = resource_spans.resource
        for scope_spans in resource_spans.scope_spans:
            scope = scope_spans.scope
            for span in scope_spans.spans:
                yield WireSpan(resource, scope, span)


def spans_of_json(body: bytes) -> Iterator[WireSpan]:
    """All spans of a request in OTLP's JSON, in order.

    Raises:
        MalformedError: the document, or a list in it, is not there. What is wrong within one span is that span's.
        TooLargeError: more than `elements.ELEMENTS_MAX`.
    """
    check_json(body)
    document = _document(body)
    if not isinstance(document, dict):
        raise MalformedError("the body is not an ExportTraceServiceRequest in JSON")
    for resource_spans in _list(document, "resourceSpans", "resource_spans"):
        resource = _message(Resource(), resource_spans.get("resource"))
        for scope_spans in _list(resource_spans, "scopeSpans", "scope_spans"):
            scope = _message(InstrumentationScope(), scope_spans.get("scope"))
            for fields in _list(scope_spans, "spans"):
                if resource is None or scope is None:
                    what = "resource" if resource is None else "scope"
                    yield WireSpan(Resource(), InstrumentationScope(), None, f"with an unreadable {what}")
                else:
                    yield WireSpan(resource, scope, _span(fields))


def _document(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        pass
    # Some senders cut texts by UTF-16 units; half a character of one span must not cost the others.
    repaired = _ESCAPE.sub(_without_lone_surrogate, body.decode("utf-8", "replace"))
    try:
        return orjson.loads(repaired)
    except orjson.JSONDecodeError:
        raise MalformedError("the body is not JSON") from None


_ESCAPE = re.compile(
    r"\\(?:(?P<pair>u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})|(?P<lone>u[dD][89a-fA-F][0-9a-fA-F]{2})|.)",
    re.DOTALL,
)
"""Any escape of JSON, so that the backslash of one is never taken for the beginning of another."""


def _without_lone_surrogate(escape: re.Match[str]) -> str:
    return "\\ufffd" if escape["lone"] else escape[0]


def _list(parent: Mapping[str, Any], *names: str) -> list[dict[str, Any]]:
    value: Any = next((parent[name] for name in names if parent.get(name) is not None), [])
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise MalformedError(f"{names[0]} is not a list of objects")
    return value


def _message(message: M, fields: Any) -> M | None:
    """None where it cannot be read."""
    if fields is None:
        return message
    try:
        ParseDict(fields, message, ignore_unknown_fields=True, max_recursion_depth=_DEPTH_MAX)
    except _UNREADABLE:
        return None
    return message


def _span(fields: dict[str, Any]) -> Span | None:
    span = Span()
    try:
        _ids_to_base64(fields)
        for link in fields.get("links") or ():
            _ids_to_base64(link)
        ParseDict(fields, span, ignore_unknown_fields=True, max_recursion_depth=_DEPTH_MAX)
    except _UNREADABLE:
        return None
    return span


_UNREADABLE = (ParseError, ValueError, TypeError, AttributeError, KeyError, RecursionError, OverflowError)
"""What protobuf's JSON parser raises for a document that is none of its kind."""

_ID_NAMES = ("traceId", "spanId", "parentSpanId", "trace_id", "span_id", "parent_span_id")


def _ids_to_base64(fields: dict[str, Any]) -> None:
    for name in _ID_NAMES:
        if fields.get(name):
            fields[name] = base64.b64encode(bytes.fromhex(fields[name])).decode()
