"""From what was seen to what is kept: `Exchange` to `InferenceRecord`, `PendingSpan` to `SpanRecord`; on the worker."""

from collections.abc import Iterable
from typing import Any, NamedTuple, TypeVar

from infertap.processors.attributes import AttributeRedactor
from infertap.processors.bodies import REQUEST, RESPONSE, BodyProcessor, Side, StoredBody
from infertap.processors.from_span import SpanRows, span_request_id
from infertap.processors.media import MediaType, parse_media_type
from infertap.processors.redact import Redactor
from infertap.processors.secret_names import MARK, SecretNames
from infertap.processors.span_content import request_content
from infertap.record import (
    FIELD_CHARACTERS_MAX,
    OUTER_HEADER,
    RAW_ERROR_CHARACTERS_MAX,
    ErrorCode,
    Exchange,
    Headers,
    InferenceRecord,
    PendingSpan,
    ServerSpanFacts,
    SpanFacts,
    SpanRecord,
    TraceIds,
    request_id,
)
from infertap.trace_context import PureSampler, derive_ids

T = TypeVar("T")

_ID_CHARACTERS_MAX = 256
"""Longest `client_request_id` and `requester`: half an id is none."""
_ERROR_CHARACTERS_MAX = 2_000
_QUERY_OVER_LIMIT, _RESPONSE_NOT_SEEN = ErrorCode.QUERY_OVER_LIMIT.value, ErrorCode.RESPONSE_NOT_SEEN.value
_NAMES_MAX, _NAME_CHARACTERS_MAX = 1024, 64
_SPAN_HEADERS = ("host", "user-agent")


class AssemblySettings(NamedTuple):
    """What the assembly needs of the configuration."""

    content: str
    inline_bytes_max: int
    served_entity_id: str
    requester_header: str | None
    capture_headers: Iterable[str]
    redact_keys: Iterable[str]
    redact_except: Iterable[str]
    span_request_headers: Iterable[str]
    """Headers that OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SERVER_REQUEST names; `.*` patterns are not supported."""
    span_response_headers: Iterable[str]
    sampler: PureSampler | None
    previews: bool = False
    """Whether spans go where a body may be too large for them: they then show the beginning."""


class Assembler:
    """Builds records. Everything it returns has been redacted."""

    __slots__ = (
        "_allowed", "_attributes", "_bodies", "_redactor", "_settings", "_span_request", "_span_response",
        "_span_rows", "_version",
    )  # fmt: skip

    def __init__(self, settings: AssemblySettings) -> None:
        names = SecretNames(settings.redact_keys, settings.redact_except)
        self._settings = settings
        self._redactor = Redactor(names)
        self._bodies = BodyProcessor(self._redactor, settings.inline_bytes_max)
        self._allowed = _lower(settings.capture_headers)
        # content = "metadata" keeps no headers but those that the HTTP conventions ask for.
        captured = settings.content != "metadata"
        self._span_request = _lower((*_SPAN_HEADERS, *(settings.span_request_headers if captured else ())))
        self._span_response = _lower(settings.span_response_headers if captured else ())
        self._version = names.version
        self._attributes = AttributeRedactor(
            self._redactor,
            names,
            kept_headers=self._span_request | self._span_response | (self._allowed if captured else frozenset()),
            keeps_content=captured,
        )
        self._span_rows = SpanRows(
            self._redactor,
            self._attributes,
            self._bodies,
            keeps_content=captured,
            redaction_version=names.version,
        )

    def record(self, exchange: Exchange) -> InferenceRecord:
        """The row of one exchange and, where its span is sampled, the facts of its server span."""
        request_headers = _decoded(exchange.scope.headers)
        response_headers = _decoded(exchange.response_headers)
        ids = exchange.trace or self._derive(exchange)
        record = self._facts(exchange, ids)
        self._fill_address(record, exchange)
        record.client_request_id = self._one(record, request_headers, "x-request-id")
        if self._settings.requester_header is not None:
            record.requester = self._one(record, request_headers, self._settings.requester_header.lower())
        if exchange.error_type:
            record.error_type = self._noted(record, self._redactor.label(exchange.error_type))
        if exchange.error_message:
            record.error_message = self._error(record, exchange.error_message)
        for name, value in (exchange.tags or {}).items():
            shown = self._noted(record, self._attributes.one(name, value))
            record.tags[self._noted(record, self._redactor.label(name))] = shown
        if ids.trace_flags & 1:
            record.span = self._span(exchange, ids, request_headers, response_headers)
        self._fill_bodies(record, exchange, request_headers, response_headers)
        return record

    @staticmethod
    def _noted(record: InferenceRecord, redacted: tuple[T, int]) -> T:
        """What was redacted, counted."""
        record.redacted_count += redacted[1]
        return redacted[0]

    def _fill_address(self, record: InferenceRecord, exchange: Exchange) -> None:
        scope = exchange.scope
        record.method = self._noted(record, self._redactor.label(scope.method))
        record.path = self._noted(record, self._redactor.label(scope.path))
        if _QUERY_OVER_LIMIT not in exchange.codes:
            query = scope.query_string.decode("utf-8", "backslashreplace")
            record.query = self._noted(record, self._redactor.query(query))

    def _error(self, record: InferenceRecord, text: str) -> str:
        """Redacted first and cut last: half a secret has no shape that could be found."""
        if len(text) >= RAW_ERROR_CHARACTERS_MAX:
            # It was cut before; its last word may be half of a secret.
            text = f"{text[: len(text) - len(text.rsplit(None, 1)[-1])]}{MARK}"
        return self._noted(record, self._redactor.text(text))[:_ERROR_CHARACTERS_MAX]

    def _derive(self, exchange: Exchange) -> TraceIds:
        traceparent = next((value for name, value in exchange.scope.headers if name == b"traceparent"), None)
        return derive_ids(traceparent, exchange.bits, self._settings.sampler)

    def _facts(self, exchange: Exchange, ids: TraceIds) -> InferenceRecord:
        """The columns that are copied or counted."""
        return InferenceRecord(
            request_id=request_id(exchange.started_at_ns, exchange.bits),
            request_time=exchange.started_at_ns // 1_000,
            status_code=exchange.status_code,
            execution_duration_ms=exchange.duration_ns // 1_000_000,
            served_entity_id=self._settings.served_entity_id,
            trace_id=f"{ids.trace_id:032x}",
            span_id=f"{ids.span_id:016x}",
            parent_span_id=f"{ids.parent_span_id:016x}" if ids.parent_span_id else None,
            request_bytes=exchange.request_bytes,
            response_bytes=exchange.response_bytes,
            duration_ns=exchange.duration_ns,
            time_to_first_chunk_ns=exchange.first_chunk_ns if exchange.first_chunk_ns >= 0 else None,
            chunk_count=exchange.chunk_count,
            end_reason=exchange.end_reason,
            redaction_version=self._version,
            logging_error_codes=list(exchange.codes),
        )

    def _fill_bodies(
        self,
        record: InferenceRecord,
        exchange: Exchange,
        request_headers: dict[str, str],
        response_headers: dict[str, str],
    ) -> None:
        request_type = parse_media_type(request_headers.get("content-type"))
        response_type = parse_media_type(response_headers.get("content-type"))
        record.request_content_type = self._type_name(request_type)
        record.response_content_type = self._type_name(response_type)
        several = exchange.chunk_count > 1 and "content-length" not in response_headers
        record.is_stream = response_type.streams or several
        if not exchange.request_complete and _announces_more(request_headers, exchange.request_bytes):
            record.logging_error_codes.append(ErrorCode.REQUEST_NOT_READ.value)
        whole = exchange.response_complete
        if not whole and exchange.response_bytes:
            record.logging_error_codes.append(ErrorCode.RESPONSE_INCOMPLETE.value)
        if self._settings.content == "metadata":
            return
        record.request_headers = self._headers(record, request_headers, ErrorCode.REQUEST_HEADERS_OVER_LIMIT)
        record.response_headers = self._headers(record, response_headers, ErrorCode.RESPONSE_HEADERS_OVER_LIMIT)
        preview = self._settings.previews and record.span is not None
        request = self._body(exchange, request_headers, request_type, REQUEST, preview=preview)
        response = self._body(exchange, response_headers, response_type, RESPONSE, preview=preview)
        for stored in (request, response):
            record.redacted_count += stored.redacted
            if stored.code is not None:
                record.logging_error_codes.append(stored.code)
        if record.span is not None and (request.preview or response.preview):
            previews = {"request": request.preview, "response": response.preview}
            record.span.previews = {side: text for side, text in previews.items() if text}
        record.request, record.request_sha256 = request.text, request.sha256
        record.response, record.response_sha256 = response.text, response.sha256
        record.request_encoding = "text" if request.text is not None else None
        record.response_encoding = "text" if response.text is not None else None

    def _body(
        self, exchange: Exchange, headers: dict[str, str], media: MediaType, side: Side, *, preview: bool
    ) -> StoredBody:
        request = side is REQUEST
        chunks = exchange.request_chunks if request else exchange.response_chunks
        passed = exchange.request_bytes if request else exchange.response_bytes
        absent = not request and (not exchange.response_started or _RESPONSE_NOT_SEEN in exchange.codes)
        if absent or (passed and not chunks):
            # There is none, or the capture let it go and said why.
            return StoredBody(None, None, None, 0)
        raw = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        return self._bodies.store(raw, media, headers.get("content-encoding"), side, preview=preview)

    def _headers(self, record: InferenceRecord, headers: dict[str, str], over: ErrorCode) -> dict[str, str]:
        field = self._redactor.field
        kept = {}
        for name, value in headers.items():
            if name not in self._allowed:
                continue
            if len(value) > FIELD_CHARACTERS_MAX:
                # Repeated ones, joined: the capture lets go of a single one.
                _note(record, over)
                continue
            kept[name], hits = field(name, value)
            record.redacted_count += hits
        return kept

    def _type_name(self, media: MediaType) -> str | None:
        return None if media.name is None else self._redactor.label(media.name)[0]

    def _one(self, record: InferenceRecord, headers: dict[str, str], name: str) -> str | None:
        value = headers.get(name)
        if value is None:
            return None
        if len(value) > _ID_CHARACTERS_MAX:
            _note(record, ErrorCode.REQUEST_HEADERS_OVER_LIMIT)
            return None
        shown, hits = self._redactor.field(name, value)
        if name not in self._allowed or self._settings.content == "metadata":
            # Else it is counted with the headers.
            record.redacted_count += hits
        return shown

    def _span(
        self,
        exchange: Exchange,
        ids: TraceIds,
        request_headers: dict[str, str],
        response_headers: dict[str, str],
    ) -> ServerSpanFacts:
        scope = exchange.scope
        label = self._redactor.label
        parent = ids.span_id if ids.foreign else ids.parent_span_id
        span = ServerSpanFacts(
            kind="INTERNAL" if ids.foreign else "SERVER",
            span_id=f"{ids.own_span_id if ids.foreign else ids.span_id:016x}",
            parent_span_id=f"{parent:016x}" if parent else None,
            trace_state=label(ids.trace_state)[0],
            trace_flags=ids.trace_flags,
            http_version=label(scope.http_version)[0],
            scheme=label(scope.scheme)[0],
            root_path=label(scope.root_path)[0],
            server=self._peer(scope.server),
            client=self._peer(scope.client),
            headers=self._span_headers(request_headers, self._span_request),
            response_headers=self._span_headers(response_headers, self._span_response),
            route=self._redactor.route(exchange.route)[0] if exchange.route else exchange.route,
        )
        if exchange.span_facts is not None:
            self._app_facts(span, exchange.span_facts)
        return span

    def _peer(self, address: tuple[str, int | None] | None) -> list[Any] | None:
        """Host and port. Servers behind a proxy take the host from a header, and so from anybody."""
        if not address:
            return None
        host, *port = address
        return [self._redactor.label(host)[0] if isinstance(host, str) else host, *port]

    def _span_headers(self, headers: dict[str, str], kept: frozenset[str]) -> list[list[str]]:
        return [[name, self._redactor.field(name, text)[0]] for name, text in headers.items() if name in kept]

    def _app_facts(self, span: ServerSpanFacts, facts: SpanFacts) -> None:
        label, attributes = self._redactor.label, self._attributes.all
        span.name = self._redactor.route(facts.name)[0] if facts.name else None
        span.attributes = attributes(facts.attributes)
        span.events = [[label(name)[0], at_ns, attributes(values)] for name, at_ns, values in facts.events]
        span.links = [
            [f"{trace_id:032x}", f"{span_id:016x}", flags, attributes(values)]
            for trace_id, span_id, flags, values in facts.links
        ]
        span.status = self._status(facts.status)

    def span(self, pending: PendingSpan) -> SpanRecord | None:
        """A finished span of the app, redacted; None where its trace is not sampled."""
        record = pending.raw()
        return None if record is None else self._redacted(record)

    def request_span(self, pending: PendingSpan) -> tuple[InferenceRecord, SpanRecord]:
        """A span of another process that stands for a request: its row, and the span itself.

        Raises:
            ValueError: the span has no inputs and outputs.
        """
        record = pending.raw()
        content = None if record is None else request_content(record)
        if record is None or content is None:
            raise ValueError("a span without inputs and outputs stands for no request")
        row = self._span_rows.row(record, content)
        record.request_id = span_request_id(record)
        return row, self._redacted(record)

    def _redacted(self, record: SpanRecord) -> SpanRecord:
        label, attributes = self._redactor.label, self._attributes.all
        record.name = self._redactor.route(record.name)[0]
        record.scope_name = label(record.scope_name)[0]
        if record.scope_version is not None:
            record.scope_version = label(record.scope_version)[0]
        record.trace_state = label(record.trace_state)[0]
        record.attributes = attributes(record.attributes)
        record.events = [[label(name)[0], at_ns, attributes(values)] for name, at_ns, values in record.events]
        record.links = [[*ids, attributes(values)] for *ids, values in record.links]
        if record.status is not None:
            record.status = self._status((record.status[0], record.status[1]))
        if record.resource is not None:
            record.resource = attributes(record.resource)
        return record

    def _status(self, status: tuple[str, str | None] | None) -> list[Any] | None:
        if status is None:
            return None
        code, description = status
        return [code, self._redactor.text(description)[0] if description else None]


def _note(record: InferenceRecord, code: ErrorCode) -> None:
    if code.value not in record.logging_error_codes:
        record.logging_error_codes.append(code.value)


def _lower(names: Iterable[str]) -> frozenset[str]:
    """The names of headers that may be stored. The sidecar's secret is never among them."""
    return frozenset(name.lower() for name in names) - {OUTER_HEADER.decode()}


def _header_text(raw: bytes | str) -> str:
    return raw if isinstance(raw, str) else raw.decode("latin-1")


def _decoded(headers: Headers) -> dict[str, str]:
    """Lower-case names; repeated headers joined by ", " as RFC 9110 has it. Latin-1 cannot fail."""
    decoded: dict[str, str] = {}
    for raw_name, raw_value in headers:
        try:
            name, value = _NAMES[raw_name], raw_value.decode("latin-1")
        except (AttributeError, TypeError):
            # Text and bytearrays are against the protocol, and some apps send them all the same.
            name, value = _header_text(raw_name).lower(), _header_text(raw_value)
        decoded[name] = f"{decoded[name]}, {value}" if name in decoded else value
    return decoded


class _Names(dict[bytes, str]):
    """Names of headers, decoded and lower-case; most requests have the same."""

    def __missing__(self, raw: bytes) -> str:
        name = raw.decode("latin-1").lower()
        if len(raw) <= _NAME_CHARACTERS_MAX:
            if len(self) >= _NAMES_MAX:
                self.clear()
            self[bytes(raw)] = name
        return name


_NAMES = _Names()


def _announces_more(headers: dict[str, str], seen_bytes: int) -> bool:
    """Whether the request has a body of more bytes than those that the app read."""
    return headers.get("content-length", str(seen_bytes)) != str(seen_bytes) or "transfer-encoding" in headers
