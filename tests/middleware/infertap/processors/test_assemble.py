"""From what a capture saw to the row and the span that are kept, all of it redacted."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import context as otel_context
from opentelemetry.trace import StatusCode

from infertap.capture import ByteBudget, Capture, CaptureLimits, opened, snapshot
from infertap.child_span import ChildSpan
from infertap.config import DEFAULT_CAPTURE_HEADERS
from infertap.processors.assemble import Assembler, AssemblySettings
from infertap.processors.secret_names import MARK
from infertap.record import RAW_ERROR_CHARACTERS_MAX, TAGS_MAX, Exchange, InferenceRecord, PendingSpan, TraceIds
from infertap.sizes import header_characters
from infertap.trace import ServerSpan, annotate, context_with
from infertap.trace_context import PureSampler

_SECRET = "Hunter2-tr0ub4dor"
_TRACEPARENT = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
_SAMPLER = PureSampler(ratio=1, parent_based=True)
_AT_NS = 1_700_000_000_123_456_789


class _Sink:
    def submit_span(self, span: PendingSpan) -> None:
        raise AssertionError("no child span was made")


def _assembler(**changes: Any) -> Assembler:
    settings = AssemblySettings(
        content="full",
        inline_bytes_max=10_000,
        served_entity_id="svc",
        requester_header=None,
        capture_headers=DEFAULT_CAPTURE_HEADERS,
        redact_keys=("patient_id",),
        redact_except=(),
        span_request_headers=(),
        span_response_headers=(),
        sampler=_SAMPLER,
    )
    return Assembler(settings._replace(**changes))


def _clock() -> int:
    return 3_000


class Request:
    """One exchange, captured; what differs from a plain chat is given."""

    def __init__(self, *headers: tuple[bytes, bytes], **scope: Any) -> None:
        full = {
            "method": "POST",
            "path": "/chat",
            "query_string": b"",
            "headers": [(b"content-type", b"application/json"), *headers],
            **scope,
        }
        traceparent = next((value for name, value in headers if name == b"traceparent"), None)
        self.span = ServerSpan(_Sink(), None, traceparent, 7 << 64, _SAMPLER, _AT_NS)
        budget = ByteBudget(1 << 20)
        raw = tuple(full["headers"])
        limits = CaptureLimits(budget, 1 << 20)
        self.capture = Capture(snapshot(full), raw, limits, self.span, 1_000, header_characters(raw))

    def asks(self, body: bytes, *, whole: bool = True) -> "Request":
        self.capture.received({"type": "http.request", "body": body, "more_body": not whole})
        return self

    def gets(
        self,
        *chunks: bytes,
        status: int = 200,
        headers: tuple[tuple[bytes, bytes], ...] = ((b"content-type", b"application/json"),),
        whole: bool = True,
    ) -> "Request":
        self.capture.sent({"type": "http.response.start", "status": status, "headers": headers}, _clock)
        for chunk in chunks:
            self.capture.sent({"type": "http.response.body", "body": chunk, "more_body": True}, _clock)
        if whole:
            self.capture.sent({"type": "http.response.body", "body": b""}, _clock)
        return self

    def exchange(self, route: str | None = None) -> Exchange:
        return opened(self.capture.close(duration_ns=5_250_000, route=route))

    def record(self, **settings: Any) -> InferenceRecord:
        return _assembler(**settings).record(self.exchange())


def test_a_chat_becomes_a_row() -> None:
    """Every column that the core fills."""
    request = Request(
        (b"x-request-id", b"abc"), (b"Accept", b"a"), (b"accept", b"b"), (b"x-unlisted", b"x"), query_string=b"a=1"
    )
    record = request.asks(b'{"q":1}').gets(b'{"a":', b"2}").record()
    assert record.request_id.startswith("018bcfe5-687b-7")
    assert record.request_time == 1_700_000_000_123_456
    assert (record.status_code, record.end_reason, record.execution_duration_ms) == (200, "complete", 5)
    assert (record.request, record.response) == ('{"q":1}', '{"a":2}')
    assert (record.request_encoding, record.response_encoding) == ("text", "text")
    assert (record.request_bytes, record.response_bytes, record.chunk_count) == (7, 7, 2)
    assert (record.duration_ns, record.time_to_first_chunk_ns) == (5_250_000, 2_000)
    assert (record.client_request_id, record.requester, record.served_entity_id) == ("abc", None, "svc")
    assert (record.method, record.path, record.query) == ("POST", "/chat", "a=1")
    assert record.request_headers == {"content-type": "application/json", "x-request-id": "abc", "accept": "a, b"}
    assert (record.request_content_type, record.response_content_type) == ("application/json", "application/json")
    assert record.is_stream
    assert (record.logging_error_codes, record.redacted_count, record.tags) == ([], 0, {})
    assert (record.protocol, record.sampling_fraction) == ("http", 1.0)
    assert record.redaction_version is not None


def test_what_is_too_long_for_its_column_is_withheld_whole() -> None:
    """Ids, repeated headers that are long together, and a query; the row's codes say so, once."""
    long = b"f" * 5_000
    request = Request(
        (b"x-request-id", b"i" * 257),
        (b"x-user", b"u" * 256),
        (b"via", long),
        (b"via", long),
        query_string=b"q" * 8_193,
    )
    record = request.gets(b"ok").record(requester_header="x-user")
    assert (record.client_request_id, record.requester, record.query) == (None, "u" * 256, None)
    assert record.request_headers == {"content-type": "application/json", "x-request-id": "i" * 257}
    assert record.logging_error_codes == ["QUERY_OVER_LIMIT", "REQUEST_HEADERS_OVER_LIMIT"]


def test_an_answers_repeated_header_is_withheld_too() -> None:
    """With the answer's own code."""
    headers = ((b"content-type", b"text/plain"), (b"vary", b"v" * 5_000), (b"vary", b"v" * 5_000))
    record = Request().gets(b"ok", headers=headers).record()
    assert record.response_headers == {"content-type": "text/plain"}
    assert record.logging_error_codes == ["RESPONSE_HEADERS_OVER_LIMIT"]


def test_tags_and_facts_over_their_limits_are_withheld_and_said() -> None:
    """A tag too long, tags too many, and more content than a span may hold."""
    request = Request()
    token = otel_context.attach(context_with(request.span, {}))
    annotate(good="g", long="l" * 8_193)
    annotate(**{f"t{number}": "x" for number in range(200)})
    otel_context.detach(token)
    for number in range(9):
        request.span.set_attribute(f"a{number}", f"{number}" * (1 << 20))
    record = request.gets(b"ok").record()
    assert len(record.tags) == TAGS_MAX
    assert record.tags["good"] == "g"
    assert "long" not in record.tags
    assert record.logging_error_codes == ["TAGS_OVER_LIMIT", "SPAN_OVER_LIMIT"]
    assert record.span is not None
    assert record.span.attributes is not None
    assert record.span.attributes["infertap.withheld"] == "span_limit"
    assert sorted(record.span.attributes)[:8] == [f"a{number}" for number in range(7)] + ["infertap.withheld"]


def test_a_stack_is_text_in_the_record() -> None:
    """It is kept as places and formatted here, redacted like any text."""
    request = Request()
    try:
        raise ValueError(f"api_key={_SECRET}")
    except ValueError as error:
        request.span.record_exception(error)
    record = request.gets(b"no", status=500).record()
    assert record.span is not None
    assert record.span.events is not None
    ((_, _, attributes),) = record.span.events
    stack = attributes["exception.stacktrace"]
    assert stack.startswith("Traceback (most recent call last):")
    assert "in test_a_stack_is_text_in_the_record" in stack
    assert _SECRET not in str(record)


def test_ids_follow_the_caller_and_are_those_the_app_saw() -> None:
    """Whether or not the app asked for them."""
    untouched = Request((b"traceparent", _TRACEPARENT)).gets(b"x").record()
    touched = Request((b"traceparent", _TRACEPARENT))
    seen = touched.span.get_span_context()
    record = touched.gets(b"x").record()
    assert (record.trace_id, record.span_id, record.parent_span_id) == (
        "0af7651916cd43dd8448eb211c80319c",
        f"{7:016x}",
        "b7ad6b7169203331",
    )
    assert (seen.trace_id, seen.span_id) == (int(record.trace_id or "", 16), 7)
    assert (untouched.trace_id, untouched.span_id) == (record.trace_id, record.span_id)
    root = Request().gets(b"x").record()
    assert root.parent_span_id is None


@pytest.mark.parametrize(
    ("content_type", "chunks", "length", "streams"),
    [
        (b"application/json", 1, False, False),
        (b"application/json", 2, False, True),
        (b"application/json", 2, True, False),
        (b"text/event-stream; charset=utf-8", 1, True, True),
        (b"application/x-ndjson", 1, True, True),
    ],
)
def test_what_is_a_stream(content_type: bytes, chunks: int, length: bool, streams: bool) -> None:
    """By content type, or by several body messages without a length."""
    headers = ((b"content-type", content_type), *(((b"Content-Length", b"2"),) if length else ()))
    record = Request().gets(*[b"x"] * chunks, headers=headers).record()
    assert record.is_stream is streams


def test_every_part_of_a_row_is_redacted() -> None:
    """Bodies, query, path, headers, tags, the error and the request id; also by the user's own names."""
    secret = _SECRET.encode()
    request = Request(
        (b"x-request-id", b"Bearer " + secret),
        (b"referer", b"https://h/?key=" + secret),
        (b"x-forwarded-for", b"password=" + secret),
        (b"authorization", b"Bearer " + secret),
        (b"x-user", b"token=" + secret),
        query_string=b"a=1&api_key=" + secret + b"&q=%7B%22patient_id%22%3A%22" + secret + b"%22%7D",
        path=f"/x/token={_SECRET}",
    )
    request.asks(b'{"patient_id":"%s"}' % secret).gets(
        b'data: {"password":"%s"}\n\n' % secret,
        headers=(
            (b"content-type", b"text/event-stream"),
            (b"set-cookie", b"a=" + secret),
            (b"location", b"/x?sig=" + secret),
        ),
    )
    request.span.tags = {"password": _SECRET, "note": f"api_key={_SECRET}", "fine": "x"}
    request.capture.failed("ValueError", f"input_value={{'patient_id': '{_SECRET}'}}")
    record = request.record(
        requester_header="X-User",
        capture_headers=(*DEFAULT_CAPTURE_HEADERS, "authorization", "set-cookie"),
        span_request_headers=("authorization", "referer"),
        span_response_headers=("set-cookie", "location"),
    )
    text = json.dumps(record.to_payload())
    assert _SECRET not in text
    assert record.request_headers["authorization"] == record.response_headers["set-cookie"] == MARK
    assert record.requester == f"token={MARK}"
    assert record.tags == {"password": MARK, "note": f"api_key={MARK}", "fine": "x"}
    assert record.redacted_count == 15
    assert record.request == f'{{"patient_id":"{MARK}"}}'


def test_labels_of_a_row_are_redacted() -> None:
    """Method, path, error type, route, mount, and where the client says that it is."""
    told = f"a?api_key={_SECRET}"
    request = Request(
        (b"x-forwarded-for", b"x"), method=told, path=f"/{told}", root_path=f"/{told}", scheme=told, client=(told, 5)
    ).gets(b"ok")
    request.capture.failed(told, "no")
    record = _assembler().record(request.exchange(f"/{told}/{{token:path}}"))
    assert _SECRET not in json.dumps(record.to_payload())
    assert record.redacted_count == 3
    assert record.span is not None
    assert record.span.route == f"/a?api_key={MARK}{{token:path}}"
    assert record.span.client == [f"a?api_key={MARK}", 5]


_BEFORE_THE_CUT = (
    f"-----BEGIN PRIVATE KEY-----\n{_SECRET}\n",
    f"password: {_SECRET} ",
    f'{{"jwt": "{_SECRET}',
    f"<jwt>{_SECRET}",
    f"https://h/?sig={_SECRET}",
)


@pytest.mark.parametrize("text", _BEFORE_THE_CUT)
@pytest.mark.parametrize("size", [0, 100, 1_950, 1_990, 3_000, 70_000])
def test_an_errors_text_is_redacted_before_it_is_cut(text: str, size: int) -> None:
    """Wherever the cut falls, and however far away the end is by which a secret is known."""
    request = Request().gets(b"ok")
    message = f"{'x' * size} {text}{'y' * 70_000}"
    request.capture.failed("ValueError", message[:RAW_ERROR_CHARACTERS_MAX])
    record = request.record()
    assert record.error_message is not None
    assert len(record.error_message) <= 2_000
    assert _SECRET not in record.error_message


@pytest.mark.parametrize("secret", ["eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJl", "sk-abcdefghijklmnopqrst"])
def test_half_a_secret_at_the_cut_is_not_kept(secret: str) -> None:
    """It has no shape any more that could be found, once all that stood before it has been redacted to a word."""
    for kept in range(1, len(secret) + 1):
        before = f"password: {'x ' * RAW_ERROR_CHARACTERS_MAX}"[: RAW_ERROR_CHARACTERS_MAX - kept - 1] + "\n"
        request = Request().gets(b"ok")
        request.capture.failed("ValueError", f"{before}{secret}"[:RAW_ERROR_CHARACTERS_MAX])
        assert request.record().error_message == f"password: {MARK}\n{MARK}"


def test_a_captured_header_on_a_span_is_kept_by_the_list() -> None:
    """The app may set what it likes; what is not on the list is not stored, and in `metadata` no header is."""
    request = Request().gets(b"ok")
    names = ("http.request.header.referer", "http.request.header.x-private", "http.response.header.x_listed")
    request.span.set_attributes({name: ["/?key=x"] for name in names})
    exchange = request.exchange()
    span = _assembler(span_response_headers=("X-Listed",)).record(exchange).span
    assert span is not None
    assert span.attributes == {names[0]: [f"/?key={MARK}"], names[2]: [f"/?key={MARK}"]}
    bare = _assembler(content="metadata", span_response_headers=("X-Listed",)).record(exchange).span
    assert bare is not None
    assert not bare.attributes


def test_headers_are_kept_by_list() -> None:
    """What is not on it does not exist."""
    record = Request((b"authorization", b"x"), (b"x-private", b"y"), (b"user-agent", b"z")).gets(b"").record()
    assert record.request_headers == {"content-type": "application/json", "user-agent": "z"}


@given(raw=st.binary(max_size=40))
def test_any_bytes_in_a_head_are_a_row(raw: bytes) -> None:
    """Latin-1 in headers, anything in a query: the record is made, and can be written."""
    request = Request((b"user-agent", raw), (b"content-type", raw), (b"content-encoding", raw), query_string=raw)
    record = request.asks(b"x").gets(b"y", headers=((b"content-type", raw), (b"X-\xff", raw))).record()
    json.dumps(record.to_payload())
    assert record.request_headers["user-agent"] == raw.decode("latin-1") or MARK in record.request_headers["user-agent"]


@pytest.mark.parametrize("query", [b"x=" + b"[" * 8_000, b"[" * 8_000, b"%5B" * 2_700])
def test_a_query_cannot_keep_a_request_out_of_the_table(query: bytes) -> None:
    """A parameter that cannot be read goes alone."""
    record = Request((b"referer", b"/?" + query), query_string=query).gets(b"ok").record()
    assert record.response == "ok"
    assert MARK in (record.query or "")


def test_a_tag_cannot_keep_a_request_out_of_the_table() -> None:
    """Nor an attribute."""
    request = Request().gets(b"ok")
    request.span.tags = {"bomb": "[" * 50_000, "fine": "x"}
    request.span.set_attribute("bomb", '{"a":' * 50_000)
    record = request.record()
    assert record.tags == {"bomb": MARK, "fine": "x"}
    assert record.span is not None
    assert record.span.attributes == {"bomb": MARK}


def test_metadata_keeps_everything_but_bodies_and_headers() -> None:
    """And no code claims a loss; content on spans goes, too."""
    request = Request((b"x-request-id", b"abc")).asks(b'{"q":1}').gets(b'{"a":2}')
    for name in ("input.value", "gen_ai.input.messages", "mlflow.spanOutputs", "gen_ai.prompt.0.content"):
        request.span.set_attribute(name, "prompt")
    request.span.set_attribute("input.mime_type", "text/plain")
    record = request.record(content="metadata")
    assert (record.request, record.response, record.request_headers, record.response_headers) == (None, None, {}, {})
    assert (record.request_sha256, record.request_encoding) == (None, None)
    assert (record.request_bytes, record.client_request_id, record.response_content_type) == (
        7,
        "abc",
        "application/json",
    )
    assert record.logging_error_codes == []
    assert record.span is not None
    assert record.span.attributes == {"input.mime_type": "text/plain"}


def test_an_unread_request_says_so() -> None:
    """Not at all, or not to the end; a body that was read to its last byte is whole, whatever the server says."""
    length = (b"content-length", b"7")
    assert Request(length).gets(b"").record().logging_error_codes == ["REQUEST_NOT_READ"]
    chunked = Request((b"transfer-encoding", b"chunked"))
    assert chunked.gets(b"").record().logging_error_codes == ["REQUEST_NOT_READ"]
    half = Request(length).asks(b'{"q"', whole=False).gets(b"").record()
    assert (half.logging_error_codes, half.request) == (["REQUEST_NOT_READ"], '{"q"')
    assert Request(length).asks(b'{"q":1}', whole=False).gets(b"").record().logging_error_codes == []
    assert Request().gets(b"").record().logging_error_codes == []
    assert Request((b"content-length", b"0")).gets(b"").record().logging_error_codes == []


def test_a_half_answer_is_kept_and_marked() -> None:
    """By pattern and by name, because it cannot be parsed."""
    request = Request().gets(f'{{"a":1,"jwt":"{_SECRET}'.encode(), whole=False)
    request.capture.received({"type": "http.disconnect"})
    record = request.record()
    assert (record.end_reason, record.response) == ("client_disconnect", f'{{"a":1,"jwt":"{MARK}')
    assert record.logging_error_codes == ["RESPONSE_INCOMPLETE"]


def test_without_an_answer_there_is_no_response() -> None:
    """Null and not empty; an answer without a body is empty and not null."""
    request = Request()
    request.capture.failed("ValueError", "no")
    record = request.record()
    assert (record.status_code, record.response, record.response_encoding) == (500, None, None)
    assert (record.error_type, record.error_message) == ("ValueError", "no")
    assert Request().gets(status=204, headers=()).record().response == ""


def test_a_file_that_was_not_seen_is_no_empty_response() -> None:
    """Also where it has no declared length."""
    request = Request()
    request.capture.sent({"type": "http.response.start", "status": 200, "headers": []}, _clock)
    request.capture.sent({"type": "http.response.pathsend", "path": "/x"}, _clock)
    record = request.record()
    assert (record.response, record.response_sha256) == (None, None)
    assert record.logging_error_codes == ["RESPONSE_NOT_SEEN"]


def test_a_body_that_the_capture_let_go_has_one_code() -> None:
    """The capture's."""
    request = Request()
    request.asks(bytes(2 << 20)).gets(b"ok")
    record = request.record()
    assert (record.request, record.request_bytes) == (None, 2 << 20)
    assert record.logging_error_codes == ["REQUEST_OVER_CAPTURE_LIMIT"]


def test_the_span_is_there_only_where_it_was_sampled() -> None:
    """The row always is."""
    unsampled = Request((b"traceparent", _TRACEPARENT[:-1] + b"0")).gets(b"ok").record()
    assert unsampled.span is None
    assert unsampled.response == "ok"
    sampled = Request((b"host", b"h"), (b"traceparent", _TRACEPARENT), scheme="https", client=("1.2.3.4", 5))
    span = _assembler().record(sampled.gets(b"ok").exchange("/chat/{id}")).span
    assert span is not None
    assert (span.kind, span.span_id, span.parent_span_id) == ("SERVER", f"{7:016x}", "b7ad6b7169203331")
    assert (span.route, span.scheme, span.client, span.server) == ("/chat/{id}", "https", ["1.2.3.4", 5], None)
    assert span.headers == [["host", "h"]]
    assert span.attributes is None


def test_previews_are_made_only_where_a_span_can_show_them() -> None:
    """Where spans leave, and this one is sampled; else a body over the limit is not even read."""
    large = b'{"password":"hunter2","q":"' + b"q" * 20_000 + b'"}'
    shown = Request((b"traceparent", _TRACEPARENT)).asks(large).gets(b"ok").record(previews=True)
    assert shown.span is not None
    assert shown.span.previews == {"request": f'{{"password":"{MARK}","q":"{"q" * 20_000}'[:1000]}
    assert (shown.request, shown.logging_error_codes) == (None, ["REQUEST_OVER_INLINE_LIMIT"])
    for request, settings in (
        (Request((b"traceparent", _TRACEPARENT)), {}),
        (Request((b"traceparent", _TRACEPARENT[:-1] + b"0")), {"previews": True}),
        (Request((b"traceparent", _TRACEPARENT)), {"previews": True, "content": "metadata"}),
    ):
        record = request.asks(large).gets(b"ok").record(**settings)
        assert "hunter2" not in str(record.to_payload())
        assert "previews" not in str(record.to_payload())


def test_beside_a_foreign_span_ours_is_its_child() -> None:
    """The row takes the foreign ids; the span has an id of its own."""
    request = Request().gets(b"ok")
    request.span.ids = TraceIds(1, 2, 3, 1, "a=1", True, 9)
    record = request.record()
    assert (record.trace_id, record.span_id, record.parent_span_id) == (f"{1:032x}", f"{2:016x}", f"{3:016x}")
    assert record.span is not None
    assert (record.span.kind, record.span.span_id, record.span.parent_span_id) == ("INTERNAL", f"{9:016x}", f"{2:016x}")
    assert record.span.trace_state == "a=1"


def test_what_the_app_set_on_its_span_is_redacted() -> None:
    """Name, attributes, events with their names, links and status; types stay."""
    request = Request().gets(b"ok")
    span = request.span
    span.update_name(f"GET /?password={_SECRET}")
    span.set_attributes({"api_key": _SECRET, "n": 5, "list": [1, 2], "raw": f'{{"jwt":"{_SECRET}"}}'})
    span.set_attribute("odd", {"password": _SECRET})  # apps do
    span.add_event(f"token={_SECRET}", {"exception.message": f"secret: {_SECRET}"}, 5)
    span.set_status(StatusCode.ERROR, f"patient_id={_SECRET}")
    facts = request.record().span
    assert facts is not None
    assert _SECRET not in json.dumps(facts.to_payload())
    assert facts.attributes is not None
    assert (facts.attributes["n"], facts.attributes["list"], facts.attributes["api_key"]) == (5, [1, 2], MARK)
    assert facts.events is not None
    assert facts.events[0][1] == 5


def test_a_child_span_is_redacted() -> None:
    """And belongs to its request."""
    request = ServerSpan(_Sink(), TraceIds(1, 2, 3, 1, ""), None, 7 << 64, None, _AT_NS)
    child = ChildSpan(f"password={_SECRET}", request, request)
    child.set_inputs({"jwt": _SECRET, "q": 1})
    child.record_exception(ValueError(f"api_key={_SECRET}"))
    record = _assembler().span(child)
    assert record is not None
    assert _SECRET not in json.dumps(record.to_payload())
    assert json.loads(record.attributes["input.value"]) == {"jwt": MARK, "q": 1}
    assert record.request_id == Request().gets(b"").record().request_id
    bare = _assembler(content="metadata").span(child)
    assert bare is not None
    assert "input.value" not in bare.attributes
