"""What a drainer is told by the owner that starts it: over standard input, because credentials are among it."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

from infertap._version import __version__
from infertap.targets import TENANT_HEADERS, Targets


@dataclass(frozen=True, slots=True)
class DrainerSettings:
    """The effective settings of one drainer. Holds credentials; `repr` does not show them."""

    folder: Path
    """`spool_dir/<fingerprint>`, absolute."""
    targets: Targets
    commit_interval_s: float = 10.0
    commit_bytes_max: int = 16 << 20
    """Spool bytes that one delivery carries; a single larger segment still goes."""
    spool_bytes_max: int = 1 << 30
    drain_s: float = 10.0
    """How long it goes on without success after the last owner has left."""
    content: Literal["full", "metadata"] = "full"
    linger_s: float = 3.0
    """How long an idle drainer waits for the next owner."""
    resident_bytes_max: int = 1 << 30
    """Above this, between two deliveries, it ends and the next tick of an owner starts a fresh one."""
    owner_born_ns: int = 0
    """When the owner came to life, nanoseconds since the epoch: the newest living owner's settings win."""
    service_name: str = ""
    version: str = field(default=__version__)

    def hash16(self, salt: str) -> str:
        """Four hex digits that say "the same settings" or "others", and confirm no guessed credential.

        Owners of one destination differ in birth, name and version; these are left out.
        """
        effective = self.to_json()
        for name in ("owner_born_ns", "service_name", "version"):
            del effective[name]
        text = json.dumps(effective, sort_keys=True)
        return hashlib.sha256(f"{salt}\n{text}".encode()).hexdigest()[:4]

    @property
    def secrets(self) -> frozenset[str]:
        """Every value that is or may be a credential; for `masked`."""
        values: set[str] = set()
        if self.targets.table is not None:
            options = self.targets.table.storage_options.items()
            values |= {value for name, value in options if _may_be_secret(name)}
        if self.targets.otlp is not None:
            headers = self.targets.otlp.headers.items()
            values |= {value for name, value in headers if name.lower() not in TENANT_HEADERS}
        return frozenset(values)

    def to_json(self) -> dict[str, Any]:
        """All of it, secrets included: for a pipe, never for a disk."""
        return {
            "folder": str(self.folder),
            "targets": self.targets.to_json(),
            **{name: getattr(self, name) for name in _PLAIN},
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`.

        Raises:
            KeyError, TypeError: Something is missing or of an unknown name.
        """
        return cls(
            folder=Path(data["folder"]),
            targets=Targets.from_json(data["targets"]),
            **{name: data[name] for name in _PLAIN},
        )


def _may_be_secret(option: str) -> bool:
    return any(
        word in option.lower() for word in ("key", "secret", "token", "password", "sas", "credential", "account")
    )


_PLAIN = (
    "commit_interval_s", "commit_bytes_max", "spool_bytes_max", "drain_s", "content", "linger_s",
    "resident_bytes_max", "owner_born_ns", "service_name", "version",
)  # fmt: skip
