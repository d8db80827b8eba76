"""The memory that this process's control group allows it."""

from collections.abc import Mapping
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")
_UNLIMITED = 1 << 60
"""cgroup v1 says "no limit" with a huge number."""
WORKERS_VARIABLE = "_INFERTAP_RUN_WORKERS"
"""How many processes share that memory, where `infertap run` starts them."""
_WORKERS_MAX = 1024


def sharing_workers(environ: Mapping[str, str]) -> int:
    """How many workers `infertap run` has its server start; 1 where nobody says."""
    text = environ.get(WORKERS_VARIABLE, "")
    return min(max(1, int(text)), _WORKERS_MAX) if text.isascii() and text.isdecimal() else 1


def memory_limit_bytes(root: Path = _ROOT, membership: Path = Path("/proc/self/cgroup")) -> int | None:
    """The smallest limit of this process's own group and those above it; None where there is none to be seen."""
    limits = [limit for folder, name in _places(root, membership) if (limit := _read(folder / name)) is not None]
    return min(limits, default=None)


def _places(root: Path, membership: Path) -> list[tuple[Path, str]]:
    """Folders that may hold a limit, and the file's name there. A container sees its own group as the root."""
    places = [(root, "memory.max"), (root / "memory", "memory.limit_in_bytes")]
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return places
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            base, name = root, "memory.max"
        elif "memory" in controllers.split(","):
            base, name = root / "memory", "memory.limit_in_bytes"
        else:
            continue
        folder = base / path.lstrip("/")
        while folder != base and base in folder.parents:
            places.append((folder, name))
            folder = folder.parent
    return places


def _read(path: Path) -> int | None:
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    if not text.isdecimal() or int(text) >= _UNLIMITED:
        return None
    return int(text)
