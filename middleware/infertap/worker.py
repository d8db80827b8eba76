"""From the queue to the spool: one thread assembles, redacts, packs and makes durable, group by group.

1. It gives the interpreter lock away as it goes, or every wake-up of the event loop would wait for it.
2. `except Exception` stands at its two borders: one record's failure is that record's, one group's failure is that
   group's; both are counted, and the thread goes on.
"""

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Protocol

import ormsgpack

from infertap.clock import Clock
from infertap.errors import SpoolError
from infertap.events import EventLog
from infertap.handover import Fate
from infertap.inbox import Handed, Inbox, Item, arrival_ns
from infertap.joining.joining import Joining
from infertap.processors.assemble import Assembler
from infertap.record import Exchange, InferenceRecord, LossCause
from infertap.spool.frames import Kind
from infertap.spool.page import FINISHED, KEPT, LOST, OLDEST_UNSPOOLED_NS, QUEUE_BYTES, SEEN, SPANS_DROPPED
from infertap.spool.waiting import Waiting
from infertap.spool.writer import SpoolWriter

MINUTE_NS = 60_000_000_000
_GROUP_RECORDS_MAX = 256
_GROUP_BYTES_MAX = 1 << 20
_YIELD_AFTER_S = 100e-6
"""Longest time without giving the interpreter lock away, however short the records are. Without it a group of short
records holds the lock for milliseconds, and the event loop's p99 goes with it (`benchmarks/lag.py`)."""
_YIELD_AFTER_BEHIND_S = 1e-3
"""The same while more than a group waits. An event loop that has no time to spare keeps what it is given for the whole
switch interval (5 ms): at a tenth of a millisecond for each of those, the worker would never catch up."""
_TICK_S = 1.0
STOP_SPOOL_S_MIN = 5.0
"""A stop spends so much time on spooling what waits, if it must, also where `drain_s` is shorter."""
_FAILURES_MAX = 16
"""They hold frames alive until they are told, and their log line is rate limited anyway."""

_yield_lock: Callable[[], object] = getattr(os, "sched_yield", lambda: time.sleep(0))


class Delivery(Protocol):
    """The owner's side of the drainer: elects, spawns, asks for a flush. All calls from the worker thread."""

    def tick(self) -> None:
        """Look after the drainer; called each second."""

    def flush_and_wait(self, owner: SpoolWriter, *, deadline_s: float) -> Waiting:
        """Have what is sealed delivered, and wait for it. Returns what is left."""

    def lost_behind(self, owner: SpoolWriter) -> Mapping[str, int]:
        """Spooled requests of this owner that are lost all the same, by destination and cause."""

    def who_delivers(self) -> str:
        """What becomes of that which is left, in words."""

    def drainer_lives(self) -> bool:
        """Whether somebody carries the spool on."""

    def close(self) -> None:
        """Let go of everything."""


class Worker:
    """The worker's side of a pipeline; every method but `wake` and `stop` belongs to its thread.

    Args:
        writer: Not opened yet: `run` opens it, so that a start never blocks the event loop.
        flush_s: Records reach the disk at least this often.
        drain_s: How long the end may take, delivery included.
        at_end: Ends a drainer that ran in a thread of this process; told how many seconds that may take.
    """

    def __init__(
        self,
        inbox: Inbox,
        *,
        assembler: Assembler,
        writer: SpoolWriter,
        delivery: Delivery,
        joining: Joining,
        flush_s: float,
        drain_s: float,
        at_end: Callable[[float], None],
        clock: Clock,
        log: EventLog,
    ) -> None:
        self.writer = writer
        self.delivery = delivery
        self.counters = writer.counters
        """The ledger page's; another object after each change of slot, so the event loop fetches it each time."""
        self.ready = threading.Event()
        self.stopping = False
        self.queue_full = 0
        """Records refused since the last tick; written by the event loop."""
        self.failures: deque[Exception] = deque(maxlen=_FAILURES_MAX)
        """What failed beside requests since the last tick: nothing is logged on the event loop."""
        self._inbox = inbox
        self._assembler = assembler
        self._joining = joining
        self._flush_s = flush_s
        self._drain_s = drain_s
        self._at_end = at_end
        self._clock = clock
        self._log = log
        self._slots_made = writer.slots_made
        self._sequence_no = 0
        self._spool_full = False
        self._next_tick_s = 0.0
        self._stopped_s = 0.0
        self._wake = threading.Event()

    def wake(self) -> None:
        """Do not wait for the next flush."""
        self._wake.set()

    def stop(self) -> None:
        """Have `run` spool what waits, wait for delivery and return, all within `stop_s_max`."""
        self._stopped_s = self._clock.monotonic_s()
        self.stopping = True
        self._wake.set()

    @property
    def stop_s_max(self) -> float:
        """How long spooling and delivery together may take after `stop`."""
        return max(self._drain_s, STOP_SPOOL_S_MIN)

    def run(self, once_open: Callable[[], None] = lambda: None) -> None:
        """The thread's life. `once_open` is called when the spool is open and nobody waits for that any more."""
        try:
            self._open()
            self._joining.look()
        except Exception as error:
            # The outermost boundary of the start: the thread lives on, and tries again at each tick.
            self._log.record_failed(error)
        finally:
            self.ready.set()
        once_open()
        while not self.stopping:
            if self._wake.wait(self._flush_s):
                self._wake.clear()
            try:
                self.spool_queue()
                self._tick_if_due()
            except Exception as error:
                self._log.record_failed(error)
        self._finish()

    def _open(self) -> None:
        try:
            self.writer.open()
        except SpoolError as error:
            self._log.spool_failed(error)
        self._follow_slot()

    def _follow_slot(self) -> None:
        """A new slot has a page of its own. Its rows are numbered on: what was lost with the old one stays visible."""
        if self._slots_made != self.writer.slots_made:
            self._slots_made = self.writer.slots_made
            self.counters = self.writer.counters
            self.writer.ledger.take_left_behind()

    def _tick_if_due(self) -> None:
        now_s = self._clock.monotonic_s()
        if now_s >= self._next_tick_s:
            self._next_tick_s = now_s + _TICK_S
            self._tick()

    def _tick(self) -> None:
        if self.writer.ledger.dirty:
            self._flush()
        self.writer.tick()
        self._follow_slot()
        # At the cap the drainer makes room; only where none lives must new records be dropped.
        self._spool_full = not self.writer.room() and not self.delivery.drainer_lives()
        self.counters[QUEUE_BYTES] = self._inbox.budget.held
        self.counters[SPANS_DROPPED] += self._inbox.take_dropped()
        self._tell_failures()
        if self.queue_full:
            dropped, self.queue_full = self.queue_full, 0
            self._log.queue_full(dropped)
        self.delivery.tick()
        self._joining.look()

    def spool_queue(self) -> None:
        """Everything that waits, in groups; each group is durable before the next is begun."""
        queue = self._inbox.queue
        while queue and not self._late():
            self.counters[OLDEST_UNSPOOLED_NS] = arrival_ns(queue[0])
            self._spool_group()
            if not self.stopping:
                # Under a load that never lets the queue run empty, somebody must still look after the drainer.
                self._tick_if_due()
        self.counters[OLDEST_UNSPOOLED_NS] = 0

    def _spool_group(self) -> None:
        group = _Group()
        yield_after_s = _YIELD_AFTER_S if len(self._inbox.queue) <= _GROUP_RECORDS_MAX else _YIELD_AFTER_BEHIND_S
        yielded_s = time.perf_counter()
        # What is assembled reaches the disk by then, however long the lock stays away between two records.
        ends_s = yielded_s + self._flush_s
        for item in self._inbox.items():
            fate = self._take(item, group)
            if isinstance(item, Handed):
                group.handed.append((item, fate))
            if len(group.frames) >= _GROUP_RECORDS_MAX or group.size_bytes >= _GROUP_BYTES_MAX or self._late():
                break
            if time.perf_counter() - yielded_s > yield_after_s:
                _yield_lock()
                yielded_s = time.perf_counter()
                if yielded_s > ends_s:
                    break
        durable = self._append(group) and self._flush()
        self._inbox.budget.release(group.released_bytes)
        for handed, fate in group.handed:
            self._settle(handed, fate if durable or fate is not Fate.SPOOLED else Fate.LOST)

    def _append(self, group: "_Group") -> bool:
        """Whether the writer has taken the group, and its counts with it."""
        try:
            self.writer.append(group.frames, minutes=group.minutes)
        except Exception as error:
            for minute in group.minutes:
                self.writer.ledger.lose(minute, LossCause.WORKER_ERROR)
            self.counters[SPANS_DROPPED] += len(group.frames) - len(group.minutes)
            self._log.record_failed(error)
            return False
        return True

    def _settle(self, handed: Handed, fate: Fate) -> None:
        """Tell a sender; one that cannot be told must not keep the others waiting."""
        try:
            handed.batch.settle(handed.place, fate)
        except Exception as error:
            self._log.record_failed(error)

    def _late(self) -> bool:
        """Whether the time for a stop is over."""
        return self.stopping and self._clock.monotonic_s() - self._stopped_s >= self.stop_s_max

    def _lose_queue(self) -> None:
        """What could not be spooled in time is counted; nobody will come for it."""
        inbox = self._inbox
        for item in islice(inbox.items(), len(inbox.queue)):
            self._count_arrival(item)
            self._lose(item, LossCause.STOP_DEADLINE)
            inbox.budget.release(inbox.release(item))
            if isinstance(item, Handed):
                self._settle(item, Fate.LOST)
        self.counters[OLDEST_UNSPOOLED_NS] = 0

    def _count_arrival(self, item: Item) -> None:
        """A request of another process is seen here: one thread counts, whichever threads take it, and what its
        sender never had an answer for comes again."""
        if isinstance(item, Handed) and item.is_request:
            self.counters[SEEN] += 1
            self.counters[FINISHED] += 1

    def _take(self, item: Item, group: "_Group") -> Fate:
        fate = Fate.SPOOLED
        self._count_arrival(item)
        try:
            if self._spool_full:
                fate = Fate.LOST
                self._lose(item, LossCause.SPOOL_FULL)
            else:
                frames = self._frames(item, group.minutes)
                group.frames += frames
                group.size_bytes += sum(len(payload) for _, payload in frames)
        except Exception as error:
            fate = Fate.UNBUILDABLE
            # A minute without its frame would be another row's.
            del group.minutes[sum(kind is Kind.REQUEST for kind, _ in group.frames) :]
            self._lose(item, LossCause.WORKER_ERROR)
            self._log.record_failed(error)
        group.released_bytes += self._inbox.release(item)
        return fate

    def _frames(self, item: Item, minutes: list[int]) -> Sequence[tuple[Kind, bytes]]:
        if isinstance(item, Exchange):
            record = self._assembler.record(item)
            frame = self._request_frame(record, item.started_at_ns, minutes)
            if self._joining.active:
                self._joining.echo(record)
            return [frame]
        if isinstance(item, Handed) and item.is_request:
            record, span = self._assembler.request_span(item.span)
            # The span first: where it cannot be packed, there shall be no row either.
            packed = (Kind.SPAN, _packed(span.to_payload()))
            return [self._request_frame(record, item.start_ns, minutes), packed]
        finished = self._assembler.span(item.span if isinstance(item, Handed) else item)
        return [] if finished is None else [(Kind.SPAN, _packed(finished.to_payload()))]

    def _request_frame(self, record: InferenceRecord, started_ns: int, minutes: list[int]) -> tuple[Kind, bytes]:
        record.sequence_no = self._sequence_no + 1
        frame = (Kind.REQUEST, _packed(record.to_payload()))
        self._sequence_no += 1
        minutes.append(started_ns // MINUTE_NS)
        return frame

    def _lose(self, item: Item, cause: LossCause) -> None:
        """Book a request that will have no row; spans alone are not in the ledger, and their senders hear of theirs."""
        if isinstance(item, Exchange) or (isinstance(item, Handed) and item.is_request):
            self.writer.ledger.lose(arrival_ns(item) // MINUTE_NS, cause)
        elif not isinstance(item, Handed):
            self.counters[SPANS_DROPPED] += 1

    def _flush(self) -> bool:
        """Whether what was appended is durable now. What is not, the writer has counted."""
        try:
            self.writer.flush()
        except SpoolError as error:
            self._log.spool_failed(error)
            return False
        except Exception as error:
            self._log.record_failed(error)
            return False
        finally:
            self._follow_slot()
        return True

    def _tell_failures(self) -> None:
        while self.failures:
            self._log.capture_failed(self.failures.popleft())

    def _finish(self) -> None:
        self._tell_failures()
        # Each step whatever became of the one before: what is in the spool is delivered, and what was lost is said.
        self._try(self.spool_queue)
        self._try(self._end_spooling)
        waits: list[str] = []
        behind: dict[str, int] = {}
        self._try(lambda: waits.append(self._deliver_rest()))
        self._try(lambda: behind.update(self.delivery.lost_behind(self.writer)))
        # What came while that was waited for.
        self._try(self._end_spooling)
        totals = self.writer.totals()
        lost = {cause.value: totals[index] for cause, index in LOST.items()}
        self._log.stopped(totals[KEPT], lost, behind, "".join(waits))
        self._try(self.writer.close)
        self._try(self.delivery.close)
        self._try(lambda: self._at_end(self._left_s(self.stop_s_max)))

    def _try(self, step: Callable[[], object]) -> None:
        try:
            step()
        except SpoolError as error:
            self._log.spool_failed(error)
        except Exception as error:
            self._log.record_failed(error)

    def _left_s(self, of_s: float) -> float:
        """What is left of the time since the stop was asked for."""
        return max(0.0, of_s - (self._clock.monotonic_s() - self._stopped_s))

    def _end_spooling(self) -> None:
        # Nobody will come for what is left.
        self._lose_queue()
        if self.writer.ledger.dirty:
            self._flush()
        self.counters[SPANS_DROPPED] += self._inbox.take_dropped()
        self.counters[QUEUE_BYTES] = self._inbox.budget.held
        self.writer.seal()

    def _deliver_rest(self) -> str:
        """What is left afterwards and who delivers it, in words. Of this process alone: siblings wait for theirs."""
        left = self.delivery.flush_and_wait(self.writer, deadline_s=self._left_s(self._drain_s))
        return f"{left.sentence} in the spool {self.delivery.who_delivers()}" if left.segments else ""


@dataclass(slots=True)
class _Group:
    """What goes to the disk together."""

    frames: list[tuple[Kind, bytes]] = field(default_factory=list)
    minutes: list[int] = field(default_factory=list)
    handed: list[tuple[Handed, Fate]] = field(default_factory=list)
    size_bytes: int = 0
    released_bytes: int = 0


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
