"""A span that stands for a request becomes a row: what its maker wrote down, under the names of the columns.

1. Everything in the row has been redacted here; the span itself is redacted by whoever spools it.
2. The id is the one that a sender's infertap gave, else made from the span's own start and ids: the same span always
   gives the same row.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import orjson

from infertap.instance import instance_of
from infertap.processors.attributes import AttributeRedactor
from infertap.processors.bodies import REQUEST, RESPONSE, BodyProcessor, Side, StoredBody
from infertap.processors.media import parse_media_type
from infertap.processors.redact import Redactor
from infertap.processors.span_content import Content
from infertap.processors.span_request import (
    add_tag,
    count,
    fill_address,
    fill_infertap_facts,
    infertap_request_id,
    status_code,
)
from infertap.record import EndReason, ErrorCode, InferenceRecord, SpanRecord, request_id

_TRACE_TAG = "mlflow.traceTag."
_TAGS = {
    "user.id": "user.id",
    "enduser.id": "user.id",
    "mlflow.trace.user": "user.id",
    "session.id": "session.id",
    "gen_ai.conversation.id": "session.id",
    "mlflow.trace.session": "session.id",
}
"""Attributes that say who asked, and the tag that each becomes."""
_INT64 = range(-(1 << 63), 1 << 63)


class SpanRows:
    """Builds the rows.

    Args:
        keeps_content: Whether bodies are stored at all.
        redaction_version: For the column of that name.
    """

    __slots__ = ("_attributes", "_bodies", "_keeps_content", "_redaction_version", "_redactor")

    def __init__(
        self,
        redactor: Redactor,
        attributes: AttributeRedactor,
        bodies: BodyProcessor,
        *,
        keeps_content: bool,
        redaction_version: str,
    ) -> None:
        self._redactor = redactor
        self._attributes = attributes
        self._bodies = bodies
        self._keeps_content = keeps_content
        self._redaction_version = redaction_version

    def row(self, span: SpanRecord, content: Content) -> InferenceRecord:
        """The row of one span. `span` is raw and stays as it is."""
        attributes = span.attributes
        failed = span.status is not None and span.status[0] == "ERROR"
        by_infertap = infertap_request_id(span) is not None
        resource = span.resource or {}
        duration_ns = max(0, span.end_ns - span.start_ns)
        record = InferenceRecord(
            request_id=span_request_id(span),
            request_time=span.start_ns // 1_000,
            status_code=status_code(attributes) or (500 if failed else 200),
            execution_duration_ms=duration_ns // 1_000_000,
            duration_ns=duration_ns,
            trace_id=span.trace_id,
            span_id=span.span_id,
            parent_span_id=span.parent_span_id,
            end_reason=(EndReason.APP_ERROR if failed else EndReason.COMPLETE).value,
            protocol=content.protocol,
            redaction_version=self._redaction_version,
            is_stream=attributes.get("gen_ai.request.stream") is True or parse_media_type(content.outputs_type).streams,
        )
        record.operation = self._operation(record, span, by_infertap=by_infertap)
        self._resource(record, resource)
        if by_infertap or span.kind == "SERVER":
            fill_address(record, attributes, self._redactor)
        if by_infertap:
            fill_infertap_facts(record, attributes, self._attributes, self._redactor)
        self._model(record, attributes)
        self._tags(record, attributes)
        # What an app of ours recorded and then answered itself did not end the exchange.
        if failed and record.end_reason != EndReason.COMPLETE:
            record.error_type, record.error_message = self._error(record, span)
        self._fill_bodies(record, content)
        if by_infertap:
            self._fill_sizes(record, attributes)
        elif content.outputs is None:
            record.logging_error_codes.append(ErrorCode.RESPONSE_NOT_SEEN.value)
        return record

    def _resource(self, record: InferenceRecord, resource: Mapping[str, Any]) -> None:
        record.service_name = self._clean(record, resource.get("service.name", "unknown_service"))
        record.instance = self._clean(record, instance_of(resource))
        record.resource = {}
        for name, value in resource.items():
            shown, hits = self._attributes.one(name, value)
            record.redacted_count += hits
            text = shown if isinstance(shown, str) else orjson.dumps(shown, default=str).decode()
            record.resource[self._clean(record, name) or ""] = text
        record.served_entity_id = record.service_name

    def _operation(self, record: InferenceRecord, span: SpanRecord, *, by_infertap: bool) -> str | None:
        if by_infertap:
            # Its name and kind say no more than method and path do.
            return self._clean(record, span.attributes.get("gen_ai.operation.name"))
        names = ("gen_ai.operation.name", "openinference.span.kind", "mlflow.spanType")
        told = self._clean(record, _first(span.attributes, names))
        # MLflow says UNKNOWN where its user said nothing.
        return told if told and told != "UNKNOWN" else self._clean(record, span.name) or ""

    def _model(self, record: InferenceRecord, attributes: Mapping[str, Any]) -> None:
        usage = _json_map(attributes.get("mlflow.chat.tokenUsage"))
        asked = ("gen_ai.request.model", "llm.model_name", "mlflow.llm.model", "gen_ai.response.model")
        record.request_model = self._clean(record, _first(attributes, asked))
        record.response_model = self._clean(record, _first(attributes, ("gen_ai.response.model",)))
        record.input_tokens = _count(
            attributes.get("gen_ai.usage.input_tokens"),
            attributes.get("llm.token_count.prompt"),
            usage.get("input_tokens"),
        )
        record.output_tokens = _count(
            attributes.get("gen_ai.usage.output_tokens"),
            attributes.get("llm.token_count.completion"),
            usage.get("output_tokens"),
        )
        record.cached_input_tokens = _count(
            attributes.get("gen_ai.usage.cache_read.input_tokens"),
            attributes.get("llm.token_count.prompt_details.cache_read"),
            usage.get("cache_read_input_tokens"),
        )
        reasons = attributes.get("gen_ai.response.finish_reasons")
        if isinstance(reasons, list):
            record.finish_reasons = [self._clean(record, reason) or "" for reason in reasons]

    def _tags(self, record: InferenceRecord, attributes: Mapping[str, Any]) -> None:
        for name, value in attributes.items():
            tag = name.removeprefix(_TRACE_TAG) if name.startswith(_TRACE_TAG) else _TAGS.get(name)
            if tag is not None:
                add_tag(
                    record,
                    tag,
                    _unquoted(value) if name.startswith("mlflow.trace.") else value,
                    self._attributes,
                    self._redactor,
                )

    def _error(self, record: InferenceRecord, span: SpanRecord) -> tuple[str | None, str | None]:
        # What ended a request comes last in the span of an infertap; what the app had recorded before is another thing.
        events = span.events if infertap_request_id(span) is None else span.events[::-1]
        event: Mapping[str, Any] = next((values for name, _, values in events if name == "exception"), {})
        kind = event.get("exception.type") or span.attributes.get("error.type")
        message = event.get("exception.message") or (span.status[1] if span.status else None)
        return self._clean(record, kind), self._clean(record, message)

    def _fill_bodies(self, record: InferenceRecord, content: Content) -> None:
        if content.inputs is not None:
            record.request_content_type = self._clean(record, parse_media_type(content.inputs_type).name)
            record.request_bytes = _size(content.inputs)
        if content.outputs is not None:
            record.response_content_type = self._clean(record, parse_media_type(content.outputs_type).name)
            record.response_bytes = _size(content.outputs)
        if not self._keeps_content:
            return
        if content.inputs is not None:
            request = self._body(content.inputs, content.inputs_type, REQUEST)
            record.request, record.request_sha256 = request.text, request.sha256
            record.request_encoding = "text" if request.text is not None else None
            self._note(record, request)
        if content.outputs is not None:
            response = self._body(content.outputs, content.outputs_type, RESPONSE)
            record.response, record.response_sha256 = response.text, response.sha256
            record.response_encoding = "text" if response.text is not None else None
            self._note(record, response)

    @staticmethod
    def _fill_sizes(record: InferenceRecord, attributes: Mapping[str, Any]) -> None:
        """The bytes that passed, which may be other ones than those of the redacted text."""
        record.request_bytes = count(attributes, "http.request.body.size") or record.request_bytes
        record.response_bytes = count(attributes, "http.response.body.size") or record.response_bytes

    def _body(self, text: str, media_type: str, side: Side) -> StoredBody:
        # It came as text: whatever charset the maker names, these bytes are ours.
        media = parse_media_type(f"{media_type.partition(';')[0]}; charset=utf-8")
        return self._bodies.store(text.encode("utf-8", "replace"), media, None, side)

    @staticmethod
    def _note(record: InferenceRecord, stored: StoredBody) -> None:
        record.redacted_count += stored.redacted
        if stored.code is not None and stored.code not in record.logging_error_codes:
            record.logging_error_codes.append(stored.code)

    def _clean(self, record: InferenceRecord, value: Any) -> str | None:
        if value is None:
            return None
        shown, hits = self._redactor.label(_unquoted(value))
        record.redacted_count += hits
        return shown


def span_request_id(span: SpanRecord) -> str:
    """The id of the row that this span stands for: the same for the same span."""
    return infertap_request_id(span) or request_id(
        span.start_ns, int(span.trace_id, 16) % (1 << 10) << 64 | int(span.span_id, 16)
    )


def _first(attributes: Mapping[str, Any], names: Iterable[str]) -> Any:
    return next((attributes[name] for name in names if attributes.get(name)), None)


def _count(*candidates: Any) -> int | None:
    return next((value for value in candidates if type(value) is int and value in _INT64), None)


def _unquoted(value: Any) -> str:
    """MLflow writes every value as JSON, plain texts too."""
    if not isinstance(value, str):
        return str(value)
    if value[:1] == '"' and value[-1:] == '"':
        try:
            return str(orjson.loads(value))
        except orjson.JSONDecodeError:
            return value
    return value


def _json_map(value: Any) -> Mapping[str, Any]:
    try:
        found = orjson.loads(value) if isinstance(value, str) else value
    except orjson.JSONDecodeError:
        return {}
    return found if isinstance(found, dict) else {}


def _size(text: str) -> int:
    return len(text.encode("utf-8", "replace"))
