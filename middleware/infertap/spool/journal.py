"""The slot being written: slot, page, ledger and open segment, which come and go together.

1. A group and the LEDGER frame that counts it are one write and one sync.
2. Nothing is written while the reserve is not held: the last counts must always fit.
3. What was written into a folder that has vanished was not written. The next write makes a new slot, and the ledger's
   successor carries over what was not sealed.
"""

import contextlib
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from infertap.clock import Clock
from infertap.errors import SpoolError, SpoolFullError
from infertap.events import say
from infertap.spool.boot import boot_id
from infertap.spool.durability import spool_error
from infertap.spool.folder import SpoolFolder
from infertap.spool.frames import Kind
from infertap.spool.ledger import Ledger, LedgerFrame
from infertap.spool.page import SEGMENT_NO, Page, mark_adopted
from infertap.spool.segment import SegmentWriter, SyncFailedError
from infertap.spool.slot import Slot

_REPAIRS_MAX = 2
"""A group is written again after a failed sync and after a vanished folder; a third failure is the caller's."""

_LOGGER_NAME = "infertap.spool"


class _VanishedError(SpoolError):
    """What was written went into a deleted file."""


class Journal:
    """Belongs to the writer's thread. In a forked child, its files close themselves and it must be thrown away."""

    def __init__(
        self, folder: SpoolFolder, header: Mapping[str, Any], identity: Mapping[str, Any], clock: Clock
    ) -> None:
        """Touches nothing on the disk; the arguments are `SpoolWriter`'s."""
        self._folder = folder
        self._header = header
        self._identity = identity
        self._clock = clock
        self.page = Page.in_memory(started_ns=clock.wall_ns(), boot_id=boot_id())
        self.ledger = Ledger(self.page.counters)
        self.slot: Slot | None = None
        self.segment: SegmentWriter | None = None
        self._segment_no = self._tried_no = 0
        self._segment_opened_s = 0.0

    @property
    def segment_bytes(self) -> int:
        """Size of the open segment; 0 where there is none."""
        return self.segment.size_bytes if self.segment is not None else 0

    @property
    def segment_age_s(self) -> float:
        """Age of the open segment; 0 where there is none, endless where its seal has failed before."""
        if self.segment is None:
            return 0.0
        return float("inf") if self.segment.ending else self._clock.monotonic_s() - self._segment_opened_s

    def open(self) -> bool:
        """Makes the slot, unless there is one; true where it did. Raises SpoolFullError, SpoolError."""
        if self.slot is not None:
            return False
        try:
            self._folder.prepare(self._identity)
            slot = Slot.create(self._folder, self._clock, self._header)
        except OSError as error:
            raise spool_error(f"cannot make a slot in {self._folder.path}", error) from error
        self.ledger = self.ledger.successor(slot.page.counters)
        self.page, self.slot = slot.page, slot
        self._segment_no = self._tried_no = 0
        return True

    def write(self, frames: Sequence[tuple[Kind, bytes]], rows: Counter[int]) -> None:
        """Makes one group durable, together with what the ledger has to say; repairs what can be repaired.

        Args:
            frames: May be empty.
            rows: Epoch minute of arrival -> REQUEST frames among them.

        Raises:
            SpoolFullError, SpoolError: Nothing of the group was written, and nothing of it is counted. Nor is it where
            something else is raised.
        """
        for _ in range(_REPAIRS_MAX):
            try:
                return self._try_write(frames, rows)
            except SpoolError as error:
                if not self._repair(error):
                    raise
        return self._try_write(frames, rows)

    def seal(self, reason: str) -> None:
        """Gives the open segment, if there is one, to the drainer; spends the reserve if it must.

        Raises:
            SpoolFullError, SpoolError: It is tried again at the next write or seal.
        """
        if self.segment is None or self.slot is None:
            return
        try:
            self._seal(self.segment, self.slot, reason)
        finally:
            if self.segment.is_given:
                self.ledger.sealed()
        self.segment = None

    def seal_on_full_disk(self) -> None:
        """Spends the reserve on the last counts and the seal: what is durable can be delivered. No SpoolError."""
        if self.segment is None or self.slot is None or not self.slot.reserve_held:
            return
        frame = self.ledger.frame()
        try:
            self._free_reserve(self.slot)
            self.segment.write([(Kind.LEDGER, frame.payload)])
            self.segment.sync()
        except BaseException as error:
            self.ledger.frame_failed(frame)
            if isinstance(error, SpoolError):
                return
            raise
        self.ledger.frame_durable(frame, 0)
        # A seal that fails is tried again before the next write.
        with contextlib.suppress(SpoolError):
            self.seal("size")

    def look_after(self) -> None:
        """Notices a vanished folder and takes the reserve again, where there is room. Never raises."""
        if self._has_vanished():
            self._leave()
        if self.slot is not None:
            self.slot.take_reserve()

    def close(self) -> None:
        """Leaves the slot, and an unsealed segment in it, to whoever drains it. Counters go on counting. Safe twice."""
        if self.segment is not None:
            self.segment.close()
        if self.slot is not None:
            self.slot.close()
        self.segment = self.slot = None

    def _try_write(self, frames: Sequence[tuple[Kind, bytes]], rows: Counter[int]) -> None:
        segment = self._writable()
        start = segment.size_bytes
        self.ledger.keep(rows)
        frame: LedgerFrame | None = None
        try:
            frame = self.ledger.frame()
            segment.write([*frames, (Kind.LEDGER, frame.payload)])
            segment.sync()
            if self._has_vanished():
                raise _VanishedError("the slot's folder has vanished")
        except BaseException as error:
            self.ledger.take_back(rows)
            if frame is not None:
                self.ledger.frame_failed(frame)
            if not isinstance(error, SpoolError):
                # Rows that are counted as lost from here on must not be in the file after all.
                segment.give_up(start)
            raise
        self.ledger.frame_durable(frame, rows.total())

    def _writable(self) -> SegmentWriter:
        self.open()
        assert self.slot is not None
        if self.segment is not None and self.segment.ending:
            self.seal("size")
        if not self.slot.take_reserve():
            raise SpoolFullError("the disk is full")
        if self.segment is None:
            number = self._segment_no + 1
            tried_before, self._tried_no = self._tried_no == number, number
            self.segment = SegmentWriter.create(
                self.slot.path, number, self.slot.open_payload(number), tried_before=tried_before
            )
            # Only now: a number that no file ever had would be a gap.
            self._segment_no = self.page.counters[SEGMENT_NO] = number
            self._segment_opened_s = self._clock.monotonic_s()
        return self.segment

    def _repair(self, error: SpoolError) -> bool:
        """Whether another try may succeed, in a new slot or a new segment."""
        if self._has_vanished():
            self._leave()
            return True
        if isinstance(error, SyncFailedError):
            self.seal("size")
            return True
        return False

    def _has_vanished(self) -> bool:
        if self.slot is None or self.segment is None or self.segment.ending:
            # An ending segment may have its new name already, or a descriptor that has failed.
            return self.slot is not None and not self.slot.still_there()
        return not (self.slot.still_there() and self.segment.still_there())

    def _leave(self) -> None:
        line = f"the spool's slot in {self._folder.path} has vanished; its unsealed records are lost"
        say(logging.WARNING, line, _LOGGER_NAME)
        if self.slot is not None:
            # Where sealed segments are left, an adopter must not count what goes over to the new slot.
            with contextlib.suppress(OSError, ValueError):
                mark_adopted(self.slot.path / "page")
        # Page and ledger stay until there is a new slot to carry their counts over to.
        self.close()

    def _seal(self, segment: SegmentWriter, slot: Slot, reason: str) -> None:
        try:
            segment.seal(reason)
        except SpoolFullError:
            if not slot.reserve_held:
                raise
            self._free_reserve(slot)
            segment.seal(reason)
        except SyncFailedError:
            segment.seal(reason)

    def _free_reserve(self, slot: Slot) -> None:
        try:
            slot.free_reserve()
        except OSError as error:
            raise spool_error("cannot free the reserve", error) from error
