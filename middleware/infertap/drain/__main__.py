"""The drainer's process: `python -P -m infertap.drain FOLDER`, started by an owner that hands it lock and settings.

1. Everything is imported before it says `running`: an environment upgraded underneath would mix versions.
2. It always exits with 0: an old gunicorn as process 1 stops the whole server on other codes. The truth is in
   `drainer.json`.
3. `except BaseException` stands here, at the process's own border: a Rust panic is one.
"""

import faulthandler
import json
import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from infertap.clock import SystemClock
from infertap.destinations.protocol import Destination
from infertap.drain.log import log_to_folder
from infertap.drain.loop import Drainer, Stop
from infertap.drain.poison import REHEARSE_FLAG, PoisonSearch, Rehearsal, sweep_scratch
from infertap.drain.process import bound_error_file, resident_bytes, spare_garbage_collection, step_back, take_signals
from infertap.drain.settings import DrainerSettings
from infertap.drain.state import DrainerState
from infertap.spool.folder import SpoolFolder
from infertap.spool.lock import FileLock

Build = Callable[[DrainerSettings], Sequence[Destination]]

_MODULE_COMMAND = (sys.executable, "-P", "-m", "infertap.drain")

_log = logging.getLogger("infertap.drain")


def main(arguments: Sequence[str], *, build: Build | None = None, command: Sequence[str] = _MODULE_COMMAND) -> NoReturn:
    """Runs a drainer, or a rehearsal for one, and ends the process.

    Args:
        arguments: The folder; before it `--rehearse` in a child that is to find out what kills.
        build: Makes the destinations. Default: `infertap.build.build_destinations`.
        command: What starts this function again, for rehearsals.
    """
    code = 0
    try:
        if arguments[0] == REHEARSE_FLAG:
            code = 1
            _rehearse(build or _default_build())
            code = 0
        else:
            _drain(SpoolFolder(Path(arguments[0])), build, command)
    except BaseException:
        _log.exception("the drainer ends unexpectedly")
    finally:
        logging.shutdown()
        os._exit(code)


def _drain(folder: SpoolFolder, build: Build | None, command: Sequence[str]) -> None:
    stop = Stop(folder)
    take_signals(stop.request)
    os.umask(0o077)
    try:
        order = json.loads(sys.stdin.buffer.read())
        lock = FileLock.adopt_fd(int(order["lock_fd"]), folder.drainer_lock)
        settings = DrainerSettings.from_json(order["settings"])
    except (ValueError, KeyError, TypeError):
        # The spawner died before it had said everything. The lock goes with us.
        return
    state = DrainerState.load(folder.drainer_state)
    if lock is None or state.nonce != order["nonce"]:
        return
    state.pid = os.getpid()
    state.save(folder.drainer_state)
    step_back()
    faulthandler.enable()
    log_to_folder(folder, settings.secrets)
    sweep_scratch(folder)
    destinations = (build or _default_build())(settings)
    for destination in destinations:
        destination.open()
    spare_garbage_collection()
    Drainer(
        settings,
        destinations,
        SystemClock(),
        lock=lock,
        state=state,
        stop=stop,
        poison=PoisonSearch(command, settings),
        resident_bytes=_measure,
    ).run()


def _measure() -> int:
    # Once a round, like the look at the memory.
    bound_error_file()
    return resident_bytes()


def _rehearse(build: Build) -> None:
    order: dict[str, Any] = json.loads(sys.stdin.buffer.read())
    rehearsal = Rehearsal(order)
    try:
        rehearsal.run(build(rehearsal.settings))
    finally:
        rehearsal.close()


def _default_build() -> Build:
    from infertap.build import build_destinations

    return build_destinations


if __name__ == "__main__":
    main(sys.argv[1:])
