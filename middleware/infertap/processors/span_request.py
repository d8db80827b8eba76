"""What a span says of the HTTP request behind it: its address, and all that an infertap at the sender wrote along.

1. A sender's infertap names the request by `infertap.request_id`; such a span is the request, with bodies or without.
2. Where that infertap keeps the row itself, its span says so, and is not taken for the request here.
"""

import re
from collections.abc import Mapping
from typing import Any

from infertap.processors.redact import Redactor
from infertap.processors.secret_names import redact_text
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
    record.method = redact_text(str(method))[0] if method else ""
    record.path = redactor.field("", str(attributes.get("url.path") or old_path))
    query = attributes.get("url.query") or old_query
    record.query = redactor.query(str(query)) if query else None


def fill_infertap_facts(record: InferenceRecord, attributes: Mapping[str, Any], redactor: Redactor) -> None:
    """The columns that a sender's infertap wrote on its span. Call before tags and bodies are filled."""
    record.client_request_id = _label(attributes, "infertap.client_request_id")
    record.served_entity_id = _label(attributes, "infertap.served_entity_id") or record.served_entity_id
    record.requester = _label(attributes, "infertap.requester")
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
            add_tag(record, name.removeprefix(_TAG), value, redactor)


def add_tag(record: InferenceRecord, name: str, value: Any, redactor: Redactor) -> None:
    """One tag, redacted; a tag that is there already stays."""
    shown_name = redact_text(name)[0]
    if shown_name in record.tags:
        return
    shown, hits = redactor.attribute(name, value if isinstance(value, str) else str(value))
    record.tags[shown_name] = str(shown)[:_TAG_CHARACTERS_MAX]
    record.redacted_count += hits


def status_code(attributes: Mapping[str, Any]) -> int | None:
    """The HTTP status that was answered, None where the span does not say."""
    names = ("http.response.status_code", "http.status_code")
    codes = (attributes.get(name) for name in names)
    return next((code for code in codes if type(code) is int and 100 <= code <= 599), None)


def count(attributes: Mapping[str, Any], name: str) -> int | None:
    """An attribute that counts something; None where it is none."""
    value = attributes.get(name)
    return value if type(value) is int and 0 <= value <= _INT64_MAX else None


def _label(attributes: Mapping[str, Any], name: str) -> str | None:
    value = attributes.get(name)
    return redact_text(value)[0][:_ID_CHARACTERS_MAX] if isinstance(value, str) else None
