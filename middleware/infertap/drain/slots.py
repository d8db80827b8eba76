"""What the drainer knows of the slots: which are held, which are orphans, what waits in them, how far each has come."""

import contextlib
import logging
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from infertap.clock import Clock
from infertap.drain.losses import owner_counts
from infertap.drain.retire import is_held
from infertap.errors import SpoolError
from infertap.spool.accounts import Accounts
from infertap.spool.cursors import Cursors, OutcomeKey
from infertap.spool.folder import SpoolFolder, list_segments, segment_no_of
from infertap.spool.page import PageView
from infertap.spool.reader import Segment, read_header_file
from infertap.spool.recovery import AdoptedSlot, adopt, sweep

_NS_PER_MINUTE = 60_000_000_000

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SegmentFile:
    """A sealed segment, not read yet."""

    spool_id: str
    segment_no: int
    path: Path
    size_bytes: int
    sealed_ns: int


@dataclass(slots=True)
class SlotView:
    """One slot, as of the last look."""

    spool_id: str
    cursors: Cursors
    orphan: AdoptedSlot | None = None
    held: bool = False
    """Whether its owner lives."""
    segments: list[SegmentFile] = field(default_factory=list)
    """Ascending; those that some destination has not passed and that this version can read."""
    flush_ns: int = 0
    """When its owner asked for a flush; 0 where it did not."""
    blocked_at: int | None = None
    """Segments from this number on were written by a newer infertap."""

    @property
    def is_spent(self) -> bool:
        """Whether its owner is gone and nothing is left to deliver."""
        return self.orphan is not None and not self.segments and self.blocked_at is None

    def waiting(self, destination: str) -> list[SegmentFile]:
        """Segments that this destination has not passed."""
        passed = self.cursors.segment_no(destination)
        return [segment for segment in self.segments if segment.segment_no > passed]


@dataclass(slots=True)
class Slots:
    """All slots of a folder. Belongs to the drainer's thread; only under `drainer.lock`."""

    folder: SpoolFolder
    destinations: tuple[str, ...]
    clock: Clock
    keep_ledger: bool = False
    """Whether no table does: then the counts of the owners are kept with the cursors, and with the folder's totals."""
    views: dict[str, SlotView] = field(default_factory=dict)

    def look(self) -> None:
        """Looks at every slot, adopts the orphans, and removes segments that everybody has passed."""
        sweep(self.folder)
        ids = self.folder.slot_ids()
        for spool_id in set(self.views) - set(ids):
            self._forget(spool_id)
        for spool_id in ids:
            view = self.views.get(spool_id)
            if view is None:
                view = self.views[spool_id] = SlotView(spool_id, Cursors.load(self.folder, spool_id))
            if view.orphan is None:
                view.orphan = self._adopt(spool_id)
            # Not adopted is not yet held: an open segment of a newer version, or a full disk, is no owner.
            view.held = view.orphan is None and is_held(self.folder, spool_id)
            self.refresh(view)

    def refresh(self, view: SlotView) -> None:
        """Lists the slot's segments again."""
        slot_dir = self.folder.slot_dir(view.spool_id)
        # First the request, then what it is about: an owner seals before it asks.
        try:
            view.flush_ns = (slot_dir / "flush").stat().st_mtime_ns
        except (FileNotFoundError, NotADirectoryError):
            view.flush_ns = 0
        passed = min((view.cursors.segment_no(name) for name in self.destinations), default=0)
        view.segments = []
        for path in list_segments(slot_dir):
            number = segment_no_of(path)
            if number <= passed:
                path.unlink(missing_ok=True)
            elif view.blocked_at is None or number < view.blocked_at:
                with contextlib.suppress(FileNotFoundError):
                    status = path.stat()
                    view.segments.append(SegmentFile(view.spool_id, number, path, status.st_size, status.st_mtime_ns))

    def advance(self, spool_id: str, destination: str, segment_no: int) -> None:
        """Moves a cursor, with the counts that belong to it, and removes what everybody has passed. Never raises."""
        view = self.views[spool_id]
        view.cursors.advance(destination, segment_no)
        if self.keep_ledger:
            view.cursors.fold(self.clock.wall_ns() // _NS_PER_MINUTE)
        try:
            self.save(spool_id)
        except OSError as error:
            # A full disk: removing segments is what helps, and the next save writes the same and more.
            _log.warning("cursors of slot %s could not be saved: %s", spool_id, error.strerror)
        self.refresh(view)

    def save(self, spool_id: str) -> None:
        """Writes a slot's cursors down. Raises OSError."""
        self.views[spool_id].cursors.save(self.folder)

    def settle_undecided(self, spool_id: str, undecided: Iterable[OutcomeKey]) -> None:
        """Takes these out of a slot's outcomes: what they have become is about to be counted."""
        for key in undecided:
            del self.views[spool_id].cursors.outcomes[key]

    def started_ns(self, spool_id: str) -> int:
        """When a slot was made; 0 where it does not say so any more."""
        started_ns = read_header_file(self.folder.slot_dir(spool_id)).get("started_ns")
        return started_ns if isinstance(started_ns, int) else 0

    def learn(self, segment: Segment) -> None:
        """Takes note of what an owner has counted, where no table does; saved with the next `advance`."""
        if self.keep_ledger:
            self.views[segment.spool_id].cursors.learn(owner_counts(segment))

    @property
    def owners(self) -> bool:
        """Whether any slot is held by its owner."""
        return any(view.held for view in self.views.values())

    @property
    def blocked_ids(self) -> set[str]:
        """Slots that wait for a newer infertap."""
        return {view.spool_id for view in self.views.values() if view.blocked_at is not None}

    def anybody(self, *, but: Collection[str]) -> bool:
        """Whether a slot is held or has something sealed in it. Takes nothing over: also without `drainer.lock`."""
        ids = [spool_id for spool_id in self.folder.slot_ids() if spool_id not in but]
        return any(is_held(self.folder, spool_id) or list_segments(self.folder.slot_dir(spool_id)) for spool_id in ids)

    @property
    def anything_waits(self) -> bool:
        """Whether some destination has not got everything that this version can read."""
        return any(view.segments for view in self.views.values())

    @property
    def unsupported_segments(self) -> int:
        """Segments of a newer infertap, left in place for it."""
        return sum(
            segment_no_of(path) >= view.blocked_at
            for view in self.views.values()
            if view.blocked_at is not None
            for path in list_segments(self.folder.slot_dir(view.spool_id))
        )

    def waiting(self, destination: str) -> list[SegmentFile]:
        """What a destination has not passed: one segment of each slot in turn, so that no slot starves."""
        queues = [view.waiting(destination) for view in self.views.values()]
        longest = max(map(len, queues), default=0)
        return [queue[turn] for turn in range(longest) for queue in queues if turn < len(queue)]

    def outcomes(self, spool_ids: Iterable[str]) -> dict[str, Mapping[tuple[int, str, str, str], int]]:
        """The drainer's cumulative counts of some slots."""
        return {spool_id: dict(self.views[spool_id].cursors.outcomes) for spool_id in spool_ids}

    def remove(self, view: SlotView) -> None:
        """Removes a spent slot, its counts kept; one that cannot be removed now is adopted again at the next look."""
        try:
            if view.orphan is not None:
                page = _page_of(view.orphan)
                Accounts.load(self.folder).retire(self.folder, page, view.cursors, keep_ledger=self.keep_ledger)
                view.orphan.remove()
        except SpoolError as error:
            _log.warning("%s", error)
        except OSError as error:
            _log.warning("totals of slot %s could not be saved: %s", view.spool_id, error.strerror)
        self._forget(view.spool_id)

    def close(self) -> None:
        """Lets go of the orphans; another drainer may adopt them."""
        for spool_id in list(self.views):
            self._forget(spool_id)

    def _forget(self, spool_id: str) -> None:
        view = self.views.pop(spool_id)
        if view.orphan is not None:
            view.orphan.close()

    def _adopt(self, spool_id: str) -> AdoptedSlot | None:
        try:
            return adopt(self.folder, spool_id)
        except SpoolError as error:
            _log.warning("%s", error)
            return None


def _page_of(slot: AdoptedSlot) -> PageView | None:
    try:
        return PageView.read(slot.path / "page")
    except SpoolError:
        return None
