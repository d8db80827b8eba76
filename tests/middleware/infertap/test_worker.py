"""The worker's own rules, on a real spool: what a stop may take, and who counts what other processes hand over."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from infertap import Config
from infertap.build import build_pipeline
from infertap.capture import Capture, CaptureLimits, snapshot
from infertap.choice import choose
from infertap.clock import SystemClock
from infertap.events import EventLog
from infertap.handover import Fate, SpanBatch
from infertap.otel_env import OtelEnvironment
from infertap.pipeline import Pipeline
from infertap.processors.assemble import Assembler
from infertap.record import Exchange, LossCause, OfferedSpan, SpanRecord
from infertap.spool.page import FINISHED, KEPT, LOST, SEEN, SPANS_DROPPED
from infertap.spool.reader import read_segment
from infertap.trace import ServerSpan
from infertap.trace_context import random_bits
from infertap.worker import Worker

_NOW_NS = 1_700_000_000_000_000_000


class SteppedClock(SystemClock):
    """Monotonic time that passes only when told."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def monotonic_s(self) -> float:
        return self.now_s


class SlowAssembler(Assembler):
    """Takes a second for each record."""

    def __init__(self, of: Assembler, clock: SteppedClock) -> None:
        super().__init__(of._settings)
        self._clock = clock

    def record(self, exchange: Exchange) -> Any:
        self._clock.now_s += 1.0
        return super().record(exchange)


class HandedSpan:
    """A finished span of another process."""

    held_bytes = 100
    start_ns = _NOW_NS

    def raw(self) -> SpanRecord:
        attributes = {"input.value": '{"q": 1}', "output.value": '{"a": 2}'}
        return SpanRecord("a" * 32, "b" * 16, None, "predict", "SERVER", _NOW_NS, _NOW_NS + 1, attributes=attributes)


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., tuple[Pipeline, SteppedClock]]:
    """Builds a pipeline, not started, whose worker sees a clock that only its slow assembler moves."""

    def build(
        drain_s: float, *, receives: bool = False, ends: list[float] | None = None
    ) -> tuple[Pipeline, SteppedClock]:
        ends = [] if ends is None else ends
        config = Config(tables=str(tmp_path / "tables"), destination="table", drainer="external", drain_s=drain_s)
        choice = choose(config, OtelEnvironment.read({}), cwd=tmp_path)
        pipeline = build_pipeline(config, choice, EventLog(), receives=receives)
        clock = SteppedClock()
        of = pipeline.worker
        pipeline.worker = Worker(
            pipeline.inbox,
            assembler=SlowAssembler(of._assembler, clock),
            writer=of.writer,
            delivery=of.delivery,
            joining=pipeline.joining,
            # So that it waits to be woken: a stop finds everything in the queue.
            flush_s=3600,
            drain_s=drain_s,
            at_end=ends.append,
            clock=clock,
            log=EventLog(),
        )
        return pipeline, clock

    return build


def _submit(pipeline: Pipeline, count: int) -> None:
    for _ in range(count):
        bits = random_bits(256)
        scope = snapshot({"method": "POST", "path": "/x", "headers": []})
        span = ServerSpan(pipeline, None, None, bits, pipeline.trace.pure, _NOW_NS)
        capture = Capture(scope, (), CaptureLimits(pipeline.budget, 1 << 20), span, 0, 0)
        capture.received({"type": "http.request", "body": b"{}"})
        pipeline.began()
        pipeline.submit(capture.close(duration_ns=1, route=None))


def _rows(folder: Path) -> list[dict[str, Any]]:
    paths = sorted(folder.glob("tables/.spool/*/slots/*/*.seg"))
    return [row for path in paths for row in read_segment(path).requests]


@pytest.mark.parametrize(("drain_s", "spooled"), [(0, 5), (8, 8)])
def test_a_stop_ends_in_time_and_counts_what_is_left(make: Any, tmp_path: Path, drain_s: float, spooled: int) -> None:
    """With records that take a second each: as many as fit into `drain_s` (at least 5 s), the rest is lost, by name."""
    pipeline, clock = make(drain_s)
    pipeline.start()
    pipeline.wait_ready()
    _submit(pipeline, 300)
    counters = pipeline.worker.counters
    said: list[int] = []
    close = pipeline.worker.writer.close
    # The page goes with the slot; what it said last is what the next process would read.
    pipeline.worker.writer.close = lambda: (said.extend(counters[i] for i in _ACCOUNT), close())
    pipeline.stop()
    assert not pipeline.alive
    assert clock.now_s == spooled
    assert said == [300, 300, spooled, 300 - spooled]
    assert len(_rows(tmp_path)) == spooled
    assert pipeline.budget.held == 0


@pytest.mark.parametrize(("drain_s", "delivery_s", "left_s"), [(10, 4, 6), (10, 10, 0), (0, 0, 5)])
def test_a_drainer_in_a_thread_has_what_is_left_of_the_stop(
    make: Any, drain_s: float, delivery_s: float, left_s: float
) -> None:
    """One deadline for the whole stop: what delivery has taken of it, the thread's end cannot take again."""
    ends: list[float] = []
    pipeline, clock = make(drain_s, ends=ends)
    delivery = pipeline.worker.delivery
    wait = delivery.flush_and_wait

    def slow(*args: Any, **kwargs: Any) -> Any:
        clock.now_s += delivery_s
        return wait(*args, **kwargs)

    delivery.flush_and_wait = slow
    pipeline.start()
    pipeline.wait_ready()
    pipeline.stop()
    assert ends == [left_s]


_ACCOUNT = (SEEN, FINISHED, KEPT, LOST[LossCause.STOP_DEADLINE])


def test_a_group_does_not_wait_for_a_lock_that_stays_away(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under an event loop that is never idle, what is assembled is durable after `spool_flush_ms` all the same."""
    pipeline, _ = make(0)
    worker = pipeline.worker
    worker.writer.open()
    worker.counters = worker.writer.counters
    worker._flush_s = 0.01
    monkeypatch.setattr("infertap.worker._YIELD_AFTER_S", 0.0)
    monkeypatch.setattr("infertap.worker._yield_lock", lambda: time.sleep(0.02))
    _submit(pipeline, 20)
    worker._spool_group()
    assert worker.counters[KEPT] == 1
    worker.spool_queue()
    assert worker.counters[KEPT] == 20
    worker.writer.close()


def test_senders_hear_of_what_a_stop_left(make: Any) -> None:
    """Their spans are settled as lost, so that they send them again; nobody waits for ever."""
    pipeline, clock = make(0, receives=True)
    heard: list[Fate] = []
    pipeline.worker.writer.open()
    pipeline.worker.counters = pipeline.worker.writer.counters
    assert pipeline.submit_batch(_batch(2, heard.extend))
    pipeline.worker.stop()
    clock.now_s += 6
    pipeline.worker.run()
    assert heard == [Fate.LOST, Fate.LOST]
    assert pipeline.inbox.span_bytes == 0


def test_requests_of_other_processes_are_seen_by_the_worker_alone(make: Any) -> None:
    """One thread counts them, whichever threads hand them over, and never before their outcome is known."""
    pipeline, _ = make(0, receives=True)
    pipeline.worker.writer.open()
    counters = pipeline.worker.counters = pipeline.worker.writer.counters
    heard: list[Fate] = []
    for _ in range(3):
        assert pipeline.submit_batch(_batch(2, heard.extend))
    assert (counters[SEEN], counters[FINISHED]) == (0, 0)
    pipeline.worker.spool_queue()
    assert heard == [Fate.SPOOLED] * 6
    assert (counters[SEEN], counters[FINISHED], counters[KEPT]) == (6, 6, 6)
    assert counters[SPANS_DROPPED] == 0
    pipeline.worker.writer.close()


def _batch(count: int, settled: Callable[[Sequence[Fate]], None]) -> SpanBatch:
    return SpanBatch([OfferedSpan(HandedSpan(), True)] * count, settled)
