"""One process's recorder, as the event loop sees it: counts, takes, and never waits.

The loop appends to the inbox and counts; parsing, redaction and the disk are the worker's (`worker.py`).
"""

import atexit
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from infertap.capture import SEALED_GRANTED, SEALED_HELD, CaptureLimits, Sealed
from infertap.choice import Choice
from infertap.clock import Clock
from infertap.events import EventLog
from infertap.handover import SpanBatch
from infertap.inbox import Inbox, arrival_ns
from infertap.joining.joining import Joining, JoiningSettings
from infertap.paths import PathFilter
from infertap.processors.assemble import Assembler
from infertap.record import LossCause, PendingSpan
from infertap.spool.forgotten import forgotten_folders
from infertap.spool.page import BACKGROUND_FAILURES, CAPTURE_FAILURES, FINISHED, SEEN
from infertap.spool.writer import SpoolWriter
from infertap.trace_context import TraceSettings
from infertap.worker import MINUTE_NS, Delivery, Worker

_READY_S_MAX = 10.0
_LAST_RECORD_S_MAX = 5.0
"""A stop waits so much longer for the record that the worker has in hand: nobody can take it from a thread."""


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
        writer, delivery, at_end: The worker's; see there.
    """

    def __init__(
        self,
        choice: Choice,
        settings: PipelineSettings,
        *,
        assembler: Assembler,
        writer: SpoolWriter,
        delivery: Delivery,
        at_end: Callable[[float], None],
        trace: TraceSettings,
        joining: JoiningSettings,
        clock: Clock,
        log: EventLog,
    ) -> None:
        self.choice = choice
        self.settings = settings
        self.trace = trace
        self.joining = Joining(self, joining, log.warn)
        self.inbox = Inbox(settings.queue_bytes_max, int(settings.queue_bytes_max * settings.span_share))
        self.budget = self.inbox.budget
        self.submit_span: Callable[[PendingSpan], bool] = self.inbox.put_span
        """Take a finished child span; drop it, counted, where there is no room. Any thread. Whether it was taken."""
        self.limits = CaptureLimits(self.budget, settings.capture_bytes_max)
        self.records: Callable[[str], bool] = PathFilter(settings.include_paths, settings.exclude_paths).records
        self.request_id_header = settings.request_id_header
        self.outer_secret = settings.outer_secret
        self.span_excluded = settings.span_excluded
        """Whether `OTEL_PYTHON_[ASGI_]EXCLUDED_URLS` takes a request's span (never its row); None where unset."""
        self.worker = Worker(
            self.inbox,
            assembler=assembler,
            writer=writer,
            delivery=delivery,
            joining=self.joining,
            flush_s=settings.spool_flush_ms / 1000,
            drain_s=settings.drain_s,
            at_end=at_end,
            clock=clock,
            log=log,
        )
        self._log = log
        self._thread: threading.Thread | None = None
        self._holders: list[Callable[[Pipeline], None]] = []
        self._holding = threading.Lock()

    # The event loop's side.

    def began(self) -> None:
        """A request that is to be recorded arrived."""
        self.worker.counters[SEEN] += 1

    def submit(self, sealed: Sealed) -> None:
        """Take a finished exchange; drop it, counted, where there is no room."""
        worker = self.worker
        spare = sealed[SEALED_GRANTED] - sealed[SEALED_HELD]
        if spare >= 0:
            # `put_exchange` does the same, and is another call for each request.
            self.budget.taken -= spare
            self.inbox.queue.append(sealed)
            taken = True
        else:
            taken = self.inbox.put_exchange(sealed)
        worker.counters[FINISHED] += 1
        if not taken:
            worker.queue_full += 1
            worker.writer.ledger.lose(arrival_ns(sealed) // MINUTE_NS, LossCause.QUEUE_FULL)

    def submit_batch(self, batch: SpanBatch) -> bool:
        """Take all spans of another process, or none where there is no room. Any thread.

        The batch hears on the worker thread what became of each.
        """
        if self.worker.stopping or not self.inbox.put_batch(batch):
            return False
        self.worker.wake()
        return True

    def capture_failed(self, error: Exception, started_at_ns: int | None = None, *, began: bool = False) -> None:
        """Our own code failed beside a request: traffic goes on, the failure is counted, and the worker says it.

        Args:
            started_at_ns: Arrival, where the whole record is lost; None where only a part of it is.
            began: Whether `began` has counted the request already.
        """
        self.worker.failures.append(error)
        self.worker.counters[CAPTURE_FAILURES] += 1
        if started_at_ns is not None:
            counters = self.worker.counters
            if not began:
                counters[SEEN] += 1
            counters[FINISHED] += 1
            self.worker.writer.ledger.lose(started_at_ns // MINUTE_NS, LossCause.CAPTURE_ERROR)

    def background_failed(self) -> None:
        """The app raised after its answer was complete (a background task)."""
        self.worker.counters[BACKGROUND_FAILURES] += 1

    # Life.

    @property
    def alive(self) -> bool:
        """Whether the worker thread runs."""
        return self._thread is not None and self._thread.is_alive()

    @property
    def has_slot(self) -> bool:
        """Whether records reach the disk now."""
        return self.worker.writer.slot is not None

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
        atexit.register(self._stop_with_process)

    def _run(self) -> None:
        # Said on this thread: a server without lifespan starts us on its event loop.
        choice = self.choice
        self._log.starting(choice.start_line(self.settings.content), choice.warnings, choice.conflict)
        self.worker.run(once_open=self._tell_forgotten)

    def _tell_forgotten(self) -> None:
        spool_dirs = (self.choice.spool_dir, *self.choice.other_spool_dirs)
        self._log.forgotten(forgotten_folders(spool_dirs, own=self.choice.folder))

    def hold(self, let_go: "Callable[[Pipeline], None]") -> bool:
        """Tell `let_go` when a stop begins, so that whoever records here goes on elsewhere; false where it has begun.

        Any thread.
        """
        with self._holding:
            if self._thread is not None:
                self._holders.append(let_go)
            return self._thread is not None

    def wait_ready(self) -> None:
        """Wait until the spool is open, or has said that it cannot be, at most 10 s."""
        self.worker.ready.wait(_READY_S_MAX)

    def stop(self) -> None:
        """Spool everything, then wait for delivery: at most `drain_s`, or 5 s where that is less.

        5 s more for the record that the worker has in hand.
        What cannot be spooled in time is counted as lost. Safe twice, and safe without `start`.
        """
        with self._holding:
            thread, self._thread = self._thread, None
            holders, self._holders = self._holders, []
        for let_go in holders:
            let_go(self)
        if thread is not None:
            self._end(thread)

    def _stop_with_process(self) -> None:
        # Whoever records here is not to begin anew.
        self._holders.clear()
        self.stop()

    def _end(self, thread: threading.Thread) -> None:
        atexit.unregister(self._stop_with_process)
        finish_flush = self.joining.begin_flush(self.settings.drain_s)
        self.worker.stop()
        thread.join(self.worker.stop_s_max + _LAST_RECORD_S_MAX)
        if thread.is_alive():
            self._log.warn("the worker hangs; requests that it still holds will be counted as crash_in_flight")
        finish_flush()


def _nothing(_: str) -> bool:
    return False
