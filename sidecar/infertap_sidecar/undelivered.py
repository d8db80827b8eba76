"""What waits in the spool for the tables that are asked, and when it lands, so that no old row is taken for the newest.

Only this machine's spool can be seen; other hosts' records come unannounced.
"""

import os
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from infertap.drain.state import DestinationStatus, DrainerState
from infertap.errors import InfertapError
from infertap.spool.folder import SpoolFolder, destination_folders
from infertap.spool.lock import is_locked
from infertap.spool.waiting import Waiting
from infertap.tables.query import NoTableError
from infertap.targets import TableTarget
from infertap.urls import without_password
from infertap_sidecar.places import short
from infertap_sidecar.spool_survey import read_identity
from infertap_sidecar.target import Asked
from infertap_sidecar.terminal import harmless

T = TypeVar("T")

_TABLE = "table"


def read_tables(asked: Asked, read: Callable[[TableTarget], T]) -> tuple[T, list[str]]:
    """What `read` finds, and a sentence for each folder of the spool in which requests or spans wait for these tables.

    Raises: NoTableError, or InfertapError where what would be in that table waits; whatever `read` raises.
    """
    # Before the tables are read: what lands in between is announced and shown, and would else be neither.
    waiting = _undelivered(asked)
    try:
        return read(asked.tables), waiting
    except NoTableError as error:
        if not waiting:
            raise
        raise InfertapError(f"there is no table `{error.name}` yet: {'; '.join(waiting)}") from error


def say(command: str, sentences: Sequence[str]) -> None:
    """One line each on standard error: standard output is data."""
    for sentence in sentences:
        print(f"infertap {command}: {harmless(sentence)}", file=sys.stderr)


def _undelivered(asked: Asked) -> list[str]:
    found = []
    for path in _folders(asked.spool_dirs, asked.tables):
        try:
            waiting = Waiting.for_destination(SpoolFolder(path), _TABLE)
            if waiting.requests or waiting.spans or waiting.uncounted:
                found.append(_sentence(path, waiting))
        except OSError as error:
            # The tables are there to be read, whoever the spool belongs to.
            found.append(f"what waits in the spool {short(path)} cannot be seen: {error.strerror}")
    return found


def _folders(spool_dirs: Iterable[Path], tables: TableTarget) -> list[Path]:
    """Those of one destination each that deliver to these tables."""
    found = {path.resolve(): path.absolute() for root in spool_dirs for path in destination_folders(root)}
    return [path for path in found.values() if _is_for(path, tables)]


def _is_for(path: Path, tables: TableTarget) -> bool:
    uri = str(read_identity(path).get(_TABLE, {}).get("uri", ""))
    local = tables.local_path
    if local is None or not uri or "://" in uri:
        return local is None and without_password(tables.uri) == uri
    return os.path.realpath(path.parent.resolve() / uri) == os.path.realpath(local)


def _sentence(path: Path, waiting: Waiting) -> str:
    folder = SpoolFolder(path)
    one = waiting.requests + waiting.spans == 1
    waits = f"{waiting.sentence} in the spool"
    if not is_locked(folder.drainer_lock):
        return f"{waits}; no drainer is at work: infertap drain {short(path)} delivers {'it' if one else 'them'}"
    status = DrainerState.load(folder.drainer_state).destinations.get(_TABLE, DestinationStatus())
    if status.last_error:
        return f"{waits}, and the delivery fails: {status.last_error} (infertap doctor says more)"
    return f"{waits}; {'it lands' if one else 'they land'} with the next commit (commit_interval_s)"
