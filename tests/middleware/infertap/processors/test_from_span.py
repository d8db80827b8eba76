"""The row of a span: every dialect under the same columns, redacted."""

from typing import Any

import pytest

from infertap.processors.bodies import BodyProcessor
from infertap.processors.from_span import SpanRows, span_request_id
from infertap.processors.redact import Redactor
from infertap.processors.secret_names import SecretNames
from infertap.processors.span_content import is_content, request_content
from infertap.record import InferenceRecord, SpanRecord

START = 1_764_000_000_123_456_789


def span(**fields: Any) -> SpanRecord:
    given: dict[str, Any] = {
        "trace_id": "ab" * 16, "span_id": "cd" * 8, "parent_span_id": None, "name": "predict", "kind": "INTERNAL",
        "start_ns": START, "end_ns": START + 7_000_000, "resource": {"service.name": "scorer", "host.name": "pod-1"},
    }  # fmt: skip
    return SpanRecord(**{**given, **fields})


def row(*, inline_bytes_max: int = 1 << 20, **fields: Any) -> InferenceRecord:
    names = SecretNames(())
    redactor = Redactor(names)
    rows = SpanRows(
        redactor, BodyProcessor(redactor, inline_bytes_max), keeps_content=True, redaction_version=names.version
    )
    made = span(**fields)
    content = request_content(made)
    assert content is not None
    return rows.row(made, content)


def test_an_mlflow_span() -> None:
    """MLflow's JSON-encoded values are read as what they were."""
    got = row(
        attributes={
            "mlflow.spanInputs": '{"messages": [], "api_key": "k"}',
            "mlflow.spanOutputs": '"plain"',
            "mlflow.spanType": '"CHAT_MODEL"',
            "mlflow.llm.model": '"m-1"',
            "mlflow.chat.tokenUsage": '{"input_tokens": 3, "output_tokens": 4, "total_tokens": 7}',
            "mlflow.traceTag.arm": "b",
            "mlflow.trace.session": '"s-1"',
        }
    )
    assert (got.protocol, got.operation, got.request_model) == ("mlflow", "CHAT_MODEL", "m-1")
    assert (got.request, got.response) == ('{"messages":[],"api_key":"[REDACTED]"}', '"plain"')
    assert (got.input_tokens, got.output_tokens) == (3, 4)
    assert got.tags == {"arm": "b", "session.id": "s-1"}
    assert got.redacted_count == 1
    assert (got.request_time, got.execution_duration_ms, got.duration_ns) == (START // 1000, 7, 7_000_000)
    assert (got.service_name, got.instance, got.served_entity_id) == ("scorer", "pod-1", "scorer")
    assert got.span is None


def test_an_openinference_span() -> None:
    """Plain text unless the mime type says otherwise."""
    got = row(
        attributes={
            "input.value": '{"a": 1}',
            "input.mime_type": "application/json",
            "output.value": "hello, key sk-abcdefghijklmnopqrstuvwx",
            "openinference.span.kind": "LLM",
            "llm.model_name": "m-2",
            "llm.token_count.prompt": 5,
            "llm.token_count.completion": 6,
            "user.id": "u-1",
        }
    )
    assert (got.protocol, got.operation, got.request_model) == ("otlp", "LLM", "m-2")
    assert (got.request_content_type, got.response_content_type) == ("application/json", "text/plain")
    assert got.response is not None
    assert "sk-abcdef" not in got.response
    assert (got.input_tokens, got.output_tokens, got.tags) == (5, 6, {"user.id": "u-1"})


def test_a_genai_span() -> None:
    """Messages as JSON text or as structured values."""
    messages = [{"role": "user", "parts": [{"type": "text", "content": "hi"}]}]
    got = row(
        attributes={
            "gen_ai.input.messages": messages,
            "gen_ai.output.messages": '[{"role": "assistant"}]',
            "gen_ai.operation.name": "chat",
            "gen_ai.request.model": "asked",
            "gen_ai.response.model": "answered",
            "gen_ai.response.finish_reasons": ["stop"],
            "gen_ai.usage.input_tokens": 1,
            "gen_ai.usage.output_tokens": 2,
            "gen_ai.usage.cache_read.input_tokens": 0,
            "gen_ai.request.stream": True,
        }
    )
    assert got.request == '[{"role":"user","parts":[{"type":"text","content":"hi"}]}]'
    assert (got.operation, got.request_model, got.response_model) == ("chat", "asked", "answered")
    assert (got.input_tokens, got.output_tokens, got.cached_input_tokens) == (1, 2, 0)
    assert (got.finish_reasons, got.is_stream) == (["stop"], True)


def test_a_body_over_the_inline_limit_is_withheld_and_the_rest_stays() -> None:
    """Never cut."""
    got = row(inline_bytes_max=10, attributes={"input.value": "x" * 11, "output.value": "short"})
    assert (got.request, got.request_bytes, got.response) == (None, 11, "short")
    assert got.logging_error_codes == ["REQUEST_OVER_INLINE_LIMIT"]


def test_secrets_in_names_tags_and_errors_are_redacted() -> None:
    """Nothing of a span reaches the row raw."""
    secret = "sk-abcdefghijklmnopqrstuvwx"
    got = row(
        attributes={
            "input.value": "a", "mlflow.traceTag.api_key": "k", "user.id": secret, "gen_ai.request.model": secret,
        },
        status=["ERROR", f"wrong key {secret}"],
        resource={"service.name": secret, "auth.token": secret},
    )  # fmt: skip
    assert secret not in repr(got)
    assert got.tags["api_key"] == "[REDACTED]"
    assert (got.status_code, got.response) == (500, None)
    assert got.error_message is not None


def test_an_http_status_beats_the_span_status() -> None:
    """Where the span knows what was answered."""
    attributes = {"input.value": "a", "output.value": "b", "http.response.status_code": 429}
    assert row(attributes=attributes, status=["ERROR", None]).status_code == 429


def test_a_span_without_a_type_is_called_by_its_name() -> None:
    """UNKNOWN, which MLflow writes by itself, says nothing."""
    attributes = {"mlflow.spanInputs": "1", "mlflow.spanOutputs": "2", "mlflow.spanType": '"UNKNOWN"'}
    assert row(attributes=attributes).operation == "predict"


def test_the_id_is_a_uuid_of_start_and_ids() -> None:
    """The same for the same span; another for another span or trace."""
    one = span_request_id(span())
    assert one == span_request_id(span(name="other"))
    assert one[14] == "7"
    assert len({one, span_request_id(span(span_id="ce" * 8)), span_request_id(span(trace_id="ac" * 16))}) == 3


@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"input.value": "a"},
        {"mlflow.spanInputs": "1", "output.value": "b"},
        {"gen_ai.output.messages": "[]"},
    ],
)
def test_without_both_sides_there_is_no_content(attributes: dict[str, Any]) -> None:
    """Sides of two dialects do not make a pair."""
    assert request_content(span(attributes=attributes)) is None


def test_content_is_recognised_by_name() -> None:
    """Content goes with `content = metadata`; what describes it stays."""
    content = ("input.value", "mlflow.spanOutputs", "gen_ai.input.messages", "llm.input_messages.0.message.content")
    for name in (*content, "gen_ai.headers"):
        assert is_content(name)
    for name in ("input.mime_type", "mlflow.spanType", "gen_ai.request.model", "llm.model_name"):
        assert not is_content(name)
