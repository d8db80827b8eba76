"""`InferenceMiddleware` around apps of every kind, with a real pipeline and a real spool that is read afterwards."""

import asyncio
import contextlib
import contextvars
import time
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

from infertap import Config, InferenceMiddleware, annotate, start_span
from infertap.spool.page import BACKGROUND_FAILURES
from infertap.spool.reader import read_segment

Message = MutableMapping[str, Any]
_TRACEPARENT = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Client:
    """A server's side of one request: what it gives, what it got, how the app ended."""

    def __init__(self, *messages: Message, broken_after: int | None = None) -> None:
        self._messages = iter(messages or ({"type": "http.request", "body": b'{"q":1}'},))
        self._broken_after = broken_after
        self.sent: list[Message] = []

    async def receive(self) -> Message:
        return next(self._messages, {"type": "http.disconnect"})

    async def send(self, message: Message) -> None:
        if self._broken_after is not None and len(self.sent) >= self._broken_after:
            raise ConnectionResetError("the client has gone")
        self.sent.append(message)


class Recording:
    """An app behind the middleware; `rows` and `spans` are what the spool held after the stop."""

    def __init__(self, app: Any, folder: Path, **settings: Any) -> None:
        self._folder = folder
        config = Config(tables=str(folder / "tables"), destination="table", drainer="external", drain_s=0, **settings)
        self.middleware = InferenceMiddleware(app, config=config)
        self.rows: list[dict[str, Any]] = []
        self.spans: list[dict[str, Any]] = []
        self.lost: dict[str, int] = {}

    def request(self, client: Client | None = None, *headers: tuple[bytes, bytes], **scope: Any) -> Client:
        client = client or Client()
        full = {"type": "http", "method": "POST", "path": "/x", "query_string": b"", "headers": list(headers), **scope}
        asyncio.run(self.middleware(full, client.receive, client.send))
        return client

    def stop(self) -> None:
        pipeline = self.middleware.pipeline
        if pipeline is not None:
            pipeline.wait_ready()
            pipeline.stop()
            assert pipeline.budget.held == 0
        for path in sorted(self._folder.glob("tables/.spool/*/slots/*/*.seg")):
            segment = read_segment(path)
            self.rows += segment.requests
            self.spans += segment.spans
            for minutes in segment.ledger:
                for counts in minutes["minutes"].values():
                    self.lost.update({key: count for key, count in counts.items() if key.startswith("lost/")})


@pytest.fixture
def recording(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """`with recording(app, **settings) as it:` sends requests; afterwards `it.rows` and `it.spans` are filled."""
    monkeypatch.chdir(tmp_path)

    @contextmanager
    def record(app: Any, **settings: Any) -> Iterator[Recording]:
        it = Recording(app, tmp_path, **settings)
        yield it
        it.stop()

    return record


async def _plain(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": b'{"a":2}'})


def test_an_exchange_passes_untouched_and_is_a_row(recording: Any) -> None:
    """Messages reach both sides as the very same objects."""
    start = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]}
    body = {"type": "http.response.body", "body": b"answer"}
    given: list[Message] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        given.append(await receive())
        await send(start)
        await send(body)

    question = {"type": "http.request", "body": b"ask"}
    with recording(app) as it:
        client = it.request(Client(question), (b"content-type", b"text/plain"))
    assert given[0] is question
    assert client.sent[0] is start
    assert client.sent[1] is body
    (row,) = it.rows
    assert (row["request"], row["response"], row["status_code"], row["sequence_no"]) == ("ask", "answer", 200, 1)
    assert row["end_reason"] == "complete"


def test_headers_are_those_of_the_arrival(recording: Any) -> None:
    """Some middlewares change the scope's list in place."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scope["headers"].append((b"x-request-id", b"added"))
        await _plain(scope, receive, send)

    with recording(app) as it:
        it.request(Client({"type": "http.request", "body": b"{}"}), (b"content-type", b"application/json"))
    (row,) = it.rows
    assert "client_request_id" not in row
    assert row["request_headers"] == {"content-type": "application/json"}


@pytest.mark.parametrize("status", [199, 200, 404, 499, 500, 503])
def test_an_exchange_is_one_row_whatever_its_status(recording: Any, status: int) -> None:
    """A 500 waits for the app's return; it is submitted once all the same."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b"x"})

    with recording(app) as it:
        it.request()
        it.request()
    assert [row["status_code"] for row in it.rows] == [status, status]
    assert [row["sequence_no"] for row in it.rows] == [1, 2]


@pytest.mark.parametrize(
    "late",
    [
        {"type": "http.response.body", "body": b"late"},
        {"type": "http.response.trailers", "headers": []},
        {"type": "http.response.pathsend", "path": "/x"},
        {"type": "http.response.start", "status": 500, "headers": []},
        {"type": "something.else"},
    ],
)
def test_what_is_sent_after_the_end_reaches_the_server_and_no_second_row(recording: Any, late: Message) -> None:
    """Whether that is an error is the server's to say."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await _plain(scope, receive, send)
        await send(late)

    with recording(app) as it:
        client = it.request()
    assert client.sent[-1] is late
    assert [(row["status_code"], row["response"]) for row in it.rows] == [(200, '{"a":2}')]


def test_an_exception_passes_and_is_a_row(recording: Any) -> None:
    """Before the first byte it is a 500 without an answer; after it the status stays; after Starlette's 500 both."""

    class ModelError(Exception):
        pass

    async def app(scope: Any, receive: Any, send: Any) -> None:
        steps = int(scope["path"][1:])
        if steps >= 1:
            await send({"type": "http.response.start", "status": 500 if steps == 2 else 200, "headers": []})
        if steps == 2:
            await send({"type": "http.response.body", "body": b"Internal Server Error"})
        raise ModelError("password=hunter2")

    with recording(app) as it:
        for steps in range(3):
            with pytest.raises(ModelError):
                it.request(path=f"/{steps}")
    assert [row["status_code"] for row in it.rows] == [500, 200, 500]
    assert [row.get("response") for row in it.rows] == [None, "", "Internal Server Error"]
    assert {row["end_reason"] for row in it.rows} == {"app_error"}
    for row in it.rows:
        assert row["error_type"].endswith("ModelError")
        assert row["error_message"] == "password=[REDACTED]"


def test_a_secret_longer_than_an_errors_column_leaves_nothing_in_it(recording: Any) -> None:
    """It is known by its end, which stands far behind the place where the text is cut."""
    key = f"-----BEGIN PRIVATE KEY-----{'hunter2' * 1_000}-----END PRIVATE KEY-----"

    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise ValueError(f"no: {key} {'x' * 100_000}")

    with recording(app) as it, pytest.raises(ValueError, match="no"):
        it.request()
    (row,) = it.rows
    assert row["error_message"] == "no: [REDACTED][REDACTED]"


def test_an_exception_that_cannot_be_printed_is_a_row(recording: Any) -> None:
    """And it is the app's own one that the server sees."""

    class UnprintableError(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise UnprintableError

    with recording(app) as it, pytest.raises(UnprintableError):
        it.request()
    assert [row["end_reason"] for row in it.rows] == ["app_error"]


def test_an_error_in_a_background_task_does_not_change_the_row(recording: Any) -> None:
    """The answer was complete; the failure is counted."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await _plain(scope, receive, send)
        raise RuntimeError("later")

    with recording(app) as it:
        with pytest.raises(RuntimeError, match="later"):
            it.request()
        assert it.middleware.pipeline is not None
        assert it.middleware.pipeline.worker.counters[BACKGROUND_FAILURES] == 1
    assert [(row["end_reason"], row.get("error_type")) for row in it.rows] == [("complete", None)]


@pytest.mark.parametrize("broken_after", [0, 1, 2])
def test_a_client_that_leaves_is_a_row(recording: Any, broken_after: int) -> None:
    """Where `send` raises, the chunk that failed did not complete anything."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"one", "more_body": True})
        await send({"type": "http.response.body", "body": b"two"})

    with recording(app) as it, pytest.raises(ConnectionResetError):
        it.request(Client(broken_after=broken_after))
    assert [row["end_reason"] for row in it.rows] == ["client_disconnect"]


def test_a_cancelled_request_is_a_row(recording: Any) -> None:
    """Which says that the app did not fail by itself; and the cancellation passes."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise asyncio.CancelledError

    with recording(app) as it, pytest.raises(asyncio.CancelledError):
        it.request()
    (row,) = it.rows
    assert (row["error_type"], row["error_message"].split(":")[0]) == ("CancelledError", "cancelled")


def test_an_app_that_sends_nothing_is_a_row(recording: Any) -> None:
    """The server answers 500 in its place."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        return

    with recording(app) as it:
        it.request()
    assert [(row["status_code"], row["error_type"]) for row in it.rows] == [(500, "IncompleteResponse")]


@pytest.mark.parametrize("kind", ["websocket", "something"])
def test_other_scopes_pass_untouched(recording: Any, kind: str) -> None:
    """Not even their callables are wrapped."""
    seen: list[Any] = []

    async def app(*arguments: Any) -> None:
        seen.extend(arguments)

    with recording(app) as it:
        client = Client()
        scope = {"type": kind}
        receive, send = client.receive, client.send
        asyncio.run(it.middleware(scope, receive, send))
        assert seen[0] is scope
        assert seen[1:] == [receive, send]
        assert scope == {"type": kind}
        assert it.middleware.pipeline is None
    assert it.rows == []


def test_excluded_paths_are_neither_seen_nor_recorded(recording: Any) -> None:
    """Health checks are no inference."""
    with recording(_plain) as it:
        it.request(path="/health")
        it.request(path="/x")
    assert [row["path"] for row in it.rows] == ["/x"]


def test_the_rows_id_can_be_told_to_the_caller(recording: Any) -> None:
    """In the header that was asked for; the app's own message is not changed."""
    headers = [(b"a", b"b")]
    start = {"type": "http.response.start", "status": 200, "headers": headers}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(start)
        await send({"type": "http.response.body"})

    with recording(app, request_id_header="X-Infertap-Request-Id") as it:
        client = it.request()
    assert headers == [(b"a", b"b")]
    (row,) = it.rows
    assert client.sent[0]["headers"] == [(b"a", b"b"), (b"x-infertap-request-id", row["request_id"].encode())]


def test_headers_given_as_an_iterator_reach_the_server(recording: Any) -> None:
    """ASGI allows any iterable."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": iter([(b"etag", b"y")])})
        await send({"type": "http.response.body"})

    with recording(app) as it:
        client = it.request()
    assert list(client.sent[0]["headers"]) == [(b"etag", b"y")]
    assert it.rows[0]["response_headers"] == {"etag": "y"}


@pytest.mark.parametrize(
    "message",
    [
        {"type": "http.response.start"},
        {"type": "http.response.start", "status": 200, "headers": 5},
        {"type": "http.response.body", "body": 5},
        {},
    ],
)
def test_messages_that_are_not_asgi_are_the_servers_to_refuse(recording: Any, message: Message) -> None:
    """They pass, and the exchange still becomes a row."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(message)

    with recording(app) as it:
        client = it.request()
    assert client.sent == [message]
    assert len(it.rows) == 1


def test_the_server_span_is_current_in_the_app_and_gone_after_it(recording: Any) -> None:
    """Children nest under it, tags and attributes are kept, and no context leaks."""
    seen: list[SpanContext] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(trace.get_current_span().get_span_context())
        annotate(arm=2)
        trace.get_current_span().set_attribute("k", "v")
        with start_span("child"):
            pass
        await _plain(scope, receive, send)

    before = otel_context.get_current()
    with recording(app) as it:
        it.request(None, (b"traceparent", _TRACEPARENT))
    assert otel_context.get_current() == before
    (row,) = it.rows
    (child,) = it.spans
    assert row["trace_id"] == child["trace_id"] == f"{seen[0].trace_id:032x}" == "0af7651916cd43dd8448eb211c80319c"
    assert row["span_id"] == child["parent_span_id"] == f"{seen[0].span_id:016x}"
    assert (row["parent_span_id"], row["tags"], row["request_id"]) == (
        "b7ad6b7169203331",
        {"arm": "2"},
        child["request_id"],
    )
    assert row["span"]["attributes"] == {"k": "v"}


def test_a_current_span_of_somebody_else_stays_current(recording: Any) -> None:
    """The row takes its ids, and ours goes out as its child."""
    outer = NonRecordingSpan(SpanContext(5, 6, is_remote=False, trace_flags=TraceFlags(1)))
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(trace.get_current_span())
        await _plain(scope, receive, send)

    with recording(app) as it, trace.use_span(outer):
        it.request()
    assert seen == [outer]
    (row,) = it.rows
    assert (row["trace_id"], row["span_id"]) == (f"{5:032x}", f"{6:016x}")
    assert (row["span"]["kind"], row["span"]["parent_span_id"]) == ("INTERNAL", f"{6:016x}")


def _scope(path: str, *headers: tuple[bytes, bytes]) -> Message:
    return {"type": "http", "method": "GET", "path": path, "query_string": b"", "headers": list(headers)}


@pytest.mark.parametrize("between", [False, True], ids=["directly", "below-a-span-of-others"])
def test_a_request_from_inside_another_one_is_a_request_of_its_own(recording: Any, between: bool) -> None:
    """An app that calls an app in its own process: a row and a SERVER span each, the inner below what was current."""
    others = NonRecordingSpan(SpanContext(5, 6, is_remote=False, trace_flags=TraceFlags(1)))
    current: list[SpanContext] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/outer":
            with trace.use_span(others) if between else contextlib.nullcontext():
                current.append(trace.get_current_span().get_span_context())
                client = Client()
                await it.middleware(_scope("/inner"), client.receive, client.send)
                await it.middleware(_scope("/told", (b"traceparent", _TRACEPARENT)), client.receive, client.send)
        current.append(trace.get_current_span().get_span_context())
        await _plain(scope, receive, send)

    with recording(app) as it:
        it.request(path="/outer")
    rows = {row["path"]: row for row in it.rows}
    assert len(rows) == 3
    assert {row["span"]["kind"] for row in it.rows} == {"SERVER"}
    inner = rows["/inner"]
    assert (inner["trace_id"], inner["parent_span_id"]) == (f"{current[0].trace_id:032x}", f"{current[0].span_id:016x}")
    assert (inner["trace_id"], inner["span_id"]) == (f"{current[1].trace_id:032x}", f"{current[1].span_id:016x}")
    told = (rows["/told"]["trace_id"], rows["/told"]["parent_span_id"])
    assert told == ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331")


@pytest.mark.parametrize("status", [200, 500])
def test_the_next_request_of_a_pipeline_has_nothing_of_the_one_before(recording: Any, status: int) -> None:
    """uvicorn begins it in the context in which the answer to the one before was completed."""
    left: list[contextvars.Context] = []
    seen: list[bool] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        with start_span("child"):
            pass
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b"x"})
        if not left:
            left.append(contextvars.copy_context())
            client = Client()
            following = it.middleware(_scope("/second"), client.receive, client.send)
            await asyncio.get_running_loop().create_task(following, context=left[0])
        else:
            seen.append(trace.get_current_span().get_span_context().is_valid)

    with recording(app) as it:
        it.request(path="/first")
    rows = {row["path"]: row for row in it.rows}
    assert seen == [True]
    assert "parent_span_id" not in rows["/second"]
    assert rows["/first"]["trace_id"] != rows["/second"]["trace_id"]
    assert {span["parent_span_id"] for span in it.spans} == {row["span_id"] for row in it.rows}


def test_an_excluded_url_in_a_pipeline_has_nothing_of_the_one_before(
    recording: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No span is current there, not even the one that was left."""
    monkeypatch.setenv("OTEL_PYTHON_EXCLUDED_URLS", "quiet")
    left: list[contextvars.Context] = []
    seen: list[bool] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        left.append(contextvars.copy_context())
        seen.append(trace.get_current_span().get_span_context().is_valid)
        await _plain(scope, receive, send)

    with recording(app) as it:
        it.request(path="/first")
        client = Client()
        left[0].run(asyncio.run, it.middleware(_scope("/quiet"), client.receive, client.send))
    assert seen == [True, False]


@pytest.mark.parametrize("status", ["200", "503", HTTPStatus.CREATED])
def test_a_status_that_is_no_plain_number_is_read_as_one(recording: Any, status: Any) -> None:
    """Nothing of ours is raised in the app for it."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": status, "headers": [("x-text", "yes")]})
        await send({"type": "http.response.body", "body": b"x"})

    with recording(app, capture_headers=["x-text"]) as it:
        client = it.request()
    assert client.sent[0]["status"] is status
    (row,) = it.rows
    assert (row["status_code"], row["response_headers"]) == (int(status), {"x-text": "yes"})


@pytest.mark.parametrize("touched", [False, True])
def test_excluded_urls_drop_the_span_and_never_the_row(
    recording: Any, monkeypatch: pytest.MonkeyPatch, touched: bool
) -> None:
    """`OTEL_PYTHON_EXCLUDED_URLS`, whether or not the app asks for its context."""
    monkeypatch.setenv("OTEL_PYTHON_EXCLUDED_URLS", "quiet")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if touched:
            annotate(x=1)
            with start_span("child"):
                pass
        await _plain(scope, receive, send)

    with recording(app) as it:
        it.request(path="/quiet")
        it.request(path="/loud")
    assert [(row["path"], "span" in row) for row in it.rows] == [("/quiet", False), ("/loud", True)]


def test_two_of_us_make_one_row_each_and_one_server_span(recording: Any, tmp_path: Path) -> None:
    """The inner one finds the outer one's span."""
    inner_config = Config(tables=str(tmp_path / "inner"), destination="table", drainer="external", drain_s=0)
    inner = InferenceMiddleware(_plain, config=inner_config)
    with recording(inner) as it:
        it.request()
        assert inner.pipeline is not None
        inner.pipeline.wait_ready()
        inner.pipeline.stop()
    rows = [row for path in tmp_path.glob("inner/.spool/*/slots/*/*.seg") for row in read_segment(path).requests]
    assert [row["span"]["kind"] for row in (*it.rows, *rows)] == ["SERVER", "INTERNAL"]
    assert rows[0]["trace_id"] == it.rows[0]["trace_id"]


def test_wrong_settings_without_lifespan_pass_traffic(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One ERROR, at the first request."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("INFERTAP_DESTINATION", "nowhere")
    middleware = InferenceMiddleware(_plain)
    for _ in range(2):
        client = Client()
        scope = {"type": "http", "method": "GET", "path": "/x", "headers": []}
        asyncio.run(middleware(scope, client.receive, client.send))
        assert len(client.sent) == 2
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert list(tmp_path.iterdir()) == []


class _OddRoute:
    @property
    def path(self) -> str:
        raise ValueError("no path")


async def _with_odd_route(scope: Any, receive: Any, send: Any) -> None:
    scope["route"] = _OddRoute()
    await _plain(scope, receive, send)


async def _with_odd_outcome(scope: Any, receive: Any, _send: Any) -> None:
    scope["infertap.outcome"] = ("too", "short")
    await receive()
    raise ValueError("after it")


async def _with_odd_header(_scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x", None)]})
    await send({"type": "http.response.body", "body": b"fine"})


@pytest.mark.parametrize("app", [_with_odd_route, _with_odd_outcome, _with_odd_header])
def test_what_cannot_be_captured_holds_no_memory(recording: Any, app: Any) -> None:
    """What we cannot read of an app costs rows, counted, and no byte of the budget (`stop` looks)."""
    with recording(app) as it:
        for _ in range(20):
            with contextlib.suppress(ValueError):
                it.request(Client({"type": "http.request", "body": bytes(100_000)}))
    assert len(it.rows) + it.lost.get("lost/capture_error", 0) == 20


def test_with_a_full_budget_every_exchange_is_a_row_or_a_counted_loss(recording: Any) -> None:
    """Bodies that did not fit have their code, and nothing is held afterwards."""
    with recording(_plain, queue_bytes_max="16KiB") as it:
        held: list[Awaitable[None]] = []

        async def slow(scope: Any, receive: Any, send: Any) -> None:
            await receive()
            await asyncio.sleep(0)
            await _plain(scope, receive, send)

        it.middleware.app = slow

        async def many() -> None:
            for number in range(8):
                client = Client({"type": "http.request", "body": bytes([65 + number]) * 4_000})
                scope = {"type": "http", "method": "POST", "path": "/x", "headers": [(b"content-type", b"text/plain")]}
                held.append(it.middleware(scope, client.receive, client.send))
            await asyncio.gather(*held)

        asyncio.run(many())
    assert len(it.rows) + it.lost.get("lost/queue_full", 0) == 8
    over = [row for row in it.rows if "REQUEST_OVER_BUDGET" in row.get("logging_error_codes", [])]
    kept = [row for row in it.rows if row.get("request")]
    assert len(over) + len(kept) == len(it.rows)
    assert len(kept) <= 2


def test_a_queue_that_never_runs_empty_holds_up_no_tick(recording: Any) -> None:
    """The worker looks after the drainer, its beat and the spool's room also while more comes than it can take."""
    body = b'{"rows": [' + b", ".join([b'{"a": "b", "c": [1, 2, 3]}'] * 4_000) + b"]}"
    waiting: list[int] = []
    with recording(_plain, queue_bytes_max="4MiB") as it:
        it.request()
        pipeline = it.middleware.pipeline
        pipeline.wait_ready()
        look_after = pipeline.worker.delivery.tick

        def tick() -> None:
            waiting.append(len(pipeline.inbox.queue))
            look_after()

        pipeline.worker.delivery.tick = tick
        deadline_s = time.monotonic() + 60
        while sum(length > 5 for length in waiting) < 2 and time.monotonic() < deadline_s:
            it.request(Client({"type": "http.request", "body": body}), (b"content-type", b"application/json"))
    assert sum(length > 5 for length in waiting) >= 2
