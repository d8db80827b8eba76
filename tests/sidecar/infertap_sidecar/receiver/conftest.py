"""A pipeline with a real spool that nobody drains, an intake before it, and a reader of what it holds."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from infertap import Config
from infertap.build import build_pipeline
from infertap.choice import choose
from infertap.clock import SystemClock
from infertap.events import EventLog
from infertap.otel_env import OtelEnvironment
from infertap.pipeline import Pipeline
from infertap.spool.folder import SpoolFolder, list_segments
from infertap.spool.reader import read_segment
from infertap_sidecar.receiver.intake import Intake
from infertap_sidecar.receiver.requests import RequestRule
from infertap_sidecar.receiver.window import Window


@pytest.fixture
def make_pipeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Pipeline]]:
    """Makes a started pipeline; its arguments are settings."""
    for name in list(os.environ):
        if name.startswith(("INFERTAP_", "OTEL_")):
            monkeypatch.delenv(name)
    made: list[Pipeline] = []

    def make(**settings: Any) -> Pipeline:
        config = Config(**{"tables": str(tmp_path / "tables"), "drainer": "external", "drain_s": 0, **settings})
        choice = choose(config, OtelEnvironment.read({}), cwd=tmp_path)
        pipeline = build_pipeline(config, choice, EventLog(), receives=True)
        pipeline.start()
        pipeline.wait_ready()
        made.append(pipeline)
        return pipeline

    yield make
    for pipeline in made:
        pipeline.stop()


@pytest.fixture
def pipeline(make_pipeline: Callable[..., Pipeline]) -> Pipeline:
    """A started pipeline with the default settings."""
    return make_pipeline()


@pytest.fixture
def make_intake() -> Callable[[Pipeline], Intake]:
    """Makes an intake that makes rows."""

    def make(pipeline: Pipeline) -> Intake:
        return Intake(pipeline, Window(), RequestRule(SystemClock(), Window()), lambda _: None)

    return make


@pytest.fixture
def intake(pipeline: Pipeline, make_intake: Callable[[Pipeline], Intake]) -> Intake:
    """An intake that makes rows, before the default pipeline."""
    return make_intake(pipeline)


@pytest.fixture
def spooled() -> Callable[[Pipeline], tuple[list[dict[str, Any]], list[dict[str, Any]]]]:
    """Stops a pipeline and reads its spool: (requests, spans)."""

    def read(pipeline: Pipeline) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        pipeline.stop()
        folder = SpoolFolder(pipeline.choice.folder)
        requests: list[dict[str, Any]] = []
        spans: list[dict[str, Any]] = []
        for spool_id in folder.slot_ids():
            for path in list_segments(folder.slot_dir(spool_id)):
                segment = read_segment(path)
                requests += segment.requests
                spans += segment.spans
        return requests, spans

    return read
