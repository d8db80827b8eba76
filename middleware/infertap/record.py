"""The values all else speaks of: what was seen (`Exchange`) and what is kept (`InferenceRecord`, `SpanRecord`).

1. Nothing here does I/O, reads a clock or knows another module of ours.
2. An `Exchange` holds bytes and scalars only, may hold secrets, and never leaves the process.
3. A record has been redacted. Its `to_payload()` is the wire form of a spool frame: a map without nulls.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple, Protocol

SCHEMA_VERSION = 1
"""Version of the columns and of the frame payloads. A drainer leaves segments of a newer one in place."""

RAW_ERROR_CHARACTERS_MAX = 64 << 10
"""So much of an error's text an `Exchange` holds; a longer one was cut to exactly this."""
FIELD_CHARACTERS_MAX = 8 << 10
"""Longest header (name and value), path, query or tag that is kept; a longer one is withheld whole."""
HEADERS_MAX = 128
"""Headers of one message that are looked at; those after them are withheld."""
TAGS_MAX = 128
"""Tags of one request."""

Headers = tuple[tuple[bytes, bytes], ...]


class EndReason(StrEnum):
    """Why an exchange ended."""

    COMPLETE = "complete"
    CLIENT_DISCONNECT = "client_disconnect"
    APP_ERROR = "app_error"
    UPSTREAM_ERROR = "upstream_error"
    UPSTREAM_TIMEOUT = "upstream_timeout"


OUTER_HEADER = b"x-infertap-outer"
"""How the sidecar proves itself to the middleware behind it; its value is a secret."""


class ErrorCode(StrEnum):
    """Why something is missing from a row: the values of the column `logging_error_codes`."""

    REQUEST_BINARY_WITHHELD = "REQUEST_BINARY_WITHHELD"
    RESPONSE_BINARY_WITHHELD = "RESPONSE_BINARY_WITHHELD"
    REQUEST_OVER_INLINE_LIMIT = "REQUEST_OVER_INLINE_LIMIT"
    RESPONSE_OVER_INLINE_LIMIT = "RESPONSE_OVER_INLINE_LIMIT"
    REQUEST_OVER_CAPTURE_LIMIT = "REQUEST_OVER_CAPTURE_LIMIT"
    RESPONSE_OVER_CAPTURE_LIMIT = "RESPONSE_OVER_CAPTURE_LIMIT"
    REQUEST_OVER_BUDGET = "REQUEST_OVER_BUDGET"
    RESPONSE_OVER_BUDGET = "RESPONSE_OVER_BUDGET"
    REQUEST_UNDECODABLE = "REQUEST_UNDECODABLE"
    RESPONSE_UNDECODABLE = "RESPONSE_UNDECODABLE"
    REQUEST_REDACTION_FAILED = "REQUEST_REDACTION_FAILED"
    RESPONSE_REDACTION_FAILED = "RESPONSE_REDACTION_FAILED"
    REQUEST_NOT_READ = "REQUEST_NOT_READ"
    RESPONSE_NOT_SEEN = "RESPONSE_NOT_SEEN"
    RESPONSE_INCOMPLETE = "RESPONSE_INCOMPLETE"
    REQUEST_HEADERS_OVER_LIMIT = "REQUEST_HEADERS_OVER_LIMIT"
    RESPONSE_HEADERS_OVER_LIMIT = "RESPONSE_HEADERS_OVER_LIMIT"
    PATH_OVER_LIMIT = "PATH_OVER_LIMIT"
    QUERY_OVER_LIMIT = "QUERY_OVER_LIMIT"
    TAGS_OVER_LIMIT = "TAGS_OVER_LIMIT"
    SPAN_OVER_LIMIT = "SPAN_OVER_LIMIT"
    """Of what the app set on its server span, something did not fit."""


PREVIEW_CHARACTERS_MAX = 1000
"""So much of a body is shown on a span that cannot have all of it."""


class LossCause(StrEnum):
    """Why a record never reached a destination: the column `cause` of the ledger, and the label of the metric."""

    QUEUE_FULL = "queue_full"
    SPOOL_FULL = "spool_full"
    SPOOL_UNWRITABLE = "spool_unwritable"
    WORKER_ERROR = "worker_error"
    CAPTURE_ERROR = "capture_error"
    DAMAGED = "damaged"
    REJECTED = "rejected"
    PARKED = "parked"
    CRASH_IN_FLIGHT = "crash_in_flight"
    STOP_DEADLINE = "stop_deadline"
    """Still in memory when the time for a stop was over."""


UNDECIDED = "undecided"
"""The outcome of requests that were given up while only their destination knows whether it has them; the cause is their
segment's number."""


class ScopeSnapshot(NamedTuple):
    """The parts of an ASGI HTTP scope that a record needs, taken at arrival because apps write into the scope.

    `headers` are raw and may hold secrets. `query_string` is raw, too.
    """

    method: str
    path: str
    query_string: bytes
    http_version: str
    scheme: str
    root_path: str
    client: tuple[str, int | None] | None
    server: tuple[str, int | None] | None
    headers: Headers


class TraceIds(NamedTuple):
    """The ids of the server span. Integers as OpenTelemetry uses them; 0 means absent.

    `foreign` is true where a span that we did not make was current at arrival: the row takes that span's ids
    (`trace_id`, `span_id`) and, where spans are exported, our record goes out as its INTERNAL child `own_span_id`.
    """

    trace_id: int
    span_id: int
    parent_span_id: int
    trace_flags: int
    trace_state: str
    foreign: bool = False
    own_span_id: int = 0


class Exchange(NamedTuple):
    """One request with its response, as the capture saw it. Bytes are raw: not decoded, not redacted."""

    scope: ScopeSnapshot
    route: str | None
    started_at_ns: int
    """Arrival, nanoseconds since the Unix epoch."""
    duration_ns: int
    first_chunk_ns: int
    """From arrival to the first non-empty body message of the answer; -1 where there was none."""
    bits: int
    """256 random bits, from which request id and span ids are derived. Not secret, never a token."""
    trace: TraceIds | None
    """None where the context is still to be derived from `traceparent` and `bits`."""
    request_chunks: tuple[bytes, ...]
    request_bytes: int
    """Body bytes that passed, also where they were not kept."""
    request_complete: bool
    """Whether the app read the request body to its end."""
    response_chunks: tuple[bytes, ...]
    response_bytes: int
    response_headers: Headers
    response_started: bool
    """Whether a status went out; without one there is no response, and the status is what the server made of it."""
    response_complete: bool
    """Whether the app's answer went out to its end."""
    chunk_count: int
    """Body messages of the answer that carried bytes."""
    status_code: int
    end_reason: str
    codes: tuple[str, ...]
    """`ErrorCode`s that the capture itself decided: over a limit or over the budget."""
    error_type: str | None
    error_message: str | None
    tags: dict[str, str] | None
    span_facts: "SpanFacts | None"
    """What the app set on the light server span; None where it never touched it."""
    held_bytes: int = 0
    """What it holds in memory."""
    granted_bytes: int = 0
    """Bytes of the shared budget that were taken for it until its end."""


def request_id(started_at_ns: int, bits: int) -> str:
    """The row's id: a UUIDv7 of the arrival and 74 of the random bits, as text."""
    value = (started_at_ns // 1_000_000 & (1 << 48) - 1) << 80 | (bits & (1 << 76) - 1)
    value = value & ~(0xF << 76) | 7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


class SpanFacts(NamedTuple):
    """What an app set on the light server span, with typed values and raw content."""

    name: str | None
    attributes: dict[str, Any]
    events: tuple[tuple[str, int, dict[str, Any]], ...]
    """(name, nanoseconds since the epoch, attributes)."""
    links: tuple[tuple[int, int, int, dict[str, Any]], ...]
    """(trace_id, span_id, trace_flags, attributes)."""
    status: tuple[str, str | None] | None
    """("OK" | "ERROR" | "UNSET", description)."""


@dataclass
class ServerSpanFacts:
    """What the drainer needs, beside the row, to render the finished server span. Redacted."""

    kind: str
    """SERVER, or INTERNAL for the child of a foreign server span."""
    span_id: str
    parent_span_id: str | None
    trace_state: str
    trace_flags: int
    http_version: str
    scheme: str
    root_path: str
    server: list[Any] | None
    client: list[Any] | None
    headers: list[list[str]]
    """Request headers that HTTP attributes are made of (host, user-agent, captured ones), redacted."""
    response_headers: list[list[str]]
    route: str | None = None
    name: str | None = None
    attributes: dict[str, Any] | None = None
    events: list[list[Any]] | None = None
    links: list[list[Any]] | None = None
    status: list[Any] | None = None
    previews: dict[str, str] | None = None
    """`request`, `response`: the beginning of a body that is too large for the row, redacted like any other."""

    def to_payload(self) -> dict[str, Any]:
        """The map under the key `span` of a REQUEST frame; None and empty values are left out."""
        return _compact(self)


@dataclass
class InferenceRecord:
    """One row of the table `inference`, and the facts of its server span. Field names are column names.

    The columns that the drainer fills are not here: `request_date` from `request_time`; `schema_version` and
    `infertap_version` from the segment's OPEN frame; `spool_id` and `segment_no`. `service_name`, `instance` and
    `resource` come from that frame, too, unless the record is another process's and names its own.
    """

    request_id: str
    request_time: int
    """Microseconds since the Unix epoch, UTC."""
    sequence_no: int = 0
    client_request_id: str | None = None
    status_code: int = 0
    sampling_fraction: float = 1.0
    execution_duration_ms: int = 0
    request: str | None = None
    response: str | None = None
    request_ref: str | None = None
    response_ref: str | None = None
    request_encoding: str | None = None
    response_encoding: str | None = None
    logging_error_codes: list[str] = field(default_factory=list)
    served_entity_id: str | None = None
    requester: str | None = None
    trace_id: str | None = None
    span_id: str | None = None
    parent_span_id: str | None = None
    method: str = ""
    path: str = ""
    query: str | None = None
    request_headers: dict[str, str] = field(default_factory=dict)
    response_headers: dict[str, str] = field(default_factory=dict)
    request_content_type: str | None = None
    response_content_type: str | None = None
    request_bytes: int = 0
    response_bytes: int = 0
    request_sha256: str | None = None
    response_sha256: str | None = None
    duration_ns: int = 0
    time_to_first_chunk_ns: int | None = None
    time_to_first_token_ns: int | None = None
    is_stream: bool = False
    chunk_count: int = 0
    end_reason: str = EndReason.COMPLETE.value
    protocol: str = "http"
    operation: str | None = None
    request_model: str | None = None
    response_model: str | None = None
    model_version: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_input_tokens: int | None = None
    reasoning_tokens: int | None = None
    finish_reasons: list[str] = field(default_factory=list)
    tool_call_count: int | None = None
    instance_count: int | None = None
    error_type: str | None = None
    error_message: str | None = None
    redaction_version: str | None = None
    redacted_count: int = 0
    sample_rule: str | None = None
    tags: dict[str, str] = field(default_factory=dict)
    service_name: str | None = None
    instance: str | None = None
    resource: dict[str, str] | None = None
    span: ServerSpanFacts | None = None
    """None where the request's span was not sampled: there is a row then, and no span."""

    def to_payload(self) -> dict[str, Any]:
        """The map of a REQUEST frame: column name to value, absent = null; the span facts under the key `span`."""
        payload = _compact(self)
        if self.span is not None:
            payload["span"] = self.span.to_payload()
        return payload


@dataclass
class SpanRecord:
    """One finished span of the app (not the server span). Redacted; attribute values keep their types.

    Ids are lower-case hex. `kind` and `status` are OpenTelemetry's names without prefix (`INTERNAL`, `OK`).
    """

    trace_id: str
    span_id: str
    parent_span_id: str | None
    name: str
    kind: str
    start_ns: int
    end_ns: int
    trace_state: str = ""
    trace_flags: int = 1
    attributes: dict[str, Any] = field(default_factory=dict)
    events: list[list[Any]] = field(default_factory=list)
    """[name, nanoseconds since the epoch, attributes]."""
    links: list[list[Any]] = field(default_factory=list)
    """[trace_id, span_id, trace_flags, attributes]."""
    status: list[Any] | None = None
    """[name, description or None]."""
    dropped_attributes_count: int = 0
    dropped_events_count: int = 0
    dropped_links_count: int = 0
    scope_name: str = ""
    scope_version: str | None = None
    resource: dict[str, Any] | None = None
    """Resource attributes where they differ from the OPEN frame's."""
    request_id: str | None = None
    table_only: bool | None = None
    """True where its maker exports it over OTLP by itself: under `both` only the table takes this copy."""
    otlp_only: bool | None = None
    """True where its sender writes it into the same tables by itself: under `both` only OTLP takes this copy."""

    def to_payload(self) -> dict[str, Any]:
        """The map of a SPAN frame."""
        return _compact(self)


class PendingSpan(Protocol):
    """A finished span of the app on its way to the worker: whatever made it, and not redacted yet."""

    @property
    def held_bytes(self) -> int:
        """What it holds in memory, roughly."""

    @property
    def start_ns(self) -> int:
        """Nanoseconds since the Unix epoch."""

    def raw(self) -> SpanRecord | None:
        """The span with raw content; None where its trace is not sampled. Called once, on the worker."""


class OfferedSpan(NamedTuple):
    """A finished span that another process handed over."""

    span: PendingSpan
    is_request: bool
    """Whether it stands for a whole request, and so becomes a row of `inference` as well."""


def _compact(record: InferenceRecord | ServerSpanFacts | SpanRecord) -> dict[str, Any]:
    """The fields that say something: neither None nor an empty list or map; False, 0 and "" are values."""
    return {
        name: value
        for name, value in record.__dict__.items()
        if value or (value is not None and value.__class__ in _SCALARS)
    }


_SCALARS = frozenset({bool, int, float, str})
