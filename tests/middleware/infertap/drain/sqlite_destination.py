"""A small real destination for tests, transactional like the tables: a SQLite file. Run as a script it is a drainer.

`control.json` beside the database tells it to misbehave: {"<destination>": {"fail": text, "permanent": text,
"raise_on": request_id, "abort_on": request_id, "refuse_on": request_id, "wait_for": path}, "process": {"die_at":
place}}.
"""

import json
import os
import sqlite3
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from infertap.destinations.protocol import OutcomeKey, Receipt
from infertap.drain.settings import DrainerSettings
from infertap.errors import PermanentError, RetryableError
from infertap.spool.reader import Segment


class SqliteDestination:
    """Exactly once: rows and the slot's highest segment number in one transaction. `key` must be "right" if given."""

    def __init__(self, name: str, root: Path | None, key: str = "right") -> None:
        self.name = name
        self._root = root
        self._key = key
        self.opened = False
        self.keeps: frozenset[tuple[str, int]] = frozenset()

    def open(self) -> None:
        _maybe_die("open")
        self.opened = True

    def deliver(self, segments: Sequence[Segment], outcomes: Mapping[str, Mapping[OutcomeKey, int]]) -> Receipt:
        assert self.opened
        lines = [(s.spool_id, s.segment_no, self._encode(request)) for s in segments for request in s.requests]
        if self._root is None:
            raise RetryableError("nobody listens")
        if self._key != "right":
            raise RetryableError(f"401 Unauthorized: key={self._key}")
        self._misbehave()
        self._root.mkdir(exist_ok=True)
        _maybe_die("before_commit")
        with sqlite3.connect(self._root / f"{self.name}.db", isolation_level=None, timeout=30) as db:
            db.execute("BEGIN IMMEDIATE")
            for statement in _SCHEMA:
                db.execute(statement)
            versions = dict(db.execute("SELECT spool_id, segment_no FROM versions"))
            new = [line for line in lines if line[1] > versions.get(line[0], 0)]
            db.executemany("INSERT INTO rows VALUES (?, ?, ?)", new)
            for segment in segments:
                if segment.segment_no > versions.get(segment.spool_id, 0):
                    db.execute("REPLACE INTO versions VALUES (?, ?)", (segment.spool_id, segment.segment_no))
            for spool_id, counts in outcomes.items():
                text = json.dumps({"|".join(map(str, key)): count for key, count in sorted(counts.items())})
                db.execute("REPLACE INTO outcomes VALUES (?, ?)", (spool_id, text))
            db.execute("INSERT INTO deliveries VALUES (?)", (len(segments),))
            db.execute("COMMIT")
        db.close()
        _maybe_die("after_commit")
        delivered: dict[str, int] = {}
        for segment in segments:
            delivered[segment.spool_id] = max(segment.segment_no, delivered.get(segment.spool_id, 0))
        return Receipt(delivered)

    def forfeit(self, segment: Segment, lost: Mapping[OutcomeKey, int]) -> Mapping[OutcomeKey, int]:
        return lost

    def decide(
        self, spool_id: str, undecided: Mapping[OutcomeKey, int], *, started_ns: int
    ) -> Mapping[OutcomeKey, int]:
        return {}

    def maintain(self) -> None:
        return

    def close(self, *, deadline_s: float) -> None:
        self.opened = False

    def _encode(self, request: Mapping[str, Any]) -> str:
        control = self._control()
        if request["request_id"] == control.get("abort_on"):
            os.abort()
        if request["request_id"] == control.get("raise_on"):
            raise TypeError("this row breaks the converter")
        if request["request_id"] == control.get("refuse_on"):
            raise PermanentError("this row is refused")
        return str(request["request_id"])

    def _misbehave(self) -> None:
        control = self._control()
        if "wait_for" in control:
            deadline_s = time.monotonic() + 120
            while not Path(control["wait_for"]).exists() and time.monotonic() < deadline_s:
                time.sleep(0.01)
        if "fail" in control:
            raise RetryableError(control["fail"])

    def _control(self) -> dict[str, Any]:
        return _control(self.name)


def _control(name: str) -> dict[str, Any]:
    try:
        return dict(json.loads(Path(os.environ["TEST_CONTROL"]).read_text()).get(name, {}))
    except (KeyError, FileNotFoundError):
        return {}


def _maybe_die(place: str) -> None:
    if _control("process").get("die_at") == place:
        os.kill(os.getpid(), 9)


_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS rows (spool_id TEXT, segment_no INTEGER, request_id TEXT)",
    "CREATE TABLE IF NOT EXISTS versions (spool_id TEXT PRIMARY KEY, segment_no INTEGER)",
    "CREATE TABLE IF NOT EXISTS outcomes (spool_id TEXT PRIMARY KEY, counts TEXT)",
    "CREATE TABLE IF NOT EXISTS deliveries (segments INTEGER)",
)


def build(settings: DrainerSettings) -> list[SqliteDestination]:
    """The destinations that the settings name; an OTLP endpoint is `sqlite:FOLDER` here."""
    destinations = []
    if settings.targets.table is not None:
        target = settings.targets.table
        destinations.append(SqliteDestination("table", Path(target.uri), target.storage_options.get("key", "right")))
    if settings.targets.otlp is not None:
        scheme, _, folder = settings.targets.otlp.endpoint.partition(":")
        destinations.append(SqliteDestination("otlp", Path(folder) if scheme == "sqlite" else None))
    return destinations


if __name__ == "__main__":
    from infertap.drain.__main__ import main

    if "--rehearse" not in sys.argv:
        with Path(os.environ["TEST_CONTROL"] + ".spawns").open("a") as spawns:
            spawns.write(f"{os.getpid()}\n")
    _maybe_die("import")
    main(sys.argv[1:], build=build, command=(sys.executable, "-P", __file__))
