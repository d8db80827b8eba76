"""What becomes of a slot whose owner is gone: every whole frame is kept, and what was in flight is counted, once.

1. Only under the slot's lock. A live slot's `.open` file is never touched.
2. The losses of a crash are a LEDGER frame in the recovered segment; only then the page is marked; only then may the
   slot be drained. After a crash in between, a last segment sealed as `recovered` says that the frame is there.
"""

import shutil
import time
from pathlib import Path
from typing import Any

from infertap.errors import SpoolError
from infertap.spool.crash import CrashCounts, crash_ledger
from infertap.spool.cursors import Cursors
from infertap.spool.durability import spool_error, sync_folder
from infertap.spool.folder import OPEN, SEALED, SpoolFolder, list_segments, segment_no_of
from infertap.spool.frames import Kind, UnsupportedFormat, pack, scan, unpack
from infertap.spool.lock import FileLock
from infertap.spool.page import PageView, mark_adopted
from infertap.spool.reader import read_header_file
from infertap.spool.segment import SegmentWriter

STALE_S = 60.0
"""Age at which unfinished things of dead processes are removed."""


class AdoptedSlot:
    """An orphan, recovered: only sealed segments, and nobody else writes to it while this lock is held."""

    def __init__(self, folder: SpoolFolder, spool_id: str, lock: FileLock) -> None:
        self._folder = folder
        self._lock = lock
        self.spool_id = spool_id
        self.path = folder.slot_dir(spool_id)

    def remove(self) -> None:
        """Removes the slot and its cursors. Raises SpoolError while there are segments, or where it cannot."""
        if list_segments(self.path) or list_segments(self.path, OPEN):
            raise SpoolError(f"slot {self.spool_id} still holds segments")
        dead = self._folder.slot_dir(f".dead-{self.spool_id}")
        try:
            self.path.rename(dead)
            sync_folder(self._folder.slots_dir)
            shutil.rmtree(dead, ignore_errors=True)
            self._folder.cursor(self.spool_id).unlink(missing_ok=True)
        except OSError as error:
            raise spool_error(f"cannot remove slot {self.spool_id}", error) from error
        finally:
            self.close()

    def close(self) -> None:
        """Lets go of the slot as it is; the next `adopt` finds nothing left to recover. Safe twice."""
        self._lock.close()


def adopt(folder: SpoolFolder, spool_id: str) -> AdoptedSlot | None:
    """Takes over a slot if nobody holds it, and recovers it.

    Returns:
        None where the slot is live, gone, or holds an open segment of a newer version.

    Raises:
        SpoolError: The disk is full or fails. The slot is let go as it is; trying again is safe.
    """
    slot_dir = folder.slot_dir(spool_id)
    try:
        # Creating heals a slot whose lock file somebody deleted: it could not be adopted otherwise.
        lock = FileLock.try_acquire(slot_dir / "lock")
        if lock is None:
            return None
        try:
            _recover(folder, slot_dir)
        except BaseException:
            lock.close()
            raise
    except UnsupportedFormat:
        return None
    except OSError as error:
        raise spool_error(f"cannot recover slot {spool_id}", error) from error
    return AdoptedSlot(folder, spool_id, lock)


def sweep(folder: SpoolFolder) -> None:
    """Removes what dead processes left half made or half removed. Never raises for what others remove meanwhile."""
    stale_before = time.time() - STALE_S
    for path in _entries(folder.slots_dir, ".dead-*"):
        shutil.rmtree(path, ignore_errors=True)
    for path in _entries(folder.slots_dir, ".new-*"):
        if _is_older(path, stale_before) and _is_unlocked(path / "lock"):
            shutil.rmtree(path, ignore_errors=True)
    for place in (folder.path, folder.cursors_dir):
        for path in _entries(place, ".*.tmp"):
            if _is_older(path, stale_before):
                path.unlink(missing_ok=True)


def _recover(folder: SpoolFolder, slot_dir: Path) -> None:
    _free_dead_reserve(slot_dir)
    segments, counts, freed_no = _take_over_segments(slot_dir)
    try:
        page = PageView.read(slot_dir / "page")
    except SpoolError:
        page = None  # Without a page, what was in flight cannot be known; everything else can.
    ledger: dict[str, Any] | None = None
    if not (page is not None and page.adopted) and (segments or not _was_recovered(slot_dir)):
        ledger = crash_ledger(page, counts)
    if ledger is not None and (not segments or segments[-1].ending):
        number = freed_no or _newest_no(folder, slot_dir, page) + 1
        header = read_header_file(slot_dir) or {"spool_id": slot_dir.name}
        segments.append(SegmentWriter.create(slot_dir, number, pack({**header, "segment_no": number})))
    try:
        for segment in segments:
            if ledger is not None and segment is segments[-1]:
                segment.write([(Kind.LEDGER, pack(ledger))])
            segment.seal("recovered")
    finally:
        for segment in segments:
            segment.close()
    if page is not None and not page.adopted:
        in_flight = counts.in_flight(page) if ledger is not None else 0
        mark_adopted(slot_dir / "page", kept=counts.rows.total(), in_flight=in_flight)
    sync_folder(slot_dir)


def _take_over_segments(slot_dir: Path) -> tuple[list[SegmentWriter], CrashCounts, int]:
    """The open segments, what they say, and the number that an unreadable one has set free (0 for none)."""
    segments, counts, freed_no = [], CrashCounts(), 0
    for path in list_segments(slot_dir, OPEN):
        recovered = SegmentWriter.recover(path)
        if recovered is None:
            freed_no = segment_no_of(path)
        else:
            segment, frames = recovered
            segments.append(segment)
            counts.add(frames)
    return segments, counts, freed_no


def _was_recovered(slot_dir: Path) -> bool:
    """Whether a crash of an adopter came after the seal, so that the losses are on record already."""
    sealed = list_segments(slot_dir)
    if not sealed:
        return False
    frames = scan(sealed[-1].read_bytes()).frames
    if not frames or frames[-1].kind != Kind.SEAL:
        return False
    try:
        return unpack(frames[-1].payload).get("reason") == "recovered"
    except ValueError:
        return False


def _newest_no(folder: SpoolFolder, slot_dir: Path, page: PageView | None) -> int:
    """The highest number that the slot ever had, also where everything was delivered and deleted."""
    numbers = [segment_no_of(path) for suffix in (SEALED, OPEN) for path in list_segments(slot_dir, suffix)]
    delivered = Cursors.load(folder, slot_dir.name).segment_nos.values()
    return max([*numbers, *delivered, page.segment_no if page is not None else 0])


def _free_dead_reserve(slot_dir: Path) -> None:
    try:
        with (slot_dir / "reserve").open("rb+") as reserve:
            reserve.truncate(0)
    except FileNotFoundError:
        return


def _entries(folder: Path, pattern: str) -> list[Path]:
    try:
        return list(folder.glob(pattern))
    except FileNotFoundError:
        return []


def _is_older(path: Path, moment_s: float) -> bool:
    try:
        return path.stat().st_mtime < moment_s
    except FileNotFoundError:
        return False


def _is_unlocked(path: Path) -> bool:
    lock = FileLock.try_acquire(path, create=False)
    if lock is None:
        return not path.exists()
    lock.close()
    return True
