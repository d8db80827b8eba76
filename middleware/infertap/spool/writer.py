"""The app's side of the border: from buffered frames to durable segments, with every request accounted for.

1. After `flush` returns, its rows survive the process and the machine. A row that cannot be written is counted as
   lost, here, before the caller hears of it; the caller only reports.
2. Where a folder has vanished, only a record makes a new one: an ended test run leaves nothing behind.
"""

import contextlib
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from infertap.clock import Clock
from infertap.errors import SpoolError, SpoolFullError
from infertap.record import LossCause
from infertap.spool.capacity import Capacity
from infertap.spool.folder import SpoolFolder
from infertap.spool.forks import close_in_forked_child
from infertap.spool.frames import OVERHEAD_BYTES, Kind
from infertap.spool.journal import Journal
from infertap.spool.ledger import Ledger
from infertap.spool.page import BEAT_NS, SPANS_DROPPED
from infertap.spool.slot import Slot

SEGMENT_BYTES_MAX = 8 << 20
SEGMENT_AGE_S_MAX = 5.0


class _Pending(NamedTuple):
    kind: Kind
    payload: bytes
    minute: int
    """Epoch minute of arrival; -1 for what is not a request."""


class SpoolWriter:
    """One pipeline's writer. All calls from one thread, but for `room`; the ledger has its own rules.

    `counters` and `ledger` are other objects after each change of slot (`slots_made` tells), so fetch them again after
    `open`, `flush` and `tick`. In a forked child, the writer has forgotten its parent's slot, buffer and counts, and
    makes its own at the next write; old `counters` raise ValueError there.
    """

    def __init__(
        self,
        folder: SpoolFolder,
        header: Mapping[str, Any],
        *,
        identity: Mapping[str, Any],
        spool_bytes_max: int,
        clock: Clock,
        segment_bytes_max: int = SEGMENT_BYTES_MAX,
        segment_age_s_max: float = SEGMENT_AGE_S_MAX,
    ) -> None:
        """Touches nothing on the disk.

        Args:
            folder: Made, and made again where it vanishes, by the writer.
            header: Process constants for the OPEN frames: `service_name`, `instance`, `resource`.
            identity: For the folder's `destination.json`.
            spool_bytes_max: The cap that `room` speaks of.
            clock: Wall time for what is written down, monotonic time for ages.
            segment_bytes_max: A segment is sealed at this size; it may be over it by one frame.
            segment_age_s_max: A segment is sealed at this age, by `tick`.
        """
        self._new_journal = partial(Journal, folder, header, identity, clock)
        self._clock = clock
        self._segment_bytes_max = segment_bytes_max
        self._segment_age_s_max = segment_age_s_max
        self._capacity = Capacity(folder, spool_bytes_max=spool_bytes_max, clock=clock)
        self._journal = self._new_journal()
        self._pending: list[_Pending] = []
        self.buffered_bytes = 0
        """Encoded size of what `append` took and `flush` has not written."""
        self.slots_made = 0
        """Changes whenever `counters` and `ledger` have become other objects."""
        close_in_forked_child(self)

    def after_fork_in_child(self) -> None:
        """Forgets what is the parent's; its files close themselves."""
        self._journal = self._new_journal()
        self._pending, self.buffered_bytes = [], 0
        self.slots_made += 1

    @property
    def slot(self) -> Slot | None:
        """The slot; None before `open`, after `close`, and while its folder has vanished."""
        return self._journal.slot

    @property
    def counters(self) -> "memoryview[int]":
        """The ledger page's counters, indexed by the constants of `page`. In memory only while there is no slot."""
        return self._journal.page.counters

    @property
    def ledger(self) -> Ledger:
        """Where losses and sampled-out requests are booked; kept rows book themselves."""
        return self._journal.ledger

    def totals(self) -> Counter[int]:
        """What has become of all requests since the start, over all slots, by the indexes of `page`."""
        return self.ledger.totals()

    def open(self) -> None:
        """Makes the slot, unless there is one. Raises SpoolFullError, SpoolError; the next write tries again."""
        self.slots_made += self._journal.open()

    def append(self, frames: Sequence[tuple[Kind, bytes]], *, minutes: Sequence[int] = ()) -> None:
        """Buffers frames, without I/O: all of them, or none where it raises.

        Args:
            frames: REQUEST and SPAN frames with their payloads.
            minutes: Epoch minute of arrival of each REQUEST among them, in order.
        """
        arrivals = iter(minutes)
        taken = [_Pending(kind, payload, next(arrivals) if kind == Kind.REQUEST else -1) for kind, payload in frames]
        self._pending += taken
        self.buffered_bytes += sum(OVERHEAD_BYTES + len(frame.payload) for frame in taken)

    def flush(self) -> None:
        """Makes durable what is buffered and what the ledger has to say.

        Raises:
            SpoolFullError: No room. What is not durable is counted as lost, and nothing is half-written.
            SpoolError: The folder is not writable. Likewise, and with whatever else is raised.
        """
        pending, self._pending, self.buffered_bytes = self._pending, [], 0
        if not pending and not self.ledger.dirty:
            return
        durable = 0
        try:
            while True:
                end = self._group_end(pending, durable)
                self._write(pending[durable:end])
                durable = end
                self._seal_if_large()
                if durable == len(pending):
                    return
        except BaseException as error:
            for minute, count in _rows_by_minute(pending[durable:]).items():
                self.ledger.lose(minute, _cause_of(error), count)
            self.counters[SPANS_DROPPED] += sum(frame.kind == Kind.SPAN for frame in pending[durable:])
            if isinstance(error, SpoolFullError):
                self._journal.seal_on_full_disk()
            raise

    def tick(self) -> None:
        """What is due about once a second: signs of life, pending counts, the seal by age. Raises as `flush`."""
        self.counters[BEAT_NS] = self._clock.wall_ns()
        self._journal.look_after()
        if self._pending:
            self.flush()
        # From here on no row can be lost, and what fails is tried again at the next tick.
        with contextlib.suppress(SpoolError):
            self.flush()
            if self._journal.segment_age_s >= self._segment_age_s_max:
                self._journal.seal("age")

    def seal(self, reason: str = "stop") -> None:
        """Flushes, and gives the segment (if it holds anything) to the drainer. Raises as `flush`."""
        self.flush()
        self._journal.seal(reason)

    def room(self) -> bool:
        """Whether the folder is below its cap and the disk has 5 % free; looks once a second. Any thread.

        Whether that matters is the caller's to know: where a drainer lives, it makes room.
        """
        return self._capacity.room()

    def close(self) -> None:
        """Seals, and leaves the slot to whoever drains it. Raises as `flush`, but leaves in any case. Safe twice."""
        try:
            if self.slot is not None:
                self.seal()
        finally:
            self._journal.close()

    def _group_end(self, pending: Sequence[_Pending], start: int) -> int:
        """Where the group that still fits into the segment ends; it holds at least one frame."""
        size = self._journal.segment_bytes
        for end in range(start, len(pending)):
            size += OVERHEAD_BYTES + len(pending[end].payload)
            if size >= self._segment_bytes_max:
                return end + 1
        return len(pending)

    def _write(self, group: Sequence[_Pending]) -> None:
        ledger = self.ledger
        try:
            self._journal.write([(kind, payload) for kind, payload, _ in group], _rows_by_minute(group))
        finally:
            # A vanished slot may have been replaced on the way, also where the new one failed.
            self.slots_made += ledger is not self.ledger

    def _seal_if_large(self) -> None:
        if self._journal.segment_bytes >= self._segment_bytes_max:
            # What was written is durable; the next group meets the same trouble, if it lasts.
            with contextlib.suppress(SpoolError):
                self._journal.seal("size")


def _cause_of(error: BaseException) -> LossCause:
    if isinstance(error, SpoolFullError):
        return LossCause.SPOOL_FULL
    return LossCause.SPOOL_UNWRITABLE if isinstance(error, SpoolError) else LossCause.WORKER_ERROR


def _rows_by_minute(group: Sequence[_Pending]) -> Counter[int]:
    return Counter(pending.minute for pending in group if pending.kind == Kind.REQUEST)
