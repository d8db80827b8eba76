"""What lies in the spool: one line for each destination's folder, also those that nobody writes to any more."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infertap.choice import Choice
from infertap.drain.state import DrainerState
from infertap.spool.accounts import counted
from infertap.spool.folder import OPEN, SEALED, SpoolFolder, list_segments
from infertap.spool.jsonfile import read_json
from infertap.spool.lock import FileLock
from infertap.spool.waiting import Waiting
from infertap_sidecar.places import short
from infertap_sidecar.settings import SidecarConfig


@dataclass(frozen=True, slots=True)
class FolderReport:
    """One destination's folder of a spool."""

    path: Path
    destination: str
    """Where its records were meant to go, in words."""
    current: bool
    """Whether the settings at hand write to it."""
    owners: int
    """Slots that a living process holds."""
    waiting: Waiting
    """Open segments included."""
    size_bytes: int
    parked: int
    """Records in `parked/`, which no destination takes."""
    drained: bool
    """Whether a drainer works on it now."""
    drainer: DrainerState
    counters: Mapping[str, int]
    """Of requests and spans, those of processes that are gone included (`Accounts.counters`)."""

    @property
    def forgotten(self) -> bool:
        """Records wait in it, and nobody is there to deliver them."""
        return not self.current and not self.owners and not self.drained and self.waiting.segments > 0


def known_spools(config: SidecarConfig, choice: Choice) -> set[Path]:
    """Where records of these settings wait, or would have waited with another destination."""
    spools = {choice.spool_dir, Path.cwd() / ".infertap_spool"}
    if "://" not in config.tables:
        spools.add(Path(config.tables).expanduser() / ".spool")
    return spools


def survey(spool_dirs: Iterable[Path], choice: Choice) -> list[FolderReport]:
    """All folders below the given roots; none where there is no spool yet."""
    found = {
        file.parent.resolve(): file.parent for root in spool_dirs for file in sorted(root.glob("*/destination.json"))
    }
    current = choice.folder.resolve()
    return [report(path, current=real == current) for real, path in found.items()]


def read_identity(path: Path) -> Mapping[str, Any]:
    """`destination.json`; empty where it cannot be read."""
    try:
        identity = read_json(path / "destination.json") or {}
    except (OSError, ValueError):
        return {}
    needed = {"table": ("uri",), "otlp": ("endpoint", "protocol")}
    return {
        name: facts
        for name, facts in identity.items()
        if name not in needed
        or (isinstance(facts, dict) and all(isinstance(facts.get(fact), str) for fact in needed[name]))
    }


def places(path: Path) -> dict[str, str]:
    """`destination.json` for people: name of each destination, and where it is."""
    return places_of(read_identity(path), path)


def places_of(identity: Mapping[str, Any], path: Path) -> dict[str, str]:
    """The same of any identity, a local table's being relative to the parent of `path`."""
    found = {}
    if "table" in identity:
        uri = str(identity["table"].get("uri", "?"))
        found["table"] = uri if "://" in uri else short((path.parent / uri).resolve())
    if "otlp" in identity:
        found["otlp"] = str(identity["otlp"].get("endpoint", "?"))
    return found


def report(path: Path, *, current: bool = False) -> FolderReport:
    """What lies in one folder."""
    folder = SpoolFolder(path)
    slots = [folder.slot_dir(spool_id) for spool_id in folder.slot_ids()]
    return FolderReport(
        path=path,
        destination=" and ".join(places(path).values()) or "unknown",
        current=current,
        owners=sum(_held(slot / "lock") for slot in slots),
        waiting=Waiting.of(file for slot in slots for suffix in (SEALED, OPEN) for file in list_segments(slot, suffix)),
        size_bytes=folder.size_bytes(),
        parked=_parked(folder.parked_dir),
        drained=_held(folder.drainer_lock),
        drainer=DrainerState.load(folder.drainer_state),
        counters=counted(folder)[1],
    )


def _parked(folder: Path) -> int:
    """One record a line; `.tmp` files are half written."""
    try:
        return sum(path.read_bytes().count(b"\n") for path in folder.glob("[!.]*.jsonl"))
    except OSError:
        return 0


def _held(path: Path) -> bool:
    """Whether somebody holds the lock: taken for a moment where nobody does, as every drainer does, too."""
    if not path.exists():
        return False
    try:
        lock = FileLock.try_acquire(path, create=False)
    except OSError:
        return True
    if lock is None:
        return True
    lock.close()
    return False
