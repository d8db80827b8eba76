"""`drainer.json`: who drains this folder, since when, how well, and what the last one died of.

1. It is written only by the holder of `drainer.lock`: the spawner before it hands the lock down, then the drainer.
2. Anybody may read it: election, `metrics_app`, `/readyz`, `doctor`. It never holds a credential.
3. It is a report, never a lock: whether somebody drains is decided by `drainer.lock` alone.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from pathlib import Path
from typing import Any, Self

from infertap.spool.jsonfile import read_json, write_json_atomic


class Phase(StrEnum):
    """Where in its life the drainer is."""

    NONE = ""
    STARTING = "starting"
    RUNNING = "running"
    ENDED = "ended"
    CRASHED = "crashed"
    """Found dead by an owner, which has counted the failure."""


@dataclass(slots=True)
class DestinationStatus:
    """How one destination fares. Counts go on over all drainers of the folder."""

    records: int = 0
    """Requests delivered."""
    spans: int = 0
    segments: int = 0
    deliveries: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    """`outcome` or `outcome/cause` -> requests, as far as the drainer itself decided them."""
    last_delivery_ns: int = 0
    last_error: str = ""
    """Empty where the last delivery worked."""
    last_error_ns: int = 0
    retry_at_ns: int = 0
    """Wall time of the next try; 0 where the last delivery worked."""
    waiting_segments: int = 0
    waiting_bytes: int = 0

    def count(self, outcome: str, cause: str, requests: int) -> None:
        """Adds to `counts`."""
        name = f"{outcome}/{cause}" if cause else outcome
        self.counts[name] = self.counts.get(name, 0) + requests


@dataclass(slots=True)
class DrainerState:
    """The content of `drainer.json`."""

    phase: Phase = Phase.NONE
    """The key `state` in the file."""
    nonce: str = ""
    """Of this start; also the salt of `hash16`."""
    pid: int = 0
    """0 until the drainer itself has spoken."""
    version: str = ""
    born_ns: int = 0
    """When the owner whose settings it runs with came to life."""
    hash16: str = ""
    service_name: str = ""
    slot: str = ""
    """That owner's slot; empty for `infertap drain`."""
    boot_id: str = ""
    started_ns: int = 0
    failures: int = 0
    """Deaths in a row without a delivery or 60 s of life in between."""
    retry_at_ns: int = 0
    """Wall time before which nobody starts another one."""
    reason: str = ""
    """Why it ended."""
    unsupported_segments: int = 0
    """Written by a newer infertap and left in place for it."""
    parked_frames: int = 0
    destinations: dict[str, DestinationStatus] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Reads the file; a missing or damaged one, or one of another shape, gives what can be understood of it."""
        try:
            data = read_json(path) or {}
        except OSError:
            data = {}
        state = cls(**_known(cls, data, leave_out=("phase", "destinations")))
        phase = data.get("state")
        state.phase = Phase(phase) if phase in list(Phase) else Phase.NONE
        destinations = data.get("destinations")
        for name, status in destinations.items() if isinstance(destinations, dict) else ():
            if isinstance(status, dict):
                state.destinations[name] = DestinationStatus(**_known(DestinationStatus, status))
        return state

    def save(self, path: Path) -> None:
        """Replaces the file. Only for the holder of the lock. Raises OSError."""
        data = asdict(self)
        data["state"] = data.pop("phase")
        write_json_atomic(path, data)


def _known(of: type[DrainerState | DestinationStatus], data: Mapping[str, Any], leave_out: tuple[str, ...] = ()) -> Any:
    defaults = {item.name: getattr(_DEFAULTS[of], item.name) for item in fields(of) if item.name not in leave_out}
    return {name: data[name] for name, default in defaults.items() if type(data.get(name)) is type(default)}


_DEFAULTS: dict[type, DrainerState | DestinationStatus] = {
    DrainerState: DrainerState(),
    DestinationStatus: DestinationStatus(),
}
