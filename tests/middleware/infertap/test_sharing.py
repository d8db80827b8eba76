"""Middlewares that see no lifespan: one pipeline for the same settings."""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from infertap import Config, InferenceMiddleware
from infertap.pipeline import Pipeline
from infertap.spool.reader import read_segment


async def _app(_scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"fine"})


def _request(app: InferenceMiddleware) -> Pipeline:
    async def receive() -> Any:
        return {"type": "http.request", "body": b"{}"}

    async def send(_message: Any) -> None:
        return

    scope = {"type": "http", "method": "POST", "path": "/x", "query_string": b"", "headers": []}
    asyncio.run(app(scope, receive, send))
    assert app.pipeline is not None
    return app.pipeline


@pytest.fixture
def config(tmp_path: Path) -> Callable[..., Config]:
    """Equal settings, made anew at each call."""

    def make(**changes: Any) -> Config:
        return Config(tables=str(tmp_path / "tables"), drainer="external", drain_s=0, **changes)

    return make


def test_a_middleware_around_each_route_makes_one_pipeline(
    config: Callable[..., Config], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """One line at start, one slot, and every request in it."""
    pipelines = {_request(InferenceMiddleware(_app, config=config())) for _ in range(40)}
    (pipeline,) = pipelines
    pipeline.stop()
    assert capfd.readouterr().err.count("recording to") == 1
    (slot,) = (tmp_path / "tables" / ".spool").glob("*/slots/*/")
    frames = [frame for path in slot.glob("*.seg") for frame in read_segment(path).requests]
    assert len(frames) == 40


def test_other_settings_have_a_pipeline_of_their_own(config: Callable[..., Config]) -> None:
    """Nothing is recorded under settings that its middleware was not given."""
    first = _request(InferenceMiddleware(_app, config=config()))
    second = _request(InferenceMiddleware(_app, config=config(served_entity_id="m")))
    assert first is not second
    first.stop()
    second.stop()


def test_what_has_stopped_is_not_shared(config: Callable[..., Config]) -> None:
    """The next middleware starts anew."""
    first = _request(InferenceMiddleware(_app, config=config()))
    first.stop()
    second = _request(InferenceMiddleware(_app, config=config()))
    assert second is not first
    second.stop()


def test_a_stop_costs_the_others_nothing(config: Callable[..., Config], tmp_path: Path) -> None:
    """Two apps share a pipeline, and one has it stopped: both go on, in a new one, and every request has its row."""
    one, two = (InferenceMiddleware(_app, config=config()) for _ in range(2))
    shared = _request(one)
    assert _request(two) is shared
    shared.stop()
    assert one.pipeline is two.pipeline is None
    fresh = _request(two)
    assert fresh is not shared
    assert fresh.alive
    assert _request(one) is fresh
    fresh.stop()
    paths = (tmp_path / "tables" / ".spool").glob("*/slots/*/*.seg")
    assert sum(len(read_segment(path).requests) for path in paths) == 4


def test_the_end_of_the_process_starts_nothing_anew(config: Callable[..., Config]) -> None:
    """What still comes then is passed on, unrecorded by anything new."""
    app = InferenceMiddleware(_app, config=config())
    pipeline = _request(app)
    pipeline._stop_with_process()
    assert _request(app) is pipeline
    assert not pipeline.alive


def test_a_lifespan_keeps_its_pipeline_to_itself(config: Callable[..., Config]) -> None:
    """It ends with its app, and others go on."""
    app = InferenceMiddleware(_app, config=config())
    asked = asyncio.Event()

    async def main() -> tuple[Pipeline | None, Pipeline]:
        messages: asyncio.Queue[Any] = asyncio.Queue()
        messages.put_nowait({"type": "lifespan.startup"})

        async def send(_message: Any) -> None:
            asked.set()

        task = asyncio.create_task(app({"type": "lifespan"}, messages.get, send))
        await asked.wait()
        owned = app.pipeline
        other = await asyncio.to_thread(_request, InferenceMiddleware(_app, config=config()))
        messages.put_nowait({"type": "lifespan.shutdown"})
        await task
        return owned, other

    owned, other = asyncio.run(main())
    assert owned is not other
    assert other.alive
    other.stop()


@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")
def test_a_forked_child_shares_nothing_with_its_parent(config: Callable[..., Config]) -> None:
    """Its threads are not there: the child starts a pipeline of its own."""
    parent = _request(InferenceMiddleware(_app, config=config()))
    child = os.fork()
    if child == 0:
        status = 1
        try:
            own = _request(InferenceMiddleware(_app, config=config()))
            status = 0 if own is not parent and own.alive else 2
            own.stop()
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    parent.stop()
