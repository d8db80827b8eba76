"""The span that a sender's infertap made of a request gives the row that this infertap would have written."""

from typing import Any

import pytest

from infertap.destinations.otlp_limits import Fit
from infertap.destinations.server_span import ServerSpanRenderer
from infertap.destinations.span_content import SpanContent
from infertap.processors.attributes import AttributeRedactor
from infertap.processors.bodies import BodyProcessor
from infertap.processors.from_span import SpanRows, span_request_id
from infertap.processors.redact import Redactor
from infertap.processors.secret_names import SecretNames
from infertap.processors.span_content import request_content
from infertap.processors.span_request import infertap_request_id
from infertap.record import InferenceRecord, ServerSpanFacts, SpanRecord
from infertap.targets import OtlpLimits

REQUEST_ID = "019ab5a2-7c00-7abc-8def-0123456789ab"
START_US = 1_764_000_000_123_456
STYLES = ("openinference", "mlflow")


def sent(*, style: str = "openinference", tables_uri: str | None = None, **columns: Any) -> SpanRecord:
    """What a middleware in `otlp` mode sends for a row with these columns."""
    facts = ServerSpanFacts(
        kind="SERVER", span_id="cd" * 8, parent_span_id="ef" * 8, trace_state="infertap=0000000000000009",
        trace_flags=1, http_version="1.1", scheme="http", root_path="", server=["localhost", 80], client=None,
        headers=[["host", "localhost"]], response_headers=[],
    )  # fmt: skip
    given: dict[str, Any] = {
        "request_id": REQUEST_ID, "request_time": START_US, "duration_ns": 7_000_000, "method": "POST",
        "path": "/predict", "status_code": 200, "trace_id": "ab" * 16, "span_id": "cd" * 8, "span": facts,
    }  # fmt: skip
    payload = InferenceRecord(**{**given, **columns}).to_payload()
    made = ServerSpanRenderer({}).render(payload, {})
    content = SpanContent(Fit(OtlpLimits()), style=style, tables_uri=tables_uri)
    made.attributes = {**made.attributes, **content.attributes(payload)}
    made.resource = {"service.name": "scorer"}
    return made


def row_of(span: SpanRecord) -> InferenceRecord:
    names = SecretNames(())
    redactor = Redactor(names)
    attributes = AttributeRedactor(redactor, names, kept_headers=frozenset(), keeps_content=True)
    rows = SpanRows(
        redactor, attributes, BodyProcessor(redactor, 1 << 20), keeps_content=True, redaction_version=names.version
    )
    content = request_content(span)
    assert content is not None
    return rows.row(span, content)


@pytest.mark.parametrize("style", STYLES)
def test_every_column_that_is_on_the_span_comes_back(style: str) -> None:
    """In both content styles."""
    columns: dict[str, Any] = {
        "client_request_id": "client-1", "served_entity_id": "model-7", "requester": "ann", "query": "a=1&b=2",
        "status_code": 429, "time_to_first_chunk_ns": 123, "request": '{"a":1}', "response": '{"b":2}',
        "request_content_type": "application/json", "response_content_type": "application/json",
        "request_bytes": 99, "response_bytes": 77, "tags": {"arm": "b", "user": "u-1"},
    }  # fmt: skip
    got = row_of(sent(style=style, **columns))
    assert {name: getattr(got, name) for name in columns} == columns
    assert (got.request_id, got.method, got.path, got.protocol) == (REQUEST_ID, "POST", "/predict", "http")
    assert (got.end_reason, got.operation, got.logging_error_codes) == ("complete", None, [])
    assert (got.request_time, got.duration_ns, got.parent_span_id) == (START_US, 7_000_000, "ef" * 8)


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("body", [{}, {"request": '"in"'}, {"response": '"out"'}], ids=["none", "request", "response"])
def test_a_request_is_a_row_with_whatever_bodies_there_are(style: str, body: dict[str, str]) -> None:
    """A request body that the app never read takes nothing from the rest."""
    got = row_of(sent(style=style, logging_error_codes=["REQUEST_NOT_READ"], **body))
    assert {name: text for name in ("request", "response") if (text := getattr(got, name)) is not None} == body
    assert got.logging_error_codes == ["REQUEST_NOT_READ"]
    assert got.request_bytes == len(body.get("request", ""))


def test_how_the_exchange_ended_comes_back() -> None:
    """Also the status that was never on the wire."""
    gone = row_of(sent(end_reason="client_disconnect", status_code=499))
    assert (gone.end_reason, gone.status_code, gone.error_type) == ("client_disconnect", 499, None)
    broken = row_of(sent(end_reason="app_error", status_code=500, error_type="ValueError", error_message="no"))
    assert (broken.end_reason, broken.status_code) == ("app_error", 500)
    assert (broken.error_type, broken.error_message) == ("ValueError", "no")
    refused = row_of(sent(status_code=503))
    assert (refused.end_reason, refused.status_code, refused.error_type) == ("complete", 503, None)


def test_an_event_stream_is_a_stream() -> None:
    """By the type of the answer: the span has no attribute for it."""
    assert row_of(sent(response="data: x\n\n", response_content_type="text/event-stream")).is_stream
    assert not row_of(sent(response="x", response_content_type="text/plain")).is_stream


def test_the_row_has_the_id_that_the_span_has() -> None:
    """So that the row and the span are found by the id that the sender's logs have."""
    assert span_request_id(sent()) == REQUEST_ID


def test_a_request_whose_row_is_in_a_table_already_is_none() -> None:
    """It refers to the table, or carries the mark of itself."""
    assert infertap_request_id(sent()) == REQUEST_ID
    assert infertap_request_id(sent(request="x", tables_uri="s3://b/t")) is None
    echo = sent()
    echo.trace_state = f"infertap={'cd' * 8},a=1"
    assert infertap_request_id(echo) is None


@pytest.mark.parametrize("told", ["id-1", 7, "", REQUEST_ID + "0", "sk-abcdefghijklmnopqrstuvwx"])
def test_what_is_no_request_id_is_not_taken_for_one(told: Any) -> None:
    """Anybody may send an attribute of that name."""
    span = sent()
    span.attributes["infertap.request_id"] = told
    assert infertap_request_id(span) is None


def test_what_a_sender_wrote_is_redacted_and_checked() -> None:
    """Another process's redaction is not ours, and its words for codes and reasons may be none of ours."""
    secret = "sk-abcdefghijklmnopqrstuvwx"
    span = sent(path=f"/{secret}", query=f"token={secret}", tags={"api_key": "k"}, requester=secret)
    span.attributes |= {
        "infertap.client_request_id": secret, "infertap.served_entity_id": secret, "infertap.end_reason": secret,
        "infertap.logging_error_codes": [secret, "REQUEST_NOT_READ", 3], "infertap.time_to_first_chunk_ns": -5,
        "http.request.body.size": "many",
    }  # fmt: skip
    got = row_of(span)
    assert secret not in repr(got)
    assert (got.tags, got.logging_error_codes) == ({"api_key": "[REDACTED]"}, ["REQUEST_NOT_READ"])
    assert (got.end_reason, got.time_to_first_chunk_ns, got.request_bytes) == ("complete", None, 0)


@pytest.mark.parametrize(
    ("kind", "attributes", "want"),
    [
        (
            "SERVER",
            {"http.request.method": "PUT", "url.path": "/a", "url.query": "q=1", "http.response.status_code": 201},
            ("PUT", "/a", "q=1", 201),
        ),
        ("SERVER", {"http.method": "GET", "http.target": "/a?q=1", "http.status_code": 404}, ("GET", "/a", "q=1", 404)),
        ("SERVER", {"http.request.method": "_OTHER", "http.request.method_original": "BREW"}, ("BREW", "", None, 200)),
        ("SERVER", {}, ("", "", None, 200)),
        ("CLIENT", {"http.request.method": "PUT", "url.path": "/a"}, ("", "", None, 200)),
    ],
    ids=["stable", "old", "other method", "nothing", "client"],
)
def test_the_address_of_any_server_span(kind: str, attributes: dict[str, Any], want: tuple[Any, ...]) -> None:
    """By the stable names or the old ones; what a client span asked for is somebody else's address."""
    span = SpanRecord(
        "ab" * 16, "cd" * 8, None, "predict", kind, START_US * 1000, START_US * 1000 + 1,
        attributes={"input.value": "a", "output.value": "b", **attributes},
    )  # fmt: skip
    got = row_of(span)
    assert (got.method, got.path, got.query, got.status_code) == want
