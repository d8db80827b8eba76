"""From the event loop to the spool: a bounded queue, one worker thread, and every request accounted for.

1. The event loop appends to a deque and counts; it never waits, locks for long, parses or logs.
2. Bounded by bytes: bodies are refused at capture (`ByteBudget`); when even the bare records do not fit, they are
   dropped, counted by cause.
3. The worker gives the interpreter lock away as it goes, or every wake-up of the loop would wait for it.
4. `except Exception` stands at the worker's two borders: one record's failure is that record's, one group's failure
   is that group's; both are counted, and the thread goes on.
"""

import atexit
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import ormsgpack

from infertap.capture import ByteBudget, CaptureLimits
from infertap.choice import Choice
from infertap.clock import Clock
from infertap.errors import SpoolError
from infertap.events import EventLog
from infertap.joining.joining import Joining, JoiningSettings
from infertap.paths import PathFilter
from infertap.processors.assemble import Assembler
from infertap.record import Exchange, LossCause, PendingSpan
from infertap.spool.frames import Kind
from infertap.spool.page import FINISHED, OLDEST_UNSPOOLED_NS, QUEUE_BYTES, SEEN
from infertap.spool.writer import SpoolWriter
from infertap.trace_context import TraceSettings

RECORD_BYTES = 2 << 10
"""What a record without its bodies is taken to hold in memory: headers, tuples, strings."""
_SPAN_SHARE = 4
"""The app's own spans may hold this part of `queue_bytes_max`, beside the requests' bodies."""
_GROUP_RECORDS_MAX = 256
_GROUP_BYTES_MAX = 4 << 20
_YIELD_AFTER_S = 100e-6
"""Longest time without giving the interpreter lock away, however short the records are. Without it a group of short
records holds the lock for milliseconds, and the event loop's p99 goes with it (`benchmarks/lag.py`)."""
_TICK_S = 1.0
_MINUTE_NS = 60_000_000_000
_READY_S_MAX = 10.0

_yield_lock: Callable[[], object] = getattr(os, "sched_yield", lambda: time.sleep(0))


class Delivery(Protocol):
    """The owner's side of the drainer: elects, spawns, asks for a flush. All calls from the worker thread."""

    def tick(self) -> None:
        """Look after the drainer; called each second."""

    def flush_and_wait(self, owner: SpoolWriter, *, deadline_s: float) -> int:
        """Have what is sealed delivered, and wait for it. Closes the owner's slot. Returns the segments left."""

    def drainer_lives(self) -> bool:
        """Whether somebody carries the spool on."""

    def close(self) -> None:
        """Let go of everything."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineSettings:
    """What a pipeline needs of the configuration, resolved."""

    content: str
    queue_bytes_max: int
    capture_bytes_max: int
    """0 where bodies are not kept at all."""
    spool_flush_ms: int
    drain_s: float
    include_paths: tuple[str, ...]
    exclude_paths: tuple[str, ...]
    request_id_header: bytes | None
    span_excluded: Callable[[Mapping[str, Any]], bool] | None
    server_span: str = "light"


class Idle:
    """Stands where a pipeline would, when nothing is to be recorded."""

    def __init__(self, log: Callable[[], None]) -> None:
        self._log = log

    def start(self) -> None:
        """Say why nothing is recorded."""
        self._log()

    def wait_ready(self) -> None:
        return

    def stop(self) -> None:
        return


class Pipeline:
    """One per process. `records`, `began`, `submit`, `submit_span`, `capture_failed` run on the event loop.

    Args:
        settings: Limits and intervals; see `PipelineSettings`.
        writer: Not opened yet: the worker opens it, so that a start never blocks the event loop.
        delivery: The owner's side of the drainer.
        at_end: Ends a drainer that ran in a thread of this process.
    """

    def __init__(
        self,
        choice: Choice,
        settings: PipelineSettings,
        *,
        assembler: Assembler,
        writer: SpoolWriter,
        delivery: Delivery,
        at_end: Callable[[], None],
        trace: TraceSettings,
        joining: JoiningSettings,
        clock: Clock,
        log: EventLog,
    ) -> None:
        self.choice = choice
        self.settings = settings
        self.trace = trace
        self.joining = Joining(self, joining, log.warn)
        self.budget = ByteBudget(settings.queue_bytes_max)
        self.limits = CaptureLimits(settings.capture_bytes_max)
        self.records = PathFilter(settings.include_paths, settings.exclude_paths).records
        self.request_id_header = settings.request_id_header
        self.background_failures = 0
        self.spans_dropped = 0
        self._span_lock = threading.Lock()
        self._span_bytes = 0
        self._span_bytes_max = settings.queue_bytes_max // _SPAN_SHARE
        self._assembler = assembler
        self._writer = writer
        self._delivery = delivery
        self._at_end = at_end
        self._clock = clock
        self._log = log
        self._counters = writer.counters
        self._slots_made = writer.slots_made
        self._queue: deque[Exchange | PendingSpan | _Barrier] = deque()
        self._sequence_no = 0
        self._kept = 0
        self._queue_full = 0
        self._spool_full = False
        self._wake = threading.Event()
        self._ready = threading.Event()
        self._stopping = False
        self._thread: threading.Thread | None = None

    # The event loop's side.

    def span_excluded(self, scope: Mapping[str, Any]) -> bool:
        """Whether `OTEL_PYTHON_[ASGI_]EXCLUDED_URLS` takes this request's span (never its row)."""
        excluded = self.settings.span_excluded
        return excluded is not None and excluded(scope)

    def began(self) -> None:
        """A request that is to be recorded arrived."""
        self._counters[SEEN] += 1

    def submit(self, exchange: Exchange) -> None:
        """Take a finished exchange; drop it, counted, where there is no room."""
        self._counters[FINISHED] += 1
        if self.budget.take(RECORD_BYTES):
            self._queue.append(exchange)
            return
        self.budget.give_back(exchange.granted_bytes)
        self._queue_full += 1
        self._writer.ledger.lose(exchange.started_at_ns // _MINUTE_NS, LossCause.QUEUE_FULL)

    def submit_span(self, span: PendingSpan) -> None:
        """Take a finished child span; drop it, counted, where there is no room. Any thread."""
        with self._span_lock:
            if self._span_bytes + span.held_bytes > self._span_bytes_max:
                self.spans_dropped += 1
                return
            self._span_bytes += span.held_bytes
        self._queue.append(span)

    def when_durable(self, callback: Callable[[bool], None]) -> None:
        """Call back, on the worker thread, once everything submitted until now is on the disk.

        Args:
            callback: Takes False where some of it was lost. Must not raise or block.
        """
        self._queue.append(_Barrier(callback))
        self._wake.set()

    def capture_failed(self, error: Exception) -> None:
        """Our own code failed beside a request: traffic goes on, the failure is counted."""
        self._log.capture_failed(error)

    def background_failed(self) -> None:
        """The app raised after its answer was complete (a background task)."""
        self.background_failures += 1

    # Life.

    @property
    def alive(self) -> bool:
        """Whether the worker thread runs."""
        return self._thread is not None and self._thread.is_alive()

    @property
    def has_slot(self) -> bool:
        """Whether records reach the disk now."""
        return self._writer.slot is not None

    def start(self) -> None:
        """Start the worker thread. Returns at once."""
        self._thread = threading.Thread(target=self._run, name="infertap-worker", daemon=True)
        self._thread.start()
        # For servers that send no lifespan events but let the interpreter end by itself; bounded like any stop.
        atexit.register(self.stop)

    def wait_ready(self) -> None:
        """Wait until the spool is open, or has said that it cannot be, at most 10 s."""
        self._ready.wait(_READY_S_MAX)

    def stop(self) -> None:
        """Spool everything, then wait for delivery, at most `drain_s`. Safe twice, and safe without `start`."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        atexit.unregister(self.stop)
        finish_flush = self.joining.begin_flush(self.settings.drain_s)
        self._stopping = True
        self._wake.set()
        thread.join(self.settings.drain_s + _READY_S_MAX)
        finish_flush()

    # The worker's side.

    def _run(self) -> None:
        self._log.starting(self.choice.start_line(self.settings.content), self.choice.warnings, self.choice.conflict)
        self._open()
        self.joining.look()
        self._ready.set()
        next_tick = 0.0
        while not self._stopping:
            if self._wake.wait(self.settings.spool_flush_ms / 1000):
                self._wake.clear()
            try:
                self._spool_queue()
                now = self._clock.monotonic_s()
                if now >= next_tick:
                    next_tick = now + _TICK_S
                    self._tick()
            except Exception as error:
                self._log.record_failed(error)
        self._finish()

    def _open(self) -> None:
        try:
            self._writer.open()
        except SpoolError as error:
            self._log.spool_failed(error)
        self._follow_slot()

    def _follow_slot(self) -> None:
        """A new slot has a page of its own. Its rows are numbered on: what was lost with the old one stays visible."""
        if self._slots_made != self._writer.slots_made:
            self._slots_made = self._writer.slots_made
            self._counters = self._writer.counters

    def _tick(self) -> None:
        if self._writer.ledger.dirty:
            self._flush()
        self._writer.tick()
        self._follow_slot()
        # At the cap the drainer makes room; only where none lives must new records be dropped.
        self._spool_full = not self._writer.room() and not self._delivery.drainer_lives()
        self._counters[QUEUE_BYTES] = self.budget.held
        if self._queue_full:
            dropped, self._queue_full = self._queue_full, 0
            self._log.queue_full(dropped)
        self._delivery.tick()
        self.joining.look()

    def _spool_queue(self) -> None:
        """Everything that waits, in groups; each group is durable before the next is begun."""
        queue = self._queue
        while queue:
            self._counters[OLDEST_UNSPOOLED_NS] = _arrival_ns(queue[0])
            self._spool_group()
        self._counters[OLDEST_UNSPOOLED_NS] = 0

    def _spool_group(self) -> None:
        group = _Group()
        yielded_s = time.perf_counter()
        while self._queue and len(group.frames) < _GROUP_RECORDS_MAX and group.size_bytes < _GROUP_BYTES_MAX:
            item = self._queue.popleft()
            if isinstance(item, _Barrier):
                group.barriers.append(item)
                continue
            self._take(item, group)
            if time.perf_counter() - yielded_s > _YIELD_AFTER_S:
                _yield_lock()
                yielded_s = time.perf_counter()
        self._writer.append(group.frames, minutes=group.minutes)
        durable = self._flush()
        self.budget.release(group.released_bytes)
        if durable:
            self._kept += len(group.minutes)
        for barrier in group.barriers:
            barrier.callback(durable and group.whole)

    def _take(self, item: Exchange | PendingSpan, group: "_Group") -> None:
        try:
            frame = self._frame(item, group.minutes)
        except Exception as error:
            frame = None
            self._failed(item, error)
        if frame is None:
            group.whole = False
        else:
            group.frames.append(frame)
            group.size_bytes += len(frame[1])
        if isinstance(item, Exchange):
            group.released_bytes += RECORD_BYTES + item.granted_bytes
        else:
            with self._span_lock:
                self._span_bytes -= item.held_bytes

    def _frame(self, item: Exchange | PendingSpan, minutes: list[int]) -> tuple[Kind, bytes] | None:
        if self._spool_full:
            if isinstance(item, Exchange):
                self._writer.ledger.lose(item.started_at_ns // _MINUTE_NS, LossCause.SPOOL_FULL)
            return None
        return self._request_frame(item, minutes) if isinstance(item, Exchange) else self._span_frame(item)

    def _request_frame(self, exchange: Exchange, minutes: list[int]) -> tuple[Kind, bytes]:
        record = self._assembler.record(exchange)
        record.sequence_no = self._sequence_no + 1
        frame = (Kind.REQUEST, _packed(record.to_payload()))
        self._sequence_no += 1
        minutes.append(exchange.started_at_ns // _MINUTE_NS)
        return frame

    def _span_frame(self, span: PendingSpan) -> tuple[Kind, bytes]:
        return (Kind.SPAN, _packed(self._assembler.span(span).to_payload()))

    def _failed(self, item: Exchange | PendingSpan, error: Exception) -> None:
        self._log.record_failed(error)
        if isinstance(item, Exchange):
            self._writer.ledger.lose(item.started_at_ns // _MINUTE_NS, LossCause.WORKER_ERROR)

    def _flush(self) -> bool:
        """Whether what was appended is durable now."""
        durable = True
        try:
            self._writer.flush()
        except SpoolError as error:
            # The writer has counted what it lost.
            durable = False
            self._log.spool_failed(error)
        self._follow_slot()
        return durable

    def _finish(self) -> None:
        try:
            self._spool_queue()
            if self._writer.ledger.dirty:
                self._flush()
            self._writer.seal()
            waiting = self._delivery.flush_and_wait(self._writer, deadline_s=self.settings.drain_s)
            self._log.stopped(self._kept, waiting, self.choice.folder)
        except Exception as error:
            self._log.spool_failed(error)
        self._writer.close()
        self._delivery.close()
        self._at_end()


class _Barrier(NamedTuple):
    """A place in the queue, and who wants to know when it has been passed."""

    callback: Callable[[bool], None]


@dataclass(slots=True)
class _Group:
    """What goes to the disk together."""

    frames: list[tuple[Kind, bytes]] = field(default_factory=list)
    minutes: list[int] = field(default_factory=list)
    barriers: list[_Barrier] = field(default_factory=list)
    size_bytes: int = 0
    released_bytes: int = 0
    whole: bool = True


def _arrival_ns(item: Exchange | PendingSpan | _Barrier) -> int:
    if isinstance(item, _Barrier):
        return 0
    return item.started_at_ns if isinstance(item, Exchange) else item.start_ns


def _packed(payload: dict[str, Any]) -> bytes:
    try:
        return ormsgpack.packb(payload)
    except (TypeError, ValueError):
        # Lone surrogates and integers over 64 bits, which msgpack does not hold.
        return ormsgpack.packb(_packable(payload))


def _packable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {_packable(str(key)): _packable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_packable(item) for item in value]
    if isinstance(value, int) and not -(1 << 63) <= value < 1 << 64:
        return str(value)
    return value
