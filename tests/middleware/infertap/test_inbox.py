"""The queue's byte budgets: what they count is what the queue holds in memory, and they give all of it back."""

import gc
import threading
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
from opentelemetry import context as otel_context
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import SpanContext, TraceFlags

from infertap import annotate, start_span
from infertap.capture import FIRST_GRANT_BYTES, ByteBudget, Capture, CaptureLimits, opened, snapshot
from infertap.child_span import ChildSpan
from infertap.inbox import Inbox
from infertap.joining.finished_span import FinishedSpan
from infertap.record import Exchange
from infertap.sizes import header_characters
from infertap.trace import ServerSpan, context_with
from infertap.trace_context import PureSampler, random_bits

_MIB = 1 << 20
_SAMPLER = PureSampler(ratio=1.0, parent_based=True)
Fill = Callable[[Capture, int], None]


class _Sink:
    def __init__(self, inbox: Inbox) -> None:
        self.submit_span = inbox.put_span


def _clock() -> int:
    return 1


def _capture(budget: ByteBudget, number: int, headers: int = 8, size: int = 20) -> Capture:
    pairs = [(b"x-%d-%d" % (number, place), b"v%d" % place * (size // 2)) for place in range(headers)]
    scope = {"method": "POST", "path": f"/v1/models/{number}", "query_string": b"n=%d" % number, "headers": pairs}
    bits = random_bits(256)
    span = ServerSpan(_Sink(Inbox(0, 0)), None, None, bits, _SAMPLER, number)
    limits = CaptureLimits(budget, 16 * _MIB)
    capture = Capture(snapshot(scope), tuple(pairs), limits, span, 0, header_characters(pairs))
    capture.sent({"type": "http.response.start", "status": 200, "headers": [(b"a%d" % number, b"b")]}, _clock)
    return capture


def _bodies(capture: Capture, number: int) -> None:
    capture.received({"type": "http.request", "body": b"%d" % number * 500})
    capture.sent({"type": "http.response.body", "body": b"%d" % number * 300}, _clock)


def _tiny_chunks(capture: Capture, number: int) -> None:
    for place in range(500):
        capture.sent({"type": "http.response.body", "body": b"data %d" % (number + place), "more_body": True}, _clock)


def _tags(capture: Capture, number: int) -> None:
    token = otel_context.attach(context_with(capture.span, {}))
    annotate(**{f"tag{place}": f"{number} {place} é" * 20 for place in range(10)})
    otel_context.detach(token)


def _facts(capture: Capture, number: int) -> None:
    for place in range(10):
        capture.span.set_attribute(f"list{place}", [f"{number} {place} {item}" for item in range(20)])
        capture.span.add_event(f"event {number}", {"text": f"{number}" * 100, "numbers": [number * 1_000_000 + place]})
        capture.span.add_link(SpanContext(number + 1, place + 1, False, TraceFlags(1)), {"why": f"{number} {place}"})
    capture.span.set_status(_error_status(), f"{number} went wrong" * 10)


def _failure(capture: Capture, number: int) -> None:
    try:
        _deep(number, 30)
    except ValueError as error:
        capture.span.record_exception(error)
        capture.failed("ValueError", str(error))


def _deep(number: int, depth: int) -> None:
    if depth == 0:
        raise ValueError(f"number {number} is no good " * 20)
    _deep(number, depth - 1)


def _error_status() -> Any:
    from opentelemetry.trace import StatusCode

    return StatusCode.ERROR


@pytest.mark.parametrize(
    ("fill", "headers", "size"),
    [
        (_bodies, 8, 20),
        (_bodies, 100, 10),
        (_bodies, 8, 900),
        (_tiny_chunks, 8, 20),
        (_tags, 8, 20),
        (_facts, 8, 20),
        (_failure, 8, 20),
    ],
    ids=["plain", "many-headers", "long-headers", "tiny-chunks", "tags", "facts", "failure"],
)
def test_what_requests_hold_is_what_is_counted(fill: Fill, headers: int, size: int) -> None:
    """The interpreter's own account of the queue's memory is never much above the budget's, nor far below it."""
    inbox = Inbox(1 << 40, 0)
    _queue(inbox, fill, 3, headers, size)  # what is made once is not counted
    held, traced = _growth(lambda: inbox.budget.held, lambda: _queue(inbox, fill, 200, headers, size))
    assert traced <= 1.25 * held
    assert held <= 2 * traced
    for exchange in inbox.items():
        inbox.budget.release(inbox.release(exchange))
    assert inbox.budget.held == 0


def _queue(inbox: Inbox, fill: Fill, count: int, headers: int, size: int) -> None:
    for number in range(count):
        capture = _capture(inbox.budget, 1_000_000 + number, headers, size)
        fill(capture, 1_000_000 + number)
        assert inbox.put_exchange(capture.close(duration_ns=1_000_000 + number, route=None))


def _growth(counted: Callable[[], int], work: Callable[[], None]) -> tuple[int, int]:
    """How much `counted` and the traced memory grow while `work` runs."""
    gc.collect()
    tracemalloc.start()
    try:
        before, traced = counted(), tracemalloc.get_traced_memory()[0]
        work()
        gc.collect()
        return counted() - before, tracemalloc.get_traced_memory()[0] - traced
    finally:
        tracemalloc.stop()


def _content(span: Any, number: int) -> None:
    span.set_attribute("texts", [f"{number} {place}" for place in range(50)])
    span.set_attribute("text", f"{number}" * 100)
    for place in range(10):
        span.add_event(f"event {number}", {"text": f"{number} {place}" * 20})


def _own_span(inbox: Inbox, number: int) -> None:
    server = ServerSpan(_Sink(inbox), None, None, random_bits(256), _SAMPLER, number)
    token = otel_context.attach(context_with(server, {}))
    with start_span(f"span {number}") as span:
        _content(span, number)
        span.set_inputs({"n": number, "text": f"{number}" * 50})
    otel_context.detach(token)


def _sdk_span(inbox: Inbox, number: int) -> None:
    with _TRACER.start_as_current_span(f"span {number}") as span:
        _content(span, number)
    assert inbox.put_span(FinishedSpan(span, None, {}, table_only=False))  # type: ignore[arg-type]


_TRACER = TracerProvider().get_tracer("test")


@pytest.mark.parametrize("make", [_own_span, _sdk_span])
def test_what_spans_hold_is_what_is_counted(make: Callable[[Inbox, int], None]) -> None:
    """Lists and events too, and not only texts."""
    inbox = Inbox(0, 1 << 40)
    make(inbox, 1)

    def work() -> None:
        for number in range(200):
            make(inbox, 1_000_000 + number)

    held, traced = _growth(lambda: inbox.span_bytes, work)
    assert traced <= 1.25 * held
    assert held <= 2 * traced
    for span in inbox.items():
        inbox.release(span)
    assert inbox.span_bytes == 0


def test_a_span_gives_back_what_it_took_whatever_is_set_on_it_later() -> None:
    """An app that keeps an ended span and goes on setting attributes moves no account."""
    inbox = Inbox(0, _MIB)
    server = ServerSpan(_Sink(inbox), None, None, 1, _SAMPLER)
    span = ChildSpan("late", server, server)
    span.set_attribute("a", "b" * 100)
    span.end()
    taken = inbox.span_bytes
    assert taken > 1_100
    span.set_attribute("c", "d" * 1_000)
    (item,) = inbox.items()
    assert isinstance(item, ChildSpan)
    inbox.release(item)
    assert inbox.span_bytes == 0


def test_bodies_go_first_then_records() -> None:
    """Under a full budget the row stays without bodies and says so; without room for the row it is refused."""
    inbox = Inbox(30_000, 0)
    codes: list[tuple[str, ...]] = []
    refused = 0
    while not refused:
        capture = _capture(inbox.budget, 1_000_000)
        _bodies(capture, 1_000_000)
        if inbox.put_exchange(capture.close(duration_ns=1, route=None)):
            item = inbox.queue[-1]
            codes.append((item if isinstance(item, Exchange) else opened(item)).codes)  # type: ignore[arg-type]
        else:
            refused += 1
        assert inbox.budget.held <= 30_000
    assert codes[0] == ()
    assert "REQUEST_OVER_BUDGET" in codes[-1]
    for item in inbox.items():
        inbox.budget.release(inbox.release(item))
    assert inbox.budget.held == 0


def test_a_body_makes_room_for_what_the_app_said_last() -> None:
    """Where tags do not fit beside a body that was kept already, the body goes and the row stays."""
    inbox = Inbox(FIRST_GRANT_BYTES, 0)
    capture = _capture(inbox.budget, 1_000_000)
    capture.received({"type": "http.request", "body": b"b" * 4_000})
    _tags(capture, 1_000_000)
    assert inbox.put_exchange(capture.close(duration_ns=1, route=None))
    (item,) = inbox.items()
    assert isinstance(item, Exchange)
    assert (item.request_chunks, item.request_bytes, item.codes) == ((), 4_000, ("REQUEST_OVER_BUDGET",))
    assert item.tags is not None
    inbox.budget.release(inbox.release(item))
    assert inbox.budget.held == 0


class _Pending:
    """A finished span of 600 bytes."""

    held_bytes, start_ns = 600, 1

    def raw(self) -> None:
        return None


@pytest.mark.parametrize("on_loop", [False, True])
def test_spans_have_a_share_of_their_own(on_loop: bool) -> None:
    """What does not fit is refused and counted; what does leaves the requests' budget alone."""
    inbox = Inbox(_MIB, 1_000)
    if on_loop:
        inbox.belongs_to_this_thread()
    assert inbox.put_span(_Pending())
    assert not inbox.put_span(_Pending())
    assert (inbox.take_dropped(), inbox.take_dropped(), inbox.budget.held) == (1, 0, 0)
    (item,) = inbox.items()
    inbox.release(item)
    assert inbox.span_bytes == 0
    assert inbox.put_span(_Pending())


def test_spans_of_many_threads_are_all_counted() -> None:
    """The event loop puts without a lock what others put with it; together they stay within the share."""
    inbox = Inbox(0, 600 * 3_000)
    inbox.belongs_to_this_thread()

    def put() -> None:
        for _ in range(1_000):
            inbox.put_span(_Pending())

    threads = [threading.Thread(target=put) for _ in range(3)]
    for thread in threads:
        thread.start()
    put()
    for thread in threads:
        thread.join()
    # Two of them may find the same last place free: the loop does not wait for the lock.
    assert 3_000 <= len(inbox.queue) <= 3_001
    assert inbox.span_bytes == 600 * len(inbox.queue)
    assert inbox.take_dropped() == 4_000 - len(inbox.queue)
