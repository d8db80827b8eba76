"""Tap: what passes reaches the server as it is, and the capture as `Capture` alone would see it."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from infertap.build import build_pipeline
from infertap.capture import FIRST_GRANT_BYTES, GRANT_BYTES, ByteBudget, Capture, CaptureLimits, opened, snapshot
from infertap.choice import choose
from infertap.config import Config
from infertap.events import EventLog
from infertap.otel_env import OtelEnvironment
from infertap.pipeline import Pipeline
from infertap.record import Exchange
from infertap.tap import Tap
from infertap.trace import ServerSpan

_SCOPE: dict[str, Any] = {"type": "http", "method": "POST", "path": "/x", "headers": []}
_START = {"type": "http.response.start", "status": 200, "headers": []}
MakePipeline = Callable[[], Pipeline]


@pytest.fixture
def make_pipeline(tmp_path: Path) -> MakePipeline:
    """Makes pipelines that are never started."""
    config = Config(tables=str(tmp_path / "tables"), destination="table", drainer="external")

    def make() -> Pipeline:
        return build_pipeline(config, choose(config, OtelEnvironment.read({}), cwd=tmp_path), EventLog())

    return make


def _tap(pipeline: Pipeline, passed: list[Any]) -> Tap:
    async def receive() -> Any:
        return {"type": "http.request", "body": b"asked", "more_body": False}

    async def send(message: Any) -> None:
        passed.append(message)

    tap = Tap(snapshot(_SCOPE), (), pipeline.limits, _span(pipeline), 0, 0)
    tap.pipeline, tap.scope, tap.server_receive, tap.server_send = pipeline, _SCOPE, receive, send
    return tap


def _span(sink: Any) -> ServerSpan:
    return ServerSpan(sink, None, None, 1, None, 1_000)


async def _serve(tap: Tap, messages: list[Any]) -> None:
    await tap.receive()
    for message in messages:
        await tap.send(message)
    tap.app_returned()


_BODIES = st.sampled_from(
    [None, b"", b"token", bytearray(b"still mine"), bytes(FIRST_GRANT_BYTES), bytes(GRANT_BYTES), bytes(200_000)]
)
_MESSAGES = st.lists(
    st.builds(
        lambda body, more, kind: {"type": f"http.response.{kind}", "body": body, "more_body": more},
        _BODIES,
        st.sampled_from([True, True, True, True, False]),
        st.sampled_from(["body", "body", "body", "body", "debug"]),
    ),
    max_size=20,
)


def _chunks(*bodies: bytes, last: int) -> list[Any]:
    """Body messages of which that one says it is the last."""
    return [
        {"type": "http.response.body", "body": body, "more_body": number != last} for number, body in enumerate(bodies)
    ]


@example(messages=_chunks(b"a", b"b", b"c", last=2), cap=1 << 20, room=1 << 20, status=200)
@example(messages=_chunks(b"a", b"b", b"c", b"d", last=1), cap=1 << 20, room=1 << 20, status=500)
@given(
    messages=_MESSAGES,
    cap=st.sampled_from([0, 20, 150_000, 1 << 20]),
    room=st.sampled_from([0, 9_000, 1 << 20]),
    status=st.sampled_from([200, 500]),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_short_way_of_a_chunk_is_the_same_way(
    make_pipeline: MakePipeline, messages: list[Any], cap: int, room: int, status: int
) -> None:
    """However an answer is cut into chunks, the tap sees what a capture sees, and the server gets it all."""
    pipeline, passed = make_pipeline(), []
    start = {**_START, "status": status}
    pipeline.budget.bytes_max = room
    pipeline.limits.body_bytes_max = cap
    asyncio.run(_serve(_tap(pipeline, passed), [start, *messages]))
    capture = Capture(snapshot(_SCOPE), (), CaptureLimits(ByteBudget(room), cap), _span(pipeline), 0, 0)
    capture.received({"type": "http.request", "body": b"asked", "more_body": False})
    for message in (start, *messages):
        capture.sent(message, lambda: 1)
    wanted = opened(capture.close(duration_ns=1, route=None))
    assert passed == [start, *messages]
    if room > 9_000:
        (seen,) = pipeline.inbox.items()
        assert isinstance(seen, Exchange)
        same = {"duration_ns": 1, "first_chunk_ns": 1 if seen.first_chunk_ns >= 0 else -1}
        assert seen._replace(**same) == wanted


def test_what_passes_after_the_end_changes_no_finished_exchange(make_pipeline: MakePipeline) -> None:
    """The queue holds the capture's own lists: an app that goes on reading and sending adds nothing to them."""
    pipeline, passed = make_pipeline(), []
    tap = _tap(pipeline, passed)

    async def serve() -> None:
        answer = {"type": "http.response.body", "body": b"a", "more_body": True}
        await tap.send(_START)
        await tap.send(answer)
        await tap.send({**answer, "more_body": False})
        for _ in range(2):
            await tap.receive()
            await tap.send(answer)

    asyncio.run(serve())
    (exchange,) = pipeline.inbox.items()
    assert isinstance(exchange, Exchange)
    assert (exchange.request_chunks, exchange.request_bytes) == ((), 0)
    assert (exchange.response_chunks, exchange.response_bytes, exchange.chunk_count) == ((b"a", b"a"), 2, 2)
    assert len(passed) == 5
