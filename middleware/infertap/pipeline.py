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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import ormsgpack

from infertap.capture import ByteBudget, CaptureLimits
from infertap.choice import Choice
from infertap.clock import Clock
from infertap.errors import SpoolError
from infertap.events import EventLog
from infertap.handover import Fate, SpanBatch
from infertap.joining.joining import Joining, JoiningSettings
from infertap.paths import PathFilter
from infertap.processors.assemble import Assembler
from infertap.record import ErrorCode, Exchange, InferenceRecord, LossCause, PendingSpan
from infertap.spool.folder import SpoolFolder, list_segments
from infertap.spool.frames import Kind
from infertap.spool.page import FINISHED, LOST, OLDEST_UNSPOOLED_NS, QUEUE_BYTES, SEEN
from infertap.spool.writer import SpoolWriter
from infertap.trace_context import TraceSettings

RECORD_BYTES = 2 << 10
"""What a record without its bodies is taken to hold in memory: headers, tuples, strings."""
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
    outer_secret: bytes | None = None
    """With this value in `x-infertap-outer`, a sidecar in front says that it writes the row."""
    span_share: float = 0.25
    """The part of `queue_bytes_max` that spans may hold, beside the requests' bodies."""


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
        self.records: Callable[[str], bool] = PathFilter(settings.include_paths, settings.exclude_paths).records
        self.request_id_header = settings.request_id_header
        self.outer_secret = settings.outer_secret
        self.background_failures = 0
        self.spans_dropped = 0
        self._span_lock = threading.Lock()
        self._span_bytes = 0
        self.span_bytes_max = int(settings.queue_bytes_max * settings.span_share)
        self._assembler = assembler
        self._writer = writer
        self._delivery = delivery
        self._at_end = at_end
        self._clock = clock
        self._log = log
        self._counters = writer.counters
        self._slots_made = writer.slots_made
        self._queue: deque[_Item] = deque()
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
        elif exchange.granted_bytes >= RECORD_BYTES:
            # Bodies go first: the room of this one's own is enough for the record.
            self.budget.give_back(exchange.granted_bytes - RECORD_BYTES)
            self._queue.append(_without_bodies(exchange))
        else:
            self.budget.give_back(exchange.granted_bytes)
            self._queue_full += 1
            self._writer.ledger.lose(exchange.started_at_ns // _MINUTE_NS, LossCause.QUEUE_FULL)

    def submit_span(self, span: PendingSpan) -> bool:
        """Take a finished child span; drop it, counted, where there is no room. Any thread. Whether it was taken."""
        with self._span_lock:
            if self._span_bytes + span.held_bytes > self.span_bytes_max:
                self.spans_dropped += 1
                return False
            self._span_bytes += span.held_bytes
        self._queue.append(span)
        return True

    def submit_batch(self, batch: SpanBatch) -> bool:
        """Take all spans of another process, or none where there is no room. Any thread.

        The batch hears on the worker thread what became of each.
        """
        with self._span_lock:
            if self._stopping or self._span_bytes + batch.held_bytes > self.span_bytes_max:
                return False
            self._span_bytes += batch.held_bytes
            requests = sum(offered.is_request for offered in batch.spans)
            self._counters[SEEN] += requests
            self._counters[FINISHED] += requests
        self._queue.extend(_Handed(batch, index) for index in range(len(batch.spans)))
        self._wake.set()
        return True

    def when_durable(self, callback: Callable[[bool], None]) -> None:
        """Call back, on the worker thread, once everything submitted until now is on the disk.

        Args:
            callback: Takes False where some of it was lost. Must not raise or block.
        """
        self._queue.append(_Barrier(callback))
        self._wake.set()

    def capture_failed(self, error: Exception, started_at_ns: int | None = None, *, began: bool = False) -> None:
        """Our own code failed beside a request: traffic goes on, the failure is counted.

        Args:
            started_at_ns: Arrival, where the whole record is lost; None where only a part of it is.
            began: Whether `began` has counted the request already.
        """
        self._log.capture_failed(error)
        if started_at_ns is not None:
            if not began:
                self._counters[SEEN] += 1
            self._counters[FINISHED] += 1
            self._writer.ledger.lose(started_at_ns // _MINUTE_NS, LossCause.CAPTURE_ERROR)

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
        try:
            self._thread.start()
        except RuntimeError as error:
            # No thread to be had (a process limit): traffic goes on, and nothing may pile up for nobody.
            self._thread = None
            self.records = _nothing
            self._log.not_recording([f"no worker thread can be started: {error}"])
            return
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
            fate = self._take(item, group)
            if isinstance(item, _Handed):
                group.handed.append((item, fate))
            if time.perf_counter() - yielded_s > _YIELD_AFTER_S:
                _yield_lock()
                yielded_s = time.perf_counter()
        durable = False
        try:
            self._writer.append(group.frames, minutes=group.minutes)
            durable = self._flush()
        finally:
            # Whatever happened, nobody waits for ever.
            self.budget.release(group.released_bytes)
            for barrier in group.barriers:
                barrier.callback(durable and group.whole)
            for handed, fate in group.handed:
                handed.batch.settle(handed.place, fate if durable or fate is not Fate.SPOOLED else Fate.LOST)
        if durable:
            self._kept += len(group.minutes)

    def _take(self, item: "Exchange | PendingSpan | _Handed", group: "_Group") -> Fate:
        fate = Fate.SPOOLED
        try:
            if self._spool_full:
                fate = Fate.LOST
                self._lose(item, LossCause.SPOOL_FULL)
            else:
                for frame in self._frames(item, group.minutes):
                    group.frames.append(frame)
                    group.size_bytes += len(frame[1])
        except Exception as error:
            fate = Fate.UNBUILDABLE
            self._log.record_failed(error)
            self._lose(item, LossCause.WORKER_ERROR)
        group.whole = group.whole and fate is Fate.SPOOLED
        if isinstance(item, Exchange):
            group.released_bytes += RECORD_BYTES + item.granted_bytes
        else:
            with self._span_lock:
                self._span_bytes -= item.held_bytes
        return fate

    def _frames(self, item: "Exchange | PendingSpan | _Handed", minutes: list[int]) -> Sequence[tuple[Kind, bytes]]:
        if isinstance(item, Exchange):
            record = self._assembler.record(item)
            frame = self._request_frame(record, item.started_at_ns, minutes)
            if self.joining.active:
                self.joining.echo(record)
            return [frame]
        if isinstance(item, _Handed) and item.is_request:
            record, span = self._assembler.request_span(item.span)
            # The span first: where it cannot be packed, there shall be no row either.
            packed = (Kind.SPAN, _packed(span.to_payload()))
            return [self._request_frame(record, item.start_ns, minutes), packed]
        span = self._assembler.span(item.span if isinstance(item, _Handed) else item)
        return [(Kind.SPAN, _packed(span.to_payload()))]

    def _request_frame(self, record: InferenceRecord, started_ns: int, minutes: list[int]) -> tuple[Kind, bytes]:
        record.sequence_no = self._sequence_no + 1
        frame = (Kind.REQUEST, _packed(record.to_payload()))
        self._sequence_no += 1
        minutes.append(started_ns // _MINUTE_NS)
        return frame

    def _lose(self, item: "Exchange | PendingSpan | _Handed", cause: LossCause) -> None:
        """Book a request that will have no row; spans alone are not in the ledger."""
        if isinstance(item, Exchange) or (isinstance(item, _Handed) and item.is_request):
            self._writer.ledger.lose(_arrival_ns(item) // _MINUTE_NS, cause)

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
            lost = {cause.value: self._counters[index] for cause, index in LOST.items()}
            self._delivery.flush_and_wait(self._writer, deadline_s=self.settings.drain_s)
            folder = SpoolFolder(self.choice.folder)
            waiting = sum(len(list_segments(folder.slot_dir(spool_id))) for spool_id in folder.slot_ids())
            self._log.stopped(self._kept, lost, waiting, self.choice.folder)
        except SpoolError as error:
            self._log.spool_failed(error)
        except Exception as error:
            self._log.record_failed(error)
        self._writer.close()
        self._delivery.close()
        self._at_end()


def _without_bodies(exchange: Exchange) -> Exchange:
    codes = exchange.codes
    if exchange.request_chunks:
        codes += (ErrorCode.REQUEST_OVER_BUDGET.value,)
    if exchange.response_chunks:
        codes += (ErrorCode.RESPONSE_OVER_BUDGET.value,)
    return exchange._replace(request_chunks=(), response_chunks=(), granted_bytes=0, codes=codes)


def _nothing(_: str) -> bool:
    return False


class _Barrier(NamedTuple):
    """A place in the queue, and who wants to know when it has been passed."""

    callback: Callable[[bool], None]


class _Handed(NamedTuple):
    """One span of another process's batch."""

    batch: SpanBatch
    place: int

    @property
    def span(self) -> PendingSpan:
        return self.batch.spans[self.place].span

    @property
    def is_request(self) -> bool:
        return self.batch.spans[self.place].is_request

    @property
    def held_bytes(self) -> int:
        return self.span.held_bytes

    @property
    def start_ns(self) -> int:
        return self.span.start_ns


_Item = Exchange | PendingSpan | _Handed | _Barrier


@dataclass(slots=True)
class _Group:
    """What goes to the disk together."""

    frames: list[tuple[Kind, bytes]] = field(default_factory=list)
    minutes: list[int] = field(default_factory=list)
    barriers: list[_Barrier] = field(default_factory=list)
    handed: list[tuple[_Handed, Fate]] = field(default_factory=list)
    size_bytes: int = 0
    released_bytes: int = 0
    whole: bool = True


def _arrival_ns(item: _Item) -> int:
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
