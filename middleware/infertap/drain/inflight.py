"""Finds the segment that kills: what the last drainer had in its hands when it died, and smaller helpings from then on.

1. `inflight` is written before a destination touches a batch, and cleared after it. Found at a start, it names what the
   last drainer died of, or was merely doing.
2. The suspects are halved with each death and cleared by each delivery: the rest of the spool is held up, never lost.
3. A death that came with another boot of the machine accuses nobody.
"""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from infertap.drain.slots import SegmentFile
from infertap.spool.boot import boot_id
from infertap.spool.folder import SpoolFolder
from infertap.spool.jsonfile import read_json, write_json_atomic

Key = tuple[str, int]
"""(spool_id, segment_no)."""


@dataclass(slots=True)
class Inflight:
    """The file and what follows from it. Belongs to the drainer's thread; only under `drainer.lock`."""

    folder: SpoolFolder
    destination: str = ""
    suspects: list[Key] = field(default_factory=list)
    deaths: int = 0
    """How often a drainer died with the one remaining suspect alone in its hands."""
    _written: bool = False

    @classmethod
    def load(cls, folder: SpoolFolder) -> "Inflight":
        """Reads what the last drainer left behind."""
        inflight = cls(folder)
        with contextlib.suppress(OSError, KeyError, TypeError, ValueError):
            data = read_json(folder.inflight)
            if data is not None:
                inflight._written = True
                inflight._accuse(data)
        return inflight

    def helping(self, destination: str, files: Sequence[SegmentFile]) -> Sequence[SegmentFile]:
        """The part of a batch that may go at once: all of it, or half of those under suspicion."""
        if destination != self.destination or not self.suspects:
            return files
        accused = [file for file in files if (file.spool_id, file.segment_no) in self.suspects]
        if not accused:
            self.suspects = []
            return files
        return accused[: max(1, len(accused) // 2)]

    def is_killer(self, destination: str, files: Sequence[SegmentFile]) -> bool:
        """Whether a drainer has died with this one segment alone in its hands: time to let children try its rows."""
        return (
            destination == self.destination
            and len(files) == 1
            and self.deaths >= 1
            and [(files[0].spool_id, files[0].segment_no)] == self.suspects
        )

    def begin(self, destination: str, files: Sequence[SegmentFile]) -> None:
        """Writes down what is about to be touched. Never raises: on a full disk, delivering is what helps."""
        batch = [(file.spool_id, file.segment_no) for file in files]
        suspects = self.suspects if destination == self.destination else []
        with contextlib.suppress(OSError):
            self._save(destination, batch, suspects)

    def suspect(self, destination: str, files: Sequence[SegmentFile]) -> None:
        """One of these is refused, and the destination cannot say which: as if a drainer had died of them."""
        batch = [(file.spool_id, file.segment_no) for file in files]
        before = self.deaths if destination == self.destination and self.suspects == batch else 0
        self.destination, self.suspects = destination, batch
        self.deaths = before + 1 if len(batch) == 1 else 0

    def survived(self, destination: str, files: Sequence[SegmentFile], *, delivered: bool) -> None:
        """Clears the note; what was delivered is under suspicion no more. Never raises."""
        if delivered and destination == self.destination:
            batch = {(file.spool_id, file.segment_no) for file in files}
            self.suspects = [key for key in self.suspects if key not in batch]
            self.deaths = 0
        with contextlib.suppress(OSError):
            if self.suspects:
                self._save(self.destination, [], self.suspects)
            elif self._written:
                self.folder.inflight.unlink(missing_ok=True)
                self._written = False

    def _accuse(self, data: dict[str, Any]) -> None:
        if data["boot_id"] != boot_id():
            return
        batch = [(str(spool_id), int(number)) for spool_id, number in data["segments"]]
        suspects = [(str(spool_id), int(number)) for spool_id, number in data["suspects"]]
        self.destination = str(data["destination"])
        self.suspects = batch or suspects
        self.deaths = int(data["deaths"])
        if batch:
            before = self.deaths if suspects == batch else 0
            self.deaths = before + 1 if len(batch) == 1 else 0

    def _save(self, destination: str, batch: list[Key], suspects: list[Key]) -> None:
        data = {
            "boot_id": boot_id(),
            "destination": destination,
            "segments": batch,
            "suspects": suspects,
            "deaths": self.deaths if destination == self.destination else 0,
        }
        # What another boot of the machine finds accuses nobody, so it need not outlive this one.
        write_json_atomic(self.folder.inflight, data, durable=False)
        self._written = True
