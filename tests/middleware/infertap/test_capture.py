"""Capture: dialogues of ASGI messages in, one `Exchange` out."""

from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infertap.capture import (
    FIRST_GRANT_BYTES,
    GRANT_BYTES,
    RECORD_BYTES,
    ByteBudget,
    Capture,
    CaptureLimits,
    chunks_bytes,
    opened,
    snapshot,
)
from infertap.record import FIELD_CHARACTERS_MAX, HEADERS_MAX, Exchange
from infertap.sizes import header_characters
from infertap.trace import ServerSpan

_MIB = 1 << 20
_SCOPE: dict[str, Any] = {
    "type": "http",
    "method": "POST",
    "path": "/invocations",
    "query_string": b"a=1",
    "headers": [(b"content-type", b"application/json")],
}


class _Sink:
    def submit_span(self, span: object) -> None:
        raise AssertionError("no child span was made")


class _Captured(Capture):
    """A capture that is told the time of each message, and opened as soon as it is closed."""

    def send(self, message: dict[str, Any], now_ns: int) -> bool:
        return self.sent(message, lambda: now_ns)

    def exchange(self) -> Exchange:
        return opened(self.close(duration_ns=9_000, route=None))


def _capture(
    budget: ByteBudget | None = None, *, body_bytes_max: int = 16 * _MIB, method: str = "POST"
) -> tuple[_Captured, ByteBudget]:
    budget = budget or ByteBudget(64 * _MIB)
    return _captures({**_SCOPE, "method": method}, CaptureLimits(budget, body_bytes_max)), budget


def _captures(scope: dict[str, Any], limits: CaptureLimits, traceparent: bytes | None = None) -> _Captured:
    headers = tuple(scope["headers"])
    span = ServerSpan(_Sink(), None, traceparent, 1, None, 1_000)
    return _Captured(snapshot(scope), headers, limits, span, 500, header_characters(headers))


def _request(body: bytes, *, more_body: bool = False) -> dict[str, Any]:
    return {"type": "http.request", "body": body, "more_body": more_body}


def _start(status: int = 200, headers: Iterable[Any] = (), **more: Any) -> dict[str, Any]:
    return {"type": "http.response.start", "status": status, "headers": headers, **more}


def _body(body: bytes = b"", *, more_body: bool = False) -> dict[str, Any]:
    return {"type": "http.response.body", "body": body, "more_body": more_body}


def _close(capture: _Captured, budget: ByteBudget) -> Exchange:
    """Close, check what holds for every exchange, and release what it holds."""
    exchange = capture.exchange()
    assert sum(map(len, exchange.request_chunks)) in (0, exchange.request_bytes)
    assert sum(map(len, exchange.response_chunks)) in (0, exchange.response_bytes)
    kept = chunks_bytes(exchange.request_chunks) + chunks_bytes(exchange.response_chunks)
    assert exchange.granted_bytes == budget.held
    assert exchange.held_bytes >= RECORD_BYTES + kept
    assert kept <= exchange.granted_bytes
    assert capture.room == exchange.granted_bytes - kept
    budget.release(exchange.granted_bytes)
    assert budget.held == 0
    return exchange


def test_a_normal_exchange_keeps_both_bodies() -> None:
    """Bytes, status, headers and the first chunk's time are what passed."""
    capture, budget = _capture()
    capture.received(_request(b"ask", more_body=True))
    capture.received(_request(b"ing"))
    assert not capture.send(_start(201, [(b"x", b"y")]), 0)
    assert capture.send(_body(b"answer"), 700)
    exchange = _close(capture, budget)
    assert exchange.request_chunks == (b"ask", b"ing")
    assert exchange.response_chunks == (b"answer",)
    assert (exchange.status_code, exchange.response_headers) == (201, ((b"x", b"y"),))
    assert (exchange.end_reason, exchange.first_chunk_ns, exchange.chunk_count) == ("complete", 200, 1)
    assert exchange.request_complete
    assert exchange.codes == ()
    assert exchange.granted_bytes == FIRST_GRANT_BYTES


def test_a_stream_of_ten_thousand_chunks_keeps_references() -> None:
    """Each chunk is the app's own object, and only the first one's time is read."""
    capture, budget = _capture()
    chunks = [f"data: {number}\n\n".encode() for number in range(10_000)]
    capture.received(_request(b""))
    capture.send(_start(), 0)
    for number, chunk in enumerate(chunks):
        assert not capture.send(_body(chunk, more_body=True), 600 + number)
    assert capture.send(_body(), 0)
    exchange = _close(capture, budget)
    assert exchange.chunk_count == 10_000
    assert all(kept is sent for kept, sent in zip(exchange.response_chunks, chunks, strict=True))
    assert exchange.first_chunk_ns == 100


@pytest.mark.parametrize(
    "body", [{"type": "http.response.body"}, _body(), {"type": "http.response.body", "body": None}]
)
def test_an_empty_answer_is_complete(body: dict[str, Any]) -> None:
    """204, 304 and empty bodies have no first chunk."""
    capture, budget = _capture()
    capture.send(_start(204), 0)
    assert capture.send(body, 600)
    exchange = _close(capture, budget)
    assert (exchange.end_reason, exchange.chunk_count, exchange.first_chunk_ns) == ("complete", 0, -1)
    assert exchange.response_started


def test_the_body_of_an_answer_to_head_does_not_count() -> None:
    """The server sends none of it, so none of it passed."""
    capture, budget = _capture(method="HEAD")
    capture.send(_start(200, [(b"content-length", b"4")]), 0)
    assert capture.send(_body(b"body"), 600)
    exchange = _close(capture, budget)
    assert (exchange.response_bytes, exchange.chunk_count, exchange.end_reason) == (0, 0, "complete")


def test_trailers_complete_the_answer() -> None:
    """With `trailers` the last body message is not the end; the last trailers message is."""
    capture, budget = _capture()
    capture.send(_start(trailers=True), 0)
    assert not capture.send(_body(b"x"), 600)
    assert not capture.send({"type": "http.response.trailers", "headers": [], "more_trailers": True}, 0)
    assert capture.send({"type": "http.response.trailers", "headers": []}, 0)
    assert _close(capture, budget).end_reason == "complete"


def test_missing_trailers_leave_the_answer_incomplete() -> None:
    """An app that promised trailers and sent none did not finish."""
    capture, budget = _capture()
    capture.send(_start(trailers=True), 0)
    capture.send(_body(b"x"), 600)
    exchange = _close(capture, budget)
    assert (exchange.end_reason, exchange.error_type) == ("app_error", "IncompleteResponse")


@pytest.mark.parametrize(
    "late",
    [
        _start(500),
        _body(b"late"),
        _body(b"late", more_body=True),
        {"type": "http.response.trailers", "headers": []},
        {"type": "http.response.trailers", "headers": [], "more_trailers": True},
        {"type": "http.response.pathsend", "path": "/etc/hosts"},
    ],
)
def test_messages_after_the_end_change_nothing(late: dict[str, Any]) -> None:
    """What an app sends after the end is not part of the answer, and completes it no second time."""
    capture, budget = _capture()
    capture.send(_start(200), 0)
    assert capture.send(_body(b"done"), 600)
    assert not capture.send(late, 900)
    exchange = _close(capture, budget)
    assert (exchange.status_code, exchange.response_chunks, exchange.response_bytes) == (200, (b"done",), 4)
    assert (exchange.end_reason, exchange.codes) == ("complete", ())


def test_a_file_that_the_server_sends_is_counted_and_not_seen() -> None:
    """`pathsend` gives the declared length and a code; what was captured before it is let go."""
    capture, budget = _capture()
    capture.send(_start(200, [(b"Content-Length", b"12345")]), 0)
    assert capture.send({"type": "http.response.pathsend", "path": "/etc/hosts"}, 600)
    exchange = _close(capture, budget)
    assert (exchange.response_bytes, exchange.response_chunks) == (12345, ())
    assert exchange.codes == ("RESPONSE_NOT_SEEN",)
    assert exchange.end_reason == "complete"


@pytest.mark.parametrize("declared", [b"-1", b"1e3", b"", b"\xb2"])
def test_a_strange_declared_length_of_a_file_is_no_error(declared: bytes) -> None:
    """Only decimal digits are a length."""
    capture, budget = _capture()
    capture.send(_start(200, [(b"content-length", declared)]), 0)
    assert capture.send({"type": "http.response.pathsend", "path": "/x"}, 600)
    assert _close(capture, budget).response_bytes == 0


def test_bytes_that_the_app_may_still_change_are_copied() -> None:
    """`bytearray` and `memoryview` become bytes at once; bytes stay the same object."""
    capture, budget = _capture()
    mutable = bytearray(b"request")
    capture.received({"type": "http.request", "body": mutable})
    answer = bytearray(b"first second")
    capture.send(_start(), 0)
    capture.send({"type": "http.response.body", "body": memoryview(answer)[:5], "more_body": True}, 600)
    capture.send({"type": "http.response.body", "body": answer}, 0)
    mutable[:] = b"XXXXXXX"
    answer[:] = bytes(12)
    exchange = _close(capture, budget)
    assert exchange.request_chunks == (b"request",)
    assert exchange.response_chunks == (b"first", b"first second")


def test_headers_given_as_an_iterator_still_reach_the_server() -> None:
    """ASGI allows any iterable; one that can be read only once must not be empty when the server reads it."""
    capture, budget = _capture()
    message = _start(200, iter([(b"x", b"y")]))
    capture.send(message, 0)
    capture.send(_body(), 0)
    assert list(message["headers"]) == [(b"x", b"y")]
    assert _close(capture, budget).response_headers == ((b"x", b"y"),)


@pytest.mark.parametrize("size", [1_001, FIRST_GRANT_BYTES, FIRST_GRANT_BYTES + 1, 3 * GRANT_BYTES])
@pytest.mark.parametrize("pieces", [1, 7])
def test_a_body_over_the_limit_is_let_go(size: int, pieces: int) -> None:
    """One byte over the cap drops that body, says so, counts all its bytes, and leaves the other body alone."""
    capture, budget = _capture(body_bytes_max=1_000)
    cuts = [size * piece // pieces for piece in range(pieces + 1)]
    for index in range(pieces):
        capture.received(_request(bytes(cuts[index + 1] - cuts[index]), more_body=index < pieces - 1))
    capture.send(_start(), 0)
    capture.send(_body(b"a" * 1_000), 600)
    exchange = _close(capture, budget)
    assert exchange.codes == ("REQUEST_OVER_CAPTURE_LIMIT",)
    assert (exchange.request_bytes, exchange.request_chunks) == (size, ())
    assert exchange.response_chunks == (b"a" * 1_000,)


def test_both_bodies_over_the_limit_give_two_codes() -> None:
    """Each side has its own code, once, however much more arrives."""
    capture, budget = _capture(body_bytes_max=10)
    for _ in range(3):
        capture.received(_request(bytes(FIRST_GRANT_BYTES), more_body=True))
    capture.send(_start(), 0)
    for _ in range(3):
        capture.send(_body(bytes(GRANT_BYTES), more_body=True), 600)
    exchange = _close(capture, budget)
    assert exchange.codes == ("REQUEST_OVER_CAPTURE_LIMIT", "RESPONSE_OVER_CAPTURE_LIMIT")


def test_the_room_of_a_dropped_body_serves_the_other_one() -> None:
    """A request that went over the cap gives its room to the answer, instead of holding it for nothing."""
    capture, budget = _capture(body_bytes_max=_MIB)
    for _ in range(20):
        capture.received(_request(bytes(GRANT_BYTES), more_body=True))
    held = budget.held
    assert held >= _MIB
    capture.send(_start(), 0)
    capture.send(_body(bytes(_MIB)), 600)
    assert budget.held == held
    exchange = _close(capture, budget)
    assert exchange.codes == ("REQUEST_OVER_CAPTURE_LIMIT",)
    assert len(exchange.response_chunks[0]) == _MIB


def test_a_dry_budget_drops_bodies_and_never_the_exchange() -> None:
    """Without a byte of budget the exchange closes, with both codes."""
    budget = ByteBudget(0)
    capture, _ = _capture(budget)
    capture.received(_request(b"x"))
    capture.send(_start(), 0)
    capture.send(_body(b"y"), 600)
    exchange = _close(capture, budget)
    assert exchange.codes == ("REQUEST_OVER_BUDGET", "RESPONSE_OVER_BUDGET")
    assert (exchange.request_bytes, exchange.response_bytes, exchange.granted_bytes) == (1, 1, 0)


def test_the_last_bytes_of_the_budget_can_be_had() -> None:
    """Where a whole grant is not to be had, a body still gets what it needs."""
    budget = ByteBudget(20_000)
    capture, _ = _capture(budget)
    capture.received(_request(bytes(15_000)))
    exchange = _close(capture, budget)
    assert exchange.codes == ()
    assert len(exchange.request_chunks[0]) == 15_000


def test_no_body_is_kept_with_a_limit_of_zero() -> None:
    """`content = "metadata"`: bytes are counted, nothing is kept, and no code claims a loss."""
    capture, budget = _capture(body_bytes_max=0)
    capture.received(_request(b"x" * 100))
    capture.send(_start(), 0)
    capture.send(_body(b"y" * 200), 600)
    exchange = _close(capture, budget)
    assert (exchange.request_bytes, exchange.response_bytes) == (100, 200)
    assert (exchange.request_chunks, exchange.response_chunks, exchange.codes) == ((), (), ())


def test_a_client_that_leaves_before_the_answer_is_499() -> None:
    """Without a status the row says 499."""
    capture, budget = _capture()
    capture.received(_request(b"x"))
    capture.received({"type": "http.disconnect"})
    exchange = _close(capture, budget)
    assert (exchange.status_code, exchange.end_reason) == (499, "client_disconnect")
    assert not exchange.response_started


def test_a_client_that_leaves_during_the_answer_keeps_its_status() -> None:
    """The status that was sent stays, and what was sent until then is kept."""
    capture, budget = _capture()
    capture.send(_start(200), 0)
    capture.send(_body(b"half", more_body=True), 600)
    capture.received({"type": "http.disconnect"})
    exchange = _close(capture, budget)
    assert (exchange.status_code, exchange.end_reason) == (200, "client_disconnect")
    assert exchange.response_chunks == (b"half",)


def test_a_disconnect_after_the_end_is_no_disconnect() -> None:
    """Starlette's streaming answers ask for it all the time."""
    capture, budget = _capture()
    capture.send(_start(200), 0)
    capture.send(_body(b"all"), 600)
    capture.received({"type": "http.disconnect"})
    assert _close(capture, budget).end_reason == "complete"


def test_an_app_that_sends_nothing_is_an_app_error() -> None:
    """No status, no exception: the server answers 500 in its place."""
    capture, budget = _capture()
    exchange = _close(capture, budget)
    assert (exchange.status_code, exchange.end_reason) == (500, "app_error")
    assert exchange.error_type == "IncompleteResponse"
    assert not exchange.response_started


def test_a_failure_keeps_the_status_that_went_out() -> None:
    """An exception before the first byte is a 500; one after it leaves the status as sent."""
    before, budget = _capture()
    before.failed("ValueError", "no")
    exchange = _close(before, budget)
    assert (exchange.status_code, exchange.end_reason, exchange.codes) == (500, "app_error", ())
    assert (exchange.error_type, exchange.error_message, exchange.tags) == ("ValueError", "no", None)
    after, budget = _capture()
    after.send(_start(200), 0)
    after.failed("ValueError", "no")
    exchange = _close(after, budget)
    assert (exchange.status_code, exchange.end_reason, exchange.error_type) == (200, "app_error", "ValueError")


def test_an_outcome_that_the_app_names_wins() -> None:
    """The proxy's own 502 is an upstream's fault and no app error."""
    capture, budget = _capture()
    capture.send(_start(502), 0)
    capture.send(_body(b"bad gateway"), 600)
    capture.outcome("upstream_error", "ConnectError", "refused")
    exchange = _close(capture, budget)
    assert (exchange.end_reason, exchange.error_type) == ("upstream_error", "ConnectError")


def test_the_snapshot_is_not_touched_by_what_the_app_does_to_its_scope() -> None:
    """Routers and middlewares write into the scope."""
    scope: dict[str, Any] = {**_SCOPE, "headers": [(b"a", b"b")], "client": ("1.2.3.4", 5)}
    frozen = snapshot(scope)
    scope["path"] = "/changed"
    assert frozen == ("POST", "/invocations", b"a=1", "1.1", "http", "", ("1.2.3.4", 5), None)


def _trimmed(**scope: Any) -> Exchange:
    budget = ByteBudget(64 * _MIB)
    capture = _captures({**_SCOPE, **scope}, CaptureLimits(budget, _MIB))
    capture.send(_start(200, [(b"x", b"y")]), 0)
    capture.send(_body(b"z"), 600)
    return _close(capture, budget)


_LONG = b"v" * FIELD_CHARACTERS_MAX


def test_a_header_that_is_too_long_is_let_go() -> None:
    """The others stay, the row says so, and nothing is cut."""
    exchange = _trimmed(headers=[(b"a", b"b"), (b"long", _LONG), (b"c", b"d")])
    assert exchange.scope.headers == ((b"a", b"b"), (b"c", b"d"))
    assert exchange.codes == ("REQUEST_HEADERS_OVER_LIMIT",)


def test_too_many_headers_are_let_go() -> None:
    """The first ones stay."""
    headers = [(b"n%d" % number, b"x") for number in range(HEADERS_MAX + 1)]
    assert _trimmed(headers=headers[:HEADERS_MAX]).codes == ()
    exchange = _trimmed(headers=headers)
    assert exchange.scope.headers == tuple(headers[:HEADERS_MAX])
    assert exchange.codes == ("REQUEST_HEADERS_OVER_LIMIT",)


def test_a_long_answer_header_reaches_the_client_and_not_the_row() -> None:
    """What the server gets stays as it is."""
    capture, budget = _capture()
    message = _start(200, [(b"long", _LONG), (b"x", b"y")])
    capture.send(message, 0)
    capture.send(_body(b"z"), 600)
    exchange = _close(capture, budget)
    assert len(message["headers"]) == 2
    assert exchange.response_headers == ((b"x", b"y"),)
    assert exchange.codes == ("RESPONSE_HEADERS_OVER_LIMIT",)


def test_path_and_query_that_are_too_long_are_let_go() -> None:
    """Each with its own code; a character more than the limit is too many."""
    path, query = "/" + "p" * FIELD_CHARACTERS_MAX, b"q" * (FIELD_CHARACTERS_MAX + 1)
    exchange = _trimmed(path=path[:-1], query_string=query[:-1])
    assert (exchange.scope.path, exchange.scope.query_string, exchange.codes) == (path[:-1], query[:-1], ())
    exchange = _trimmed(path=path, query_string=query)
    assert (exchange.scope.path, exchange.scope.query_string) == ("", b"")
    assert exchange.codes == ("PATH_OVER_LIMIT", "QUERY_OVER_LIMIT")


def test_the_trace_survives_the_headers() -> None:
    """A `traceparent` behind the last header that is kept is read all the same."""
    traceparent = (b"traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    headers = [*((b"n%d" % number, b"x") for number in range(HEADERS_MAX)), traceparent]
    budget = ByteBudget(_MIB)
    capture = _captures({**_SCOPE, "headers": headers}, CaptureLimits(budget, 1), traceparent[1])
    exchange = _close(capture, budget)
    assert exchange.trace is not None
    assert f"{exchange.trace.trace_id:032x}" == "0af7651916cd43dd8448eb211c80319c"


_SIZES = st.sampled_from(
    [0, 1, 999, FIRST_GRANT_BYTES, FIRST_GRANT_BYTES + 1, GRANT_BYTES, GRANT_BYTES + 9, 3 * GRANT_BYTES]
)
_STEPS = st.lists(st.tuples(st.booleans(), _SIZES), max_size=12)


@given(
    steps=_STEPS, cap=st.sampled_from([0, 10, 70_000, 200_000]), budget_max=st.sampled_from([0, 9_000, 150_000, _MIB])
)
def test_the_accounts_balance_whatever_passes(steps: list[tuple[bool, int]], cap: int, budget_max: int) -> None:
    """Whatever is kept is covered by the grant, nothing over the cap is kept, and all of it comes back."""
    budget = ByteBudget(budget_max)
    capture, _ = _capture(budget, body_bytes_max=cap)
    capture.send(_start(), 0)
    for is_request, size in steps:
        if is_request:
            capture.received(_request(bytes(size), more_body=True))
        else:
            capture.send(_body(bytes(size), more_body=True), 600)
        assert budget.held <= budget_max
    exchange = _close(capture, budget)
    assert exchange.request_bytes == sum(size for is_request, size in steps if is_request)
    assert exchange.response_bytes == sum(size for is_request, size in steps if not is_request)
    for chunks in (exchange.request_chunks, exchange.response_chunks):
        assert sum(map(len, chunks)) <= cap
    assert len(set(exchange.codes)) == len(exchange.codes)


def test_zero_copy_sends_complete_an_answer_with_the_last_of_them() -> None:
    """Their bytes never pass here, as with `pathsend`."""
    capture, budget = _capture()
    capture.send(_start(200, [(b"content-length", b"9")]), 0)
    assert not capture.send({"type": "http.response.zerocopysend", "file": 3, "more_body": True}, 600)
    assert capture.send({"type": "http.response.zerocopysend", "file": 3}, 700)
    exchange = _close(capture, budget)
    assert (exchange.end_reason, exchange.response_bytes) == ("complete", 9)
