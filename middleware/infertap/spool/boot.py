"""Which start of the machine this is: a spool on a volume meets several machines, and each of them several boots."""

import uuid
from pathlib import Path


def boot_id() -> str:
    """A UUID as text that changes with every boot; the nil UUID where the platform does not tell."""
    try:
        return str(uuid.UUID(Path("/proc/sys/kernel/random/boot_id").read_text().strip()))
    except (OSError, ValueError):
        return str(uuid.UUID(int=0))
