"""Whoever looks at a spool looks at something that others write, deliver, compact and remove at the same moment."""

import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from infertap import Config
from infertap.choice import choose
from infertap.clock import SystemClock
from infertap.metrics import FolderCollector
from infertap.otel_env import OtelEnvironment
from infertap.spool.accounts import read_ledger
from infertap.spool.folder import SpoolFolder
from infertap.spool.forgotten import forgotten_folders
from infertap.spool.frames import Kind, pack
from infertap.spool.recovery import adopt, sweep
from infertap.spool.writer import SpoolWriter
from infertap_sidecar.spool_survey import report, survey

CYCLES = 10


def _churn(folder: SpoolFolder, cycle: int) -> None:
    """A process comes, spools, and leaves; a drainer takes its segments and its slot; now and then all of it goes."""
    identity = {"table": {"uri": "../tables"}}
    writer = SpoolWriter(folder, {}, identity=identity, spool_bytes_max=1 << 30, clock=SystemClock())
    writer.open()
    for number in range(3):
        writer.append([(Kind.REQUEST, pack({"request_time": number}))], minutes=[0])
        writer.flush()
        writer.seal()
    writer.close()
    for spool_id in folder.slot_ids():
        slot = adopt(folder, spool_id)
        if slot is not None:
            for path in slot.path.glob("*.seg"):
                path.unlink()
            slot.remove()
    sweep(folder)
    if cycle % 5 == 0:
        shutil.rmtree(folder.path.parent if cycle % 10 == 0 else folder.path)


def test_looking_never_fails_for_what_goes_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`doctor`, `drain` and `/metrics` read whole folders in a loop while slots, folders and the spool come and go."""
    # A busy disk would only make the changes rare.
    monkeypatch.setattr(os, "fsync", lambda _: None)
    monkeypatch.setattr(os, "fdatasync", lambda _: None)
    choice = choose(Config(tables=str(tmp_path / "t"), destination="table"), OtelEnvironment.read({}), cwd=tmp_path)
    folder, beside = SpoolFolder(choice.folder), SpoolFolder(choice.folder.with_name("table-000000000000"))
    looks: list[Callable[[], Any]] = [
        lambda: survey([choice.spool_dir], choice),
        lambda: report(folder.path),
        lambda: forgotten_folders([choice.spool_dir], own=beside.path),
        lambda: list(FolderCollector(choice, SystemClock()).collect()),
        lambda: read_ledger(folder),
    ]
    failures: list[BaseException] = []
    ended = threading.Event()

    def look(at: Callable[[], Any]) -> None:
        while not ended.is_set() and not failures:
            # Without a pause the lookers would keep the interpreter to themselves.
            time.sleep(0.001)
            try:
                at()
            except BaseException as error:
                failures.append(error)

    threads = [threading.Thread(target=look, args=(at,)) for at in looks]
    for thread in threads:
        thread.start()
    try:
        for cycle in range(CYCLES):
            _churn(folder, cycle)
            beside.prepare({})
    finally:
        ended.set()
        for thread in threads:
            thread.join()
    assert failures == []
