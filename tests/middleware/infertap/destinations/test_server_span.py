"""The rendered server span: equal to the official instrumentation's where that is right, and never with a body."""

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from opentelemetry.instrumentation import _semconv, asgi
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from infertap.destinations import http_attributes
from infertap.destinations.server_span import ServerSpanRenderer
from infertap.record import InferenceRecord, ServerSpanFacts

HEADER = {"spool_id": "s1", "segment_no": 1, "infertap_version": "1.2.3", "resource": {}}
ADDED_BY_US = {"infertap.request_id", "http.response.body.size", "http.request.body.size"}
"""Attributes that the official instrumentation does not set and we do."""

SCOPES: dict[str, dict[str, Any]] = {
    "plain": {},
    "query": {"query_string": b"a=1&b=%20x"},
    "no query": {"query_string": b""},
    "lower-case method": {"method": "post"},
    "unknown method": {"method": "BREW"},
    "head": {"method": "HEAD"},
    "unix socket": {"server": ("/run/app.sock", None), "client": None},
    "no server": {"server": None},
    "port 80": {"server": ("example.com", 80)},
    "https and http/2": {"scheme": "https", "http_version": "2", "server": ("10.0.0.1", 443)},
    "ipv6": {"server": ("::1", 8000), "client": ("2001:db8::1", 5)},
    "mounted": {"root_path": "/api", "path": "/api/v1/predict"},
    "path beyond ascii": {"path": "/v1/größe"},
    "no headers": {"headers": []},
    "user agent of a bot": {"headers": [(b"user-agent", b"Googlebot/2.1")]},
    "repeated header": {"headers": [(b"x-a", b"1"), (b"x-a", b"2"), (b"host", b"h:1")]},
}


def scope_of(changes: Mapping[str, Any]) -> dict[str, Any]:
    """An ASGI scope as a server makes it."""
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "method": "POST",
        "path": "/v1/predict",
        "raw_path": b"/v1/predict",
        "query_string": b"k=v",
        "http_version": "1.1",
        "scheme": "http",
        "root_path": "",
        "headers": [(b"host", b"model:8000"), (b"user-agent", b"curl/8"), (b"x-team", b"red"), (b"x-token", b"t0p")],
        "client": ("10.1.2.3", 4711),
        "server": ("127.0.0.1", 8000),
        **changes,
    }


def payload_of(scope: Mapping[str, Any], **columns: Any) -> dict[str, Any]:
    """The REQUEST payload that the worker would have spooled for this scope."""
    span = ServerSpanFacts(
        kind="SERVER",
        span_id="00f067aa0ba902b7",
        parent_span_id=None,
        trace_state="",
        trace_flags=1,
        http_version=scope["http_version"],
        scheme=scope["scheme"],
        root_path=scope["root_path"],
        server=list(scope["server"]) if scope["server"] else None,
        client=list(scope["client"]) if scope["client"] else None,
        headers=[[name.decode(), value.decode()] for name, value in scope["headers"]],
        response_headers=[["content-type", "application/json"], ["x-model", "m7"]],
    )
    facts = {name: columns.pop(name) for name in list(columns) if name in ServerSpanFacts.__dataclass_fields__}
    record = InferenceRecord(
        request_id="0190a1b2-0000-7000-8000-000000000001",
        request_time=1_700_000_000_000_001,
        trace_id="4bf92f3577b34da6a3ce929d0e0e4736",
        span_id="00f067aa0ba902b7",
        method=scope["method"],
        path=scope["path"],
        query=scope["query_string"].decode() or None,
        duration_ns=5_000_000,
        span=replace(span, **facts),
    )
    return replace(record, **{"status_code": 200, **columns}).to_payload()


def official_span(scope: dict[str, Any], status: int | None, error: Exception | None = None) -> ReadableSpan:
    """The SERVER span that OpenTelemetryMiddleware makes for an app that answers `status`, then raises `error`."""

    async def app(_scope: Any, receive: Any, send: Any) -> None:
        if status is not None:
            headers = [(b"content-type", b"application/json"), (b"x-model", b"m7")]
            await send({"type": "http.response.start", "status": status, "headers": headers})
        if error is not None:
            raise error
        await send({"type": "http.response.body", "body": b"{}"})

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        return None

    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    middleware = asgi.OpenTelemetryMiddleware(app, tracer_provider=provider, exclude_spans=["send", "receive"])
    with contextlib.suppress(RuntimeError) if error else contextlib.nullcontext():
        asyncio.run(middleware(scope, receive, send))
    (span,) = exporter.get_finished_spans()
    return span


@pytest.fixture
def semconv(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Sets OTEL_SEMCONV_STABILITY_OPT_IN for the official code, which reads it once per process."""

    def set_mode(value: str) -> None:
        monkeypatch.setenv("OTEL_SEMCONV_STABILITY_OPT_IN", value)
        monkeypatch.setattr(_semconv._OpenTelemetrySemanticConventionStability, "_initialized", False)
        monkeypatch.setattr(
            _semconv._OpenTelemetrySemanticConventionStability, "_OTEL_SEMCONV_STABILITY_SIGNAL_MAPPING", {}
        )

    return set_mode


def plain(attributes: Mapping[str, Any] | None) -> dict[str, Any]:
    """Attributes with sequences as lists, because the SDK freezes them into tuples."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in (attributes or {}).items()}


def _right_address(official: ReadableSpan, scope: Mapping[str, Any]) -> dict[str, Any]:
    """The official attributes without the bug of `test_known_bug_port_in_the_server_address`."""
    server = scope["server"]
    return plain(official.attributes) | ({"server.address": server[0]} if server else {})


@pytest.mark.parametrize("mode", ["http", "http/dup"])
@pytest.mark.parametrize("case", SCOPES)
@pytest.mark.parametrize("status", [200, 404, 503])
def test_equals_the_official_span(semconv: Any, mode: str, case: str, status: int) -> None:
    """Name, attributes and status are those of OpenTelemetryMiddleware on the same scope."""
    semconv(mode)
    scope = scope_of(SCOPES[case])
    official = official_span(dict(scope), status)
    span = ServerSpanRenderer({"OTEL_SEMCONV_STABILITY_OPT_IN": mode}).render(
        payload_of(scope, status_code=status), HEADER
    )
    ours = {name: value for name, value in span.attributes.items() if name not in ADDED_BY_US}
    assert ours == _right_address(official, scope)
    assert span.name == official.name
    assert (span.status or ["UNSET", None]) == [official.status.status_code.name, official.status.description]
    assert span.kind == official.kind.name


@pytest.mark.parametrize("case", SCOPES)
def test_own_lines_equal_the_official_ones(semconv: Any, case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the official functions are missing, our own give the same stable attributes (synthetic agents aside)."""
    semconv("http")
    scope = scope_of(SCOPES[case])
    official = _right_address(official_span(dict(scope), 503), scope)
    official.pop("user_agent.synthetic.type", None)
    monkeypatch.delattr(asgi, "collect_request_attributes")
    span = ServerSpanRenderer({}).render(payload_of(scope, status_code=503), HEADER)
    assert {name: value for name, value in span.attributes.items() if name not in ADDED_BY_US} == official


def test_stable_names_are_the_default() -> None:
    """Without OTEL_SEMCONV_STABILITY_OPT_IN, or with one that is not about HTTP, the stable names are used."""
    for environ in ({}, {"OTEL_SEMCONV_STABILITY_OPT_IN": "database"}):
        attributes = ServerSpanRenderer(environ).render(payload_of(scope_of({})), HEADER).attributes
        assert attributes["http.request.method"] == "POST"
        assert "http.method" not in attributes


def test_captured_headers_equal_the_official_ones(semconv: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_* add the same attributes, sanitized fields included."""
    semconv("http")
    environ = {
        "OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SERVER_REQUEST": "x-team, x-t.*",
        "OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SERVER_RESPONSE": "x-model",
        "OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SANITIZE_FIELDS": "x-token",
    }
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    scope = scope_of({})
    official = _right_address(official_span(dict(scope), 200), scope)
    span = ServerSpanRenderer(environ).render(payload_of(scope), HEADER)
    assert {name: value for name, value in span.attributes.items() if name not in ADDED_BY_US} == official
    assert span.attributes["http.request.header.x_token"] == ["[REDACTED]"]


@pytest.mark.parametrize(
    ("server", "theirs"), [(("10.0.0.1", 8000), "10.0.0.1:8000"), (("/run/app.sock", None), "/run/app.sock:None")]
)
def test_known_bug_port_in_the_server_address(semconv: Any, server: Any, theirs: str) -> None:
    """Official: the port stands in `server.address`, too; ours has the host there, as the conventions say."""
    semconv("http")
    scope = scope_of({"server": server})
    assert (official_span(dict(scope), 200).attributes or {})["server.address"] == theirs
    attributes = ServerSpanRenderer({}).render(payload_of(scope), HEADER).attributes
    assert attributes["server.address"] == server[0]
    assert attributes.get("server.port") == server[1]


def test_known_bug_query_that_is_not_utf8(semconv: Any) -> None:
    """Official: the app's request fails with UnicodeDecodeError; ours keeps what is left of the query."""
    semconv("http")
    with pytest.raises(UnicodeDecodeError):
        official_span(scope_of({"query_string": b"\xff"}), 200)
    request = {**payload_of(scope_of({})), "query": "\ufffd"}
    assert ServerSpanRenderer({}).render(request, HEADER).attributes["url.query"] == "\ufffd"


def test_known_bug_exception_without_a_status(semconv: Any) -> None:
    """Official: neither status code nor error.type; ours has both, because the server did answer 500."""
    semconv("http")
    official = official_span(scope_of({}), None, RuntimeError("no weights"))
    assert "http.response.status_code" not in (official.attributes or {})
    request = payload_of(
        scope_of({}), status_code=500, end_reason="app_error", error_type="RuntimeError", error_message="no weights"
    )
    span = ServerSpanRenderer({}).render(request, HEADER)
    assert span.attributes["http.response.status_code"] == 500
    assert span.attributes["error.type"] == "500"
    assert span.status == ["ERROR", official.status.description]
    (event,) = span.events
    seen = official.events[0].attributes or {}
    assert event[2] == {name: seen[name] for name in ("exception.type", "exception.message")}


def test_known_bug_exception_in_a_started_answer(semconv: Any) -> None:
    """Official: 200 and ERROR without error.type; ours names the exception's class."""
    semconv("http")
    official = official_span(scope_of({}), 200, RuntimeError("broken pipe"))
    assert "error.type" not in (official.attributes or {})
    request = payload_of(scope_of({}), end_reason="app_error", error_type="app.Broken", error_message="broken pipe")
    span = ServerSpanRenderer({}).render(request, HEADER)
    assert span.attributes["http.response.status_code"] == 200
    assert span.attributes["error.type"] == "app.Broken"
    assert span.status == ["ERROR", "Broken: broken pipe"]


def test_route_makes_the_name() -> None:
    """A known route gives `POST /items/{id}` and http.route, as the FastAPI instrumentation does."""
    span = ServerSpanRenderer({}).render(payload_of(scope_of({}), route="/items/{id}"), HEADER)
    assert (span.name, span.attributes["http.route"]) == ("POST /items/{id}", "/items/{id}")


def test_what_the_app_set_is_on_the_span() -> None:
    """Attributes keep their types; events, links, name and status of the light span are taken over."""
    link = ["4bf92f3577b34da6a3ce929d0e0e4737", "00f067aa0ba902b8", 1, {"a": 1}]
    request = payload_of(
        scope_of({}),
        name="rank",
        attributes={"n": 3, "flags": [True, False], "url.path": "/mine"},
        events=[["cache.miss", 1_700_000_000_000_000_500, {"n": 1}]],
        links=[link],
        status=["ERROR", "low confidence"],
    )
    span = ServerSpanRenderer({}).render(request, HEADER)
    assert span.name == "rank"
    assert (span.attributes["n"], span.attributes["flags"], span.attributes["url.path"]) == (3, [True, False], "/mine")
    assert span.events == [["cache.miss", 1_700_000_000_000_000_500, {"n": 1}]]
    assert span.links == [link]
    assert span.status == ["ERROR", "low confidence"]


def test_status_of_the_app_wins_over_the_answer() -> None:
    """An explicit OK stays OK where the answer says 503."""
    span = ServerSpanRenderer({}).render(payload_of(scope_of({}), status_code=503, status=["OK", None]), HEADER)
    assert span.status == ["OK", None]


def test_recorded_exception_is_not_doubled() -> None:
    """An exception that the app has recorded by itself gives one event."""
    event = ["exception", 5, {"exception.type": "app.Broken", "exception.message": "x"}]
    request = payload_of(
        scope_of({}), end_reason="app_error", error_type="app.Broken", error_message="x", events=[event]
    )
    assert ServerSpanRenderer({}).render(request, HEADER).events == [event]


def test_error_object_of_an_answer_is_no_exception() -> None:
    """An `error_type` that the model server sent in a complete answer gives no exception event."""
    request = payload_of(scope_of({}), status_code=400, error_type="invalid_request_error")
    span = ServerSpanRenderer({}).render(request, HEADER)
    assert (span.events, span.status) == ([], None)


def test_client_gone_before_a_status() -> None:
    """The row's 499 is not on the span, because nobody sent it; how it ended is."""
    request = payload_of(scope_of({}), status_code=499, end_reason="client_disconnect")
    attributes = ServerSpanRenderer({}).render(request, HEADER).attributes
    assert "http.response.status_code" not in attributes
    assert attributes["infertap.end_reason"] == "client_disconnect"


def test_facts_of_the_row_go_along() -> None:
    """Request id, tags and sizes are attributes; ids, times and scope come from frame and header."""
    request = payload_of(scope_of({}), tags={"arm": "b"}, request_bytes=12, response_bytes=9, requester="team-a")
    span = ServerSpanRenderer({}).render(request, HEADER)
    assert span.attributes["infertap.tag.arm"] == "b"
    assert span.attributes["infertap.requester"] == "team-a"
    assert (span.attributes["http.request.body.size"], span.attributes["http.response.body.size"]) == (12, 9)
    assert span.attributes["infertap.request_id"] == span.request_id == request["request_id"]
    assert (span.start_ns, span.end_ns) == (1_700_000_000_000_001_000, 1_700_000_000_005_001_000)
    assert (span.scope_name, span.scope_version) == ("infertap", "1.2.3")


def test_joined_span_is_an_internal_child() -> None:
    """A record that joined a foreign span goes out under its own id, below the foreign one."""
    request = payload_of(scope_of({}), kind="INTERNAL", span_id="aaaaaaaaaaaaaaaa", parent_span_id="00f067aa0ba902b7")
    span = ServerSpanRenderer({}).render(request, HEADER)
    assert (span.kind, span.span_id, span.parent_span_id) == ("INTERNAL", "aaaaaaaaaaaaaaaa", "00f067aa0ba902b7")


def test_bodies_never_are_part_of_the_span() -> None:
    """No attribute of the rendered span holds a body."""
    request = payload_of(scope_of({}), request="prompt-7f3a", response="answer-7f3a")
    assert "7f3a" not in repr(ServerSpanRenderer({}).render(request, HEADER))


def test_what_was_rendered_before_leaves_nothing_behind() -> None:
    """Requests that share what the renderer remembers of them get their own client and attributes all the same."""
    renderer = ServerSpanRenderer({})
    first = renderer.render(payload_of(scope_of({}), attributes={"team": "red"}, status_code=503), HEADER)
    other_client = renderer.render(payload_of(scope_of({"client": ("10.9.9.9", 12)})), HEADER)
    no_client = renderer.render(payload_of(scope_of({"client": None})), HEADER)
    again = renderer.render(payload_of(scope_of({})), HEADER)
    assert first.attributes["team"] == "red"
    assert (first.attributes["client.address"], first.attributes["client.port"]) == ("10.1.2.3", 4711)
    assert (other_client.attributes["client.address"], other_client.attributes["client.port"]) == ("10.9.9.9", 12)
    assert not {"client.address", "team", "error.type"} & no_client.attributes.keys()
    assert again.attributes == ServerSpanRenderer({}).render(payload_of(scope_of({})), HEADER).attributes


def test_shim_takes_the_official_functions() -> None:
    """With the installed version the official functions are in use: our own lines know no old names."""
    shim = http_attributes.HttpAttributes({"OTEL_SEMCONV_STABILITY_OPT_IN": "http/dup"})
    assert shim.of_request({"method": "GET", "path": "/"})["http.method"] == "GET"
    assert shim.of_status(503).attributes["http.status_code"] == 503
