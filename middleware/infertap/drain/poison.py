"""Finds the rows that kill a drainer, by letting child processes die of them instead.

The children deliver for rehearsal only: the same code converts and encodes the same rows, but the table is a scratch
folder, and the OTLP endpoint is a port where nobody listens.
"""

import json
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from infertap.destinations.protocol import Destination
from infertap.drain.settings import DrainerSettings
from infertap.errors import PermanentError, RetryableError
from infertap.spool.folder import SpoolFolder
from infertap.spool.reader import Segment, read_segment
from infertap.targets import OtlpTarget, TableTarget, Targets

REHEARSE_FLAG = "--rehearse"
_REHEARSAL_S_MAX = 600.0
"""A child that takes longer counts as dead. On a starved machine, at our niceness, its start alone takes a minute."""
_REHEARSALS_MAX = 100
_NOBODY_LISTENS = "http://127.0.0.1:9"
"""The discard port: encoding happens, sending is refused."""


class PoisonSearch:
    """Splits a killing segment. Belongs to the drainer's thread; takes as long as its children do."""

    def __init__(self, command: Sequence[str], settings: DrainerSettings) -> None:
        """Args:
        command: What runs `rehearse` in a child; see `infertap.drain.__main__`.
        settings: The drainer's.
        """
        self._command = (*command, REHEARSE_FLAG, str(settings.folder))
        self._settings = settings
        self._rehearsals = 0

    def split(self, destination: str, path: Path, segment: Segment, *, give_up: bool) -> tuple[Segment, Segment]:
        """A segment without its poison, and the poison alone; both keep slot and number.

        Args:
            give_up: Where no child dies of it, all of it counts as poison: it has killed often enough.
        """
        self._rehearsals = 0
        nothing = _picked(segment, ())
        if not self._survives(destination, path, 0, 0):
            # Not even an empty segment survives: a broken library, not a row.
            return segment, nothing
        total = len(segment.requests) + len(segment.spans)
        poison = self._search(destination, path, 0, total)
        if not poison and give_up:
            poison = list(range(total))
        rest = sorted(set(range(total)) - set(poison))
        return _picked(segment, rest), _picked(segment, poison)

    def _search(self, destination: str, path: Path, start: int, end: int) -> list[int]:
        if self._survives(destination, path, start, end):
            return []
        if end - start == 1 or self._rehearsals >= _REHEARSALS_MAX:
            return list(range(start, end))
        middle = (start + end) // 2
        return self._search(destination, path, start, middle) + self._search(destination, path, middle, end)

    def _survives(self, destination: str, path: Path, start: int, end: int) -> bool:
        self._rehearsals += 1
        order = {
            "settings": self._settings.to_json(),
            "destination": destination,
            "path": str(path),
            "start": start,
            "end": end,
        }
        try:
            child = subprocess.run(
                self._command,
                input=json.dumps(order).encode(),
                stdout=subprocess.DEVNULL,
                timeout=_REHEARSAL_S_MAX,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return False
        return child.returncode == 0


class Rehearsal:
    """A child's one task. Whether it comes back at all is the answer."""

    def __init__(self, order: dict[str, Any]) -> None:
        self._settings = DrainerSettings.from_json(order["settings"])
        self._destination = str(order["destination"])
        self._path = Path(order["path"])
        self._items = range(int(order["start"]), int(order["end"]))
        self._scratch = tempfile.mkdtemp(prefix=".rehearsal-", dir=SpoolFolder(self._settings.folder).parked_dir)

    @property
    def settings(self) -> DrainerSettings:
        """The drainer's, but leading nowhere, without credentials, and with a folder of their own."""
        targets = self._settings.targets
        table = TableTarget(self._scratch) if self._destination == "table" else None
        otlp = None
        if targets.otlp is not None and self._destination == "otlp":
            path = "/v1/traces" if targets.otlp.protocol != "grpc" else ""
            otlp = OtlpTarget(
                endpoint=_NOBODY_LISTENS + path,
                protocol=targets.otlp.protocol,
                timeout_s=2.0,
                compression=targets.otlp.compression,
                value_length_max=targets.otlp.value_length_max,
            )
        return replace(self._settings, folder=Path(self._scratch), targets=Targets(table=table, otlp=otlp))

    def run(self, destinations: Sequence[Destination]) -> None:
        """Converts and encodes the rows; an error that a destination names is as good as success."""
        segment = _picked(read_segment(self._path), self._items)
        for destination in destinations:
            destination.open()
            try:
                destination.deliver([segment], {})
            except (RetryableError, PermanentError):
                continue
            finally:
                destination.close(deadline_s=0.0)

    def close(self) -> None:
        """Removes the scratch folder. Not reached by a child that dies: `sweep_scratch` does it then."""
        shutil.rmtree(self._scratch, ignore_errors=True)


def sweep_scratch(folder: SpoolFolder) -> None:
    """Removes what dead rehearsals left behind. Only while none runs."""
    for path in folder.parked_dir.glob(".rehearsal-*"):
        shutil.rmtree(path, ignore_errors=True)


def _picked(segment: Segment, items: Sequence[int]) -> Segment:
    """Some rows of a segment, counted over its requests and then its spans."""
    requests = len(segment.requests)
    return replace(
        segment,
        requests=tuple(segment.requests[item] for item in items if item < requests),
        spans=tuple(segment.spans[item - requests] for item in items if item >= requests),
    )
