"""Render the finished server span of a request from its spooled frame, so that a span costs the app nothing.

1. The span's HTTP part equals the official ASGI instrumentation's (`http_attributes`); its name follows the FastAPI one
   (`POST /items/{id}`) where a route is known.
2. What the app set on the light span wins over what we found out, except for what the answer itself decides.
3. Facts of the row that help in a tracing backend go along under `infertap.`; tags as `infertap.tag.<name>`.
4. Bodies are not part of it: the table joins them by id, the OTLP destination adds them (`span_content`).
"""

import functools
import os
from collections.abc import Mapping
from typing import Any

from infertap.destinations.http_attributes import HttpAttributes, HttpFacts, known_method
from infertap.record import EndReason, SpanRecord

SCOPE_NAME = "infertap"

_ROW_ATTRIBUTES = (
    ("request_id", "infertap.request_id"),
    ("client_request_id", "infertap.client_request_id"),
    ("served_entity_id", "infertap.served_entity_id"),
    ("requester", "infertap.requester"),
    ("time_to_first_chunk_ns", "infertap.time_to_first_chunk_ns"),
    ("logging_error_codes", "infertap.logging_error_codes"),
    ("request_bytes", "http.request.body.size"),
    ("response_bytes", "http.response.body.size"),
)
"""Columns that go along, and the attribute each becomes."""

_CLIENT_CLOSED_REQUEST = 499

# A member of an enum is looked up through its class, which takes longer than the comparison itself.
_COMPLETE = EndReason.COMPLETE.value
_CLIENT_DISCONNECT = EndReason.CLIENT_DISCONNECT.value


class ServerSpanRenderer:
    """Renders for one set of `OTEL_*` variables."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._http = HttpAttributes(environ)

    def render(self, request: Mapping[str, Any], header: Mapping[str, Any]) -> SpanRecord:
        """The server span of a REQUEST payload that has the key `span`.

        For a request that joined somebody else's span it is that span's INTERNAL child, with an id of its own.

        Args:
            request: A REQUEST frame's payload.
            header: The OPEN payload of the same segment.

        Raises:
            KeyError: the payload has no `span`, or lacks an id.
        """
        facts: Mapping[str, Any] = request["span"]
        start_ns = request["request_time"] * 1000
        end_ns = start_ns + request.get("duration_ns", 0)
        exception = _exception_event(request, facts, end_ns)
        attributes, status = self._attributes_and_status(request, facts, exception)
        return SpanRecord(
            trace_id=request["trace_id"],
            span_id=facts["span_id"],
            parent_span_id=facts.get("parent_span_id"),
            name=facts.get("name") or f"{known_method(request['method'])} {facts.get('route') or request['path']}",
            kind=facts["kind"],
            start_ns=start_ns,
            end_ns=end_ns,
            trace_state=facts.get("trace_state", ""),
            trace_flags=facts.get("trace_flags", 1),
            attributes=attributes,
            events=[*facts.get("events", ()), *([exception] if exception else ())],
            links=list(facts.get("links", ())),
            status=status,
            scope_name=SCOPE_NAME,
            scope_version=header.get("infertap_version"),
            request_id=request["request_id"],
        )

    def _attributes_and_status(
        self, request: Mapping[str, Any], facts: Mapping[str, Any], exception: list[Any] | None
    ) -> tuple[dict[str, Any], list[Any] | None]:
        attributes = self._http.of_exchange(HttpFacts.of(request, facts), facts.get("client"))
        is_server = facts["kind"] == "SERVER"
        if is_server:
            attributes.update(self._http.of_request_headers(facts.get("headers", [])))
        if facts.get("route"):
            attributes["http.route"] = facts["route"]
        _add_row_attributes(attributes, request)
        if "attributes" in facts:
            attributes.update(facts["attributes"])
        if is_server:
            attributes.update(self._http.of_response_headers(facts.get("response_headers", [])))
        failed = False
        if _status_was_sent(request):
            outcome = self._http.of_status(request["status_code"])
            attributes.update(outcome.attributes)
            failed = outcome.status == "ERROR"
        if exception is not None:
            attributes.setdefault("error.type", request["error_type"])
        return attributes, _status(request, facts, exception, failed=failed)


@functools.cache
def _renderer_of_this_process() -> ServerSpanRenderer:
    return ServerSpanRenderer(os.environ)


def render_server_span(request: Mapping[str, Any], header: Mapping[str, Any]) -> SpanRecord:
    """`ServerSpanRenderer.render` with the `OTEL_*` variables of this process, read at the first call."""
    return _renderer_of_this_process().render(request, header)


def _add_row_attributes(attributes: dict[str, Any], request: Mapping[str, Any]) -> None:
    for column, name in _ROW_ATTRIBUTES:
        if value := request.get(column):
            attributes[name] = value
    if request.get("end_reason", _COMPLETE) != _COMPLETE:
        attributes["infertap.end_reason"] = request["end_reason"]
    if "tags" in request:
        attributes.update({f"infertap.tag.{name}": value for name, value in request["tags"].items()})


def _status_was_sent(request: Mapping[str, Any]) -> bool:
    """499 for a client that left before a status is our word in the row; nothing like it was on the wire."""
    gone = request.get("end_reason") == _CLIENT_DISCONNECT
    return request.get("status_code", 0) > 0 and not (gone and request["status_code"] == _CLIENT_CLOSED_REQUEST)


def _exception_event(request: Mapping[str, Any], facts: Mapping[str, Any], at_ns: int) -> list[Any] | None:
    """The exception that ended the exchange, unless the app has recorded it by itself.

    An answer that ended well may have an `error_type`, too: the error object that the model server sent. That is no
    exception.
    """
    error_type = request.get("error_type")
    if error_type is None or request.get("end_reason", _COMPLETE) == _COMPLETE:
        return None
    if any(name == "exception" and of.get("exception.type") == error_type for name, _, of in facts.get("events", ())):
        return None
    attributes = {"exception.type": error_type, "exception.message": request.get("error_message") or ""}
    return ["exception", at_ns, attributes]


def _status(
    request: Mapping[str, Any], facts: Mapping[str, Any], exception: list[Any] | None, *, failed: bool
) -> list[Any] | None:
    """The app's word, else the exception's, else the status code's."""
    said = facts.get("status")
    if said and said[0] != "UNSET":
        return list(said)
    if exception is not None:
        short = str(request["error_type"]).rpartition(".")[2]
        return ["ERROR", f"{short}: {request.get('error_message') or ''}"]
    return ["ERROR", None] if failed else None
