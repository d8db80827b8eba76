"""What a span says of the HTTP request behind it: its address, and all that an infertap at the sender wrote along.

1. A sender's infertap names the request by `infertap.request_id`; such a span is the request, with bodies or without.
2. Where that infertap keeps the row itself, its span says so, and is not taken for the request here.
"""

import re
from collections.abc import Mapping
from typing import Any

from infertap.processors.attributes import AttributeRedactor
from infertap.processors.redact import Redactor
from infertap.record import EndReason, ErrorCode, InferenceRecord, SpanRecord
from infertap.trace_context import STATE_KEY

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
_ROW_ELSEWHERE = ("infertap.in_table", "gen_ai.input.messages_ref", "gen_ai.output.messages_ref")
_TAG = "infertap.tag."
_TAG_CHARACTERS_MAX = 4096
_ID_CHARACTERS_MAX = 256
_INT64_MAX = (1 << 63) - 1
_CLIENT_CLOSED_REQUEST = 499
_END_REASONS = frozenset(EndReason)
_ERROR_CODES = frozenset(ErrorCode)


def infertap_request_id(span: SpanRecord) -> str | None:
    """The id of the request that a sender's infertap made this span of; None for any other span.

    None, too, where that infertap writes the row: its span then says so or refers to the tables, or is the copy for
    the processors of the app's own provider, which carries the mark of itself.
    """
    told = span.attributes.get("infertap.request_id")
    if span.kind not in ("SERVER", "INTERNAL") or not isinstance(told, str) or _UUID.fullmatch(told) is None:
        return None
    if any(name in span.attributes for name in _ROW_ELSEWHERE):
        return None
    own_mark = f"{STATE_KEY}={span.span_id}"
    return None if any(member.strip() == own_mark for member in span.trace_state.split(",")) else told


def fill_address(record: InferenceRecord, attributes: Mapping[str, Any], redactor: Redactor) -> None:
    """Method, path and query of a server span, by the stable HTTP names or the old ones."""
    method = attributes.get("http.request.method") or attributes.get("http.method")
    if method == "_OTHER":
        method = attributes.get("http.request.method_original") or method
    old_path, _, old_query = str(attributes.get("http.target") or "").partition("?")
    query = attributes.get("url.query") or old_query
    record.method, in_method = redactor.label(str(method or ""))
    record.path, in_path = redactor.label(str(attributes.get("url.path") or old_path))
    shown, in_query = redactor.query(str(query or ""))
    record.query = shown or None
    record.redacted_count += in_method + in_path + in_query


def fill_infertap_facts(
    record: InferenceRecord, attributes: Mapping[str, Any], redact: AttributeRedactor, redactor: Redactor
) -> None:
    """The columns that a sender's infertap wrote on its span. Call before tags and bodies are filled."""
    record.client_request_id = _label(record, attributes.get("infertap.client_request_id"), redactor)
    served = _label(record, attributes.get("infertap.served_entity_id"), redactor)
    record.served_entity_id = served or record.served_entity_id
    record.requester = _label(record, attributes.get("infertap.requester"), redactor)
    record.time_to_first_chunk_ns = count(attributes, "infertap.time_to_first_chunk_ns")
    end_reason = attributes.get("infertap.end_reason", EndReason.COMPLETE.value)
    record.end_reason = end_reason if end_reason in _END_REASONS else EndReason.COMPLETE.value
    if record.end_reason == EndReason.CLIENT_DISCONNECT and status_code(attributes) is None:
        # A status that was never sent is on no span.
        record.status_code = _CLIENT_CLOSED_REQUEST
    codes = attributes.get("infertap.logging_error_codes")
    if isinstance(codes, list):
        record.logging_error_codes = [code for code in codes if isinstance(code, str) and code in _ERROR_CODES]
    for name, value in attributes.items():
        if name.startswith(_TAG):
            add_tag(record, name.removeprefix(_TAG), value, redact, redactor)


def add_tag(record: InferenceRecord, name: str, value: Any, redact: AttributeRedactor, redactor: Redactor) -> None:
    """One tag, redacted; a tag that is there already stays."""
    shown_name, hits_in_name = redactor.label(name)
    if shown_name in record.tags:
        return
    shown, hits = redact.one(name, value if isinstance(value, str) else str(value))
    record.tags[shown_name] = str(shown)[:_TAG_CHARACTERS_MAX]
    record.redacted_count += hits + hits_in_name


def status_code(attributes: Mapping[str, Any]) -> int | None:
    """The HTTP status that was answered, None where the span does not say."""
    names = ("http.response.status_code", "http.status_code")
    codes = (attributes.get(name) for name in names)
    return next((code for code in codes if type(code) is int and 100 <= code <= 599), None)


def count(attributes: Mapping[str, Any], name: str) -> int | None:
    """An attribute that counts something; None where it is none."""
    value = attributes.get(name)
    return value if type(value) is int and 0 <= value <= _INT64_MAX else None


def _label(record: InferenceRecord, value: Any, redactor: Redactor) -> str | None:
    if not isinstance(value, str):
        return None
    shown, hits = redactor.label(value)
    record.redacted_count += hits
    return shown[:_ID_CHARACTERS_MAX]
