"""What can be said of a folder or a URL without touching it."""

import os
from pathlib import Path

from infertap.urls import without_credentials


def writable(folder: Path) -> bool:
    """Whether files can be made in `folder`, or `folder` itself where it does not exist yet."""
    place = folder
    while not place.exists() and place != place.parent:
        place = place.parent
    return place.is_dir() and os.access(place, os.W_OK | os.X_OK)


def size_text(size_bytes: int) -> str:
    """`1.5 MiB`: three digits are enough for people."""
    size = float(size_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" or size >= 100 else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def without_secrets(value: str) -> str:
    """A URL without user, password, query and fragment; other text as it is."""
    return without_credentials(value) if "://" in value and "," not in value else value
