"""A spool folder with real owners and real drainers around it."""

import importlib.util
import json
import os
import select
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from infertap.clock import Clock, SystemClock
from infertap.drain.loop import Drainer, Stop
from infertap.drain.settings import DrainerSettings
from infertap.drain.state import DrainerState, Phase
from infertap.record import InferenceRecord
from infertap.spool.folder import SpoolFolder
from infertap.spool.frames import Kind, pack
from infertap.spool.lock import FileLock
from infertap.spool.writer import SpoolWriter
from infertap.targets import OtlpTarget, TableTarget, Targets

_HERE = Path(__file__).parent
DEADLINE_S = 120.0
"""Longer than the minute that a drainer may wait after others have died."""
RUNNER = (sys.executable, "-P", str(_HERE / "sqlite_destination.py"))


class Owner:
    """A process that owns a slot."""

    def __init__(self, options: dict[str, Any], env: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(_HERE / "owner.py"), json.dumps(options)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **env},
        )
        self.slot: str = self._read()["slot"]

    def tell(self, deadline_s: float = DEADLINE_S, **order: Any) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(order).encode() + b"\n")
        self.process.stdin.flush()
        return self._read(deadline_s)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        if self.process.poll() is None:
            self.kill()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()

    def _read(self, deadline_s: float = DEADLINE_S) -> dict[str, Any]:
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], deadline_s)
        assert ready, "the owner does not answer"
        return dict(json.loads(self.process.stdout.readline()))


class Bench:
    """One spool folder, its destinations, and whoever works on it."""

    def __init__(self, path: Path, module: ModuleType) -> None:
        self.module = module
        self.folder = SpoolFolder(path / "spool" / "table-abc")
        self.tables = path / "tables"
        self.collector = path / "collector"
        self.control_path = path / "control.json"
        self.env = {"TEST_CONTROL": str(self.control_path)}
        self.owners: list[Owner] = []
        self.clock: Clock = SystemClock()
        self.folder.prepare({})

    def settings(self, *, key: str = "right", both: bool = False, **changes: Any) -> DrainerSettings:
        targets = Targets(
            table=TableTarget(str(self.tables), {"key": key}),
            otlp=OtlpTarget(f"sqlite:{self.collector}", "grpc") if both else None,
        )
        values: dict[str, Any] = {"commit_interval_s": 0.2, "linger_s": 0.1, "drain_s": 2.0, **changes}
        return DrainerSettings(folder=self.folder.path, targets=targets, **values)

    def owner(self, settings: DrainerSettings | None = None, **options: Any) -> Owner:
        settings = settings or self.settings()
        owner = Owner({"settings": settings.to_json(), "command": RUNNER, **options}, self.env)
        self.owners.append(owner)
        return owner

    def control(self, **destinations: dict[str, Any]) -> None:
        temporary = self.control_path.with_suffix(".tmp")
        temporary.write_text(json.dumps(destinations))
        temporary.rename(self.control_path)

    def state(self) -> DrainerState:
        return DrainerState.load(self.folder.drainer_state)

    def rows(self, destination: str = "table") -> list[str]:
        return [row[0] for row in self.query(destination, "SELECT request_id FROM rows ORDER BY 1")]

    def query(self, destination: str, sql: str) -> list[tuple[Any, ...]]:
        path = (self.tables if destination == "table" else self.collector) / f"{destination}.db"
        if not path.exists():
            return []
        db = sqlite3.connect(path, timeout=30)
        try:
            return db.execute(sql).fetchall()
        except sqlite3.OperationalError:
            return []
        finally:
            db.close()

    def lost(self, cause: str) -> dict[str, int]:
        """`minute|destination` -> count, summed over the cursor files."""
        totals: dict[str, int] = {}
        for path in self.folder.cursors_dir.glob("*.json"):
            for key, count in json.loads(path.read_text())["outcomes"].items():
                minute, destination, outcome, why = key.split("|")
                if (outcome, why) == ("lost", cause):
                    totals[f"{minute}|{destination}"] = totals.get(f"{minute}|{destination}", 0) + count
        return totals

    def spawns(self) -> int:
        """How many drainer processes were started."""
        path = Path(str(self.control_path) + ".spawns")
        return len(path.read_text().splitlines()) if path.exists() else 0

    def segments(self) -> list[Path]:
        return sorted(self.folder.slots_dir.glob("*/*.seg"))

    def is_drained_by_nobody(self) -> bool:
        lock = FileLock.try_acquire(self.folder.drainer_lock)
        if lock is None:
            return False
        lock.close()
        return True

    def spool(
        self, *groups: list[str], minute: int = 0, body: str = "", header: dict[str, Any] | None = None
    ) -> SpoolWriter:
        """A writer of this process, with one sealed segment for each group; close it to leave an orphan."""
        writer = SpoolWriter(
            self.folder, header or {"service_name": "svc"}, identity={}, spool_bytes_max=1 << 40, clock=SystemClock()
        )
        writer.open()
        for ids in groups:
            frames = [
                (Kind.REQUEST, pack(InferenceRecord(request_id, minute * 60_000_000, request=body).to_payload()))
                for request_id in ids
            ]
            writer.append(frames, minutes=[minute] * len(frames))
            writer.flush()
            writer.seal()
        return writer

    def drainer(
        self, settings: DrainerSettings | None = None, *, lock: FileLock | None = None, **options: Any
    ) -> Drainer:
        """A drainer in this process, holding the lock, with the real test destinations."""
        settings = settings or self.settings()
        lock = lock or FileLock.try_acquire(self.folder.drainer_lock)
        assert lock is not None
        self.stop = Stop(self.folder)
        destinations = self.module.build(settings)
        for destination in destinations:
            destination.open()
        return Drainer(settings, destinations, self.clock, lock=lock, state=self.state(), stop=self.stop, **options)

    def kill_drainer(self) -> int:
        return int(wait_for(self.try_to_kill_drainer))

    def try_to_kill_drainer(self) -> int:
        """Kills the drainer that says it runs, and returns its pid; 0 where it is dead already.

        What a dead one has said stays until an owner looks, and a busy machine may have given its pid to others.
        """
        state = self.state()
        if not state.pid or state.phase not in (Phase.STARTING, Phase.RUNNING):
            return 0
        try:
            # Linux tells whose pid it is by now.
            command = Path(f"/proc/{state.pid}/cmdline")
            if sys.platform == "linux" and str(self.folder.path).encode() not in command.read_bytes():
                return 0
            os.kill(state.pid, signal.SIGKILL)
        except (ProcessLookupError, FileNotFoundError):
            return 0
        return state.pid

    def close(self) -> None:
        for owner in self.owners:
            owner.close()
        self.folder.ring()
        # Without owners every drainer leaves by itself; what hangs is a failure of the test, not a leftover.
        wait_for(self.is_drained_by_nobody)


def wait_for(condition: Callable[[], Any], deadline_s: float = DEADLINE_S) -> Any:
    """Polls until the condition is true and returns its value."""
    end_s = time.monotonic() + deadline_s
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < end_s, "it did not happen in time"
        time.sleep(0.01)


@pytest.fixture
def bench(tmp_path: Path, sqlite_destination: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    bench = Bench(tmp_path, sqlite_destination)
    monkeypatch.setenv("TEST_CONTROL", str(bench.control_path))
    yield bench
    bench.close()


@pytest.fixture(name="wait_for")
def wait_for_fixture() -> Callable[..., Any]:
    return wait_for


@pytest.fixture(scope="session")
def sqlite_destination() -> ModuleType:
    spec = importlib.util.spec_from_file_location("sqlite_destination", _HERE / "sqlite_destination.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
