"""`retire`: a newer owner's claim, so that a restart with corrected settings replaces a drainer that has wrong ones."""

from dataclasses import asdict, dataclass
from typing import Self

from infertap.spool.folder import SpoolFolder
from infertap.spool.jsonfile import read_json, write_json_atomic
from infertap.spool.lock import is_locked


@dataclass(frozen=True, slots=True)
class RetireClaim:
    """Who wants to take over, and since when it lives."""

    slot: str
    born_ns: int

    @classmethod
    def load(cls, folder: SpoolFolder) -> Self | None:
        """The claim in the folder, if there is a readable one."""
        try:
            data = read_json(folder.retire) or {}
            return cls(slot=str(data["slot"]), born_ns=int(data["born_ns"]))
        except (OSError, KeyError, TypeError, ValueError):
            return None

    def save(self, folder: SpoolFolder) -> None:
        """Writes the claim over an older one. Raises OSError."""
        write_json_atomic(folder.retire, asdict(self))

    def beats(self, folder: SpoolFolder, born_ns: int) -> bool:
        """Whether the claimant was born later than `born_ns` and still lives."""
        return self.born_ns > born_ns and is_held(folder, self.slot)


def is_held(folder: SpoolFolder, slot: str) -> bool:
    """Whether a slot's owner lives: its lock is there and cannot be taken."""
    return bool(slot) and is_locked(folder.slot_dir(slot) / "lock")


def is_newer_version(version: str, than: str) -> bool:
    """Compares the numbers of two versions; whatever follows the numbers is not looked at."""
    return _numbers(version) > _numbers(than)


def _numbers(version: str) -> tuple[int, ...]:
    numbers: list[int] = []
    for part in version.split("."):
        digits = part[: len(part) - len(part.lstrip("0123456789"))]
        if not digits:
            break
        numbers.append(int(digits))
    return tuple(numbers)
