"""The ledger page: counters of one pipeline that outlive its process, because they live in a mapped file.

1. The file has its blocks before it is mapped: a store into a hole on a full disk would kill the process.
2. One writer per counter: the event loop writes `SEEN` and `FINISHED` (the worker, in a receiver), the ledger (under
   its lock) the outcomes, the worker's thread the rest. Threads that write at the same time share no 64-byte line.
3. An index that an older version did not use reads 0 in its pages, so a new counter needs no new format.
4. A counter is one aligned 8-byte store, so that no reader ever sees half a value. It survives a killed process, not
   a power loss, after which it is a lower bound.
"""

import mmap
import os
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from infertap.errors import SpoolError
from infertap.record import LossCause
from infertap.spool.durability import allocate
from infertap.spool.forks import close_in_forked_child

PAGE_BYTES = 4096

# Indexes into `Page.counters`.
_MAGIC, _FORMAT, _BOOT_HIGH, _BOOT_LOW, _STARTED_NS = range(5)
SEEN = 8
"""Requests that arrived. Event loop."""
FINISHED = 16
"""Requests whose exchange has ended. Event loop."""
BACKGROUND_FAILURES, CAPTURE_FAILURES = 17, 18
"""The app raised after its answer was complete; our own code failed beside a request. Event loop."""
KEPT, SAMPLED, LEDGERED = 24, 25, 26
"""Rows durable in the spool; rows sampled out; requests that durable LEDGER frames account for."""
SPANS_DROPPED = 27
"""Spans that never reached the disk. Worker."""
_LOST = 32
LOST: Mapping[LossCause, int] = {cause: _LOST + number for number, cause in enumerate(LossCause)}
"""Requests lost, by cause."""
QUEUE_BYTES, OLDEST_UNSPOOLED_NS, BEAT_NS, SEGMENT_NO = 64, 65, 66, 67
"""Gauges of the worker: bytes that wait; arrival of the oldest finished request that is not durable yet (nanoseconds
since the Unix epoch, 0 for none); last sign of life (likewise); number of the newest segment."""
_ADOPTED = 80
"""1 once the losses of a dead owner are on record. Adopter, under the slot's lock."""

_MAGIC_VALUE = int.from_bytes(b"ITPAGE1\0", "little")
_FORMAT_VALUE = 1


class Page:
    """The owner's side of a page. `counters[SEEN] += 1` costs about 0.1 us."""

    def __init__(self, memory: mmap.mmap | bytearray, started_ns: int, boot_id: str) -> None:
        self.counters = memoryview(memory).cast("Q")
        self._memory = memory
        boot = uuid.UUID(boot_id).int
        self.counters[_FORMAT] = _FORMAT_VALUE
        self.counters[_BOOT_HIGH], self.counters[_BOOT_LOW] = boot >> 64, boot & (1 << 64) - 1
        self.counters[_STARTED_NS] = started_ns
        self.counters[_MAGIC] = _MAGIC_VALUE
        close_in_forked_child(self)

    @classmethod
    def create(cls, path: Path, *, started_ns: int, boot_id: str) -> Self:
        """Makes the file, mode 0600, with all its blocks. Raises OSError."""
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            allocate(fd, PAGE_BYTES)
            memory = mmap.mmap(fd, PAGE_BYTES)
        finally:
            os.close(fd)
        return cls(memory, started_ns, boot_id)

    @classmethod
    def in_memory(cls, *, started_ns: int, boot_id: str) -> Self:
        """The same counters where there is no slot: nobody else sees them and nothing survives."""
        return cls(bytearray(PAGE_BYTES), started_ns, boot_id)

    def close(self) -> None:
        """Unmaps the page. Whoever still holds `counters` gets ValueError on use. Safe twice."""
        self.counters.release()
        if isinstance(self._memory, mmap.mmap):
            self._memory.close()

    # A child that kept `counters` would count into its parent's page.
    after_fork_in_child = close


@dataclass(frozen=True, slots=True)
class PageView:
    """What a page says, read at one moment by another process or thread."""

    boot_id: str
    started_ns: int
    seen: int
    finished: int
    kept: int
    sampled: int
    background_failures: int
    capture_failures: int
    spans_dropped: int
    lost: Mapping[LossCause, int]
    ledgered: int
    queue_bytes: int
    oldest_unspooled_ns: int
    beat_ns: int
    segment_no: int
    adopted: bool

    @classmethod
    def read(cls, path: Path) -> Self:
        """Reads the page of a slot, live or not. Raises SpoolError where it is missing, short or not a page."""
        try:
            memory = _map(path, writable=False)
        except (OSError, ValueError) as error:
            raise SpoolError(f"cannot read the ledger page: {error}") from error
        with memory, memoryview(memory).cast("Q") as counters:
            if counters[_MAGIC] != _MAGIC_VALUE or counters[_FORMAT] != _FORMAT_VALUE:
                raise SpoolError("not a ledger page of this version")
            return cls(
                boot_id=str(uuid.UUID(int=counters[_BOOT_HIGH] << 64 | counters[_BOOT_LOW])),
                started_ns=counters[_STARTED_NS],
                seen=counters[SEEN],
                finished=counters[FINISHED],
                kept=counters[KEPT],
                sampled=counters[SAMPLED],
                background_failures=counters[BACKGROUND_FAILURES],
                capture_failures=counters[CAPTURE_FAILURES],
                spans_dropped=counters[SPANS_DROPPED],
                lost={cause: counters[index] for cause, index in LOST.items()},
                ledgered=counters[LEDGERED],
                queue_bytes=counters[QUEUE_BYTES],
                oldest_unspooled_ns=counters[OLDEST_UNSPOOLED_NS],
                beat_ns=counters[BEAT_NS],
                segment_no=counters[SEGMENT_NO],
                adopted=bool(counters[_ADOPTED]),
            )


def mark_adopted(path: Path, *, kept: int = 0, in_flight: int = 0) -> None:
    """Writes down, durably, that the losses of a page's dead owner are on record. Raises OSError, ValueError.

    Args:
        kept: Rows on the disk that the owner had not counted yet.
        in_flight: Requests that died with it.
    """
    with _map(path, writable=True) as memory:
        with memoryview(memory).cast("Q") as counters:
            counters[KEPT] += kept
            counters[LOST[LossCause.CRASH_IN_FLIGHT]] += in_flight
            counters[FINISHED] = counters[SEEN]
            counters[_ADOPTED] = 1
        memory.flush()


def _map(path: Path, *, writable: bool) -> mmap.mmap:
    fd = os.open(path, (os.O_RDWR if writable else os.O_RDONLY) | os.O_CLOEXEC)
    try:
        # Mapping more than the file has would be SIGBUS at the first look; mmap refuses that with ValueError.
        return mmap.mmap(fd, PAGE_BYTES, access=mmap.ACCESS_WRITE if writable else mmap.ACCESS_READ)
    finally:
        os.close(fd)
