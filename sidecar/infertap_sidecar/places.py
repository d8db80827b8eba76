"""What can be said of a folder or a URL."""

import os
import tempfile
from pathlib import Path

from infertap.urls import without_credentials

_TRIAL_BYTES = 64 << 10


def writable(folder: Path) -> bool:
    """Whether the rights allow files in `folder`, or in what it would be made in; cheap, and nothing is touched."""
    place = _existing(folder)
    return place.is_dir() and os.access(place, os.W_OK | os.X_OK)


def why_unwritable(folder: Path) -> str:
    """Why no file can be made in `folder`, or below it where it does not exist yet; empty where one can.

    It is tried, and nothing is left behind: rights alone do not tell of read-only and full disks, or of /proc.
    """
    place = _existing(folder)
    if not place.is_dir():
        return f"{short(place)} is no folder"
    try:
        with tempfile.TemporaryDirectory(prefix=".infertap-doctor-", dir=place) as trial:
            Path(trial, "trial").write_bytes(bytes(_TRIAL_BYTES))
    except OSError as error:
        return f"{short(place)}: {error.strerror}"
    return ""


def short(place: str | Path) -> str:
    """A path as one would type it here: relative where it is below the working directory. URLs as they are."""
    text = str(place)
    here = str(Path.cwd())
    return f".{text[len(here) :]}" if text.startswith(here + os.sep) else text


def size_text(size_bytes: int) -> str:
    """`1.5 MiB`: three digits are enough for people."""
    size = float(size_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" or size >= 100 else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def age_text(age_ns: int) -> str:
    """`3 min`: one unit is enough for people."""
    age_s = max(0, age_ns) / 1e9
    for unit, size_s in (("days", 86_400), ("h", 3600), ("min", 60)):
        if age_s >= 2 * size_s:
            return f"{age_s / size_s:.0f} {unit}"
    return f"{age_s:.0f} s"


def without_secrets(value: str) -> str:
    """A URL without user, password, query and fragment; other text as it is."""
    return without_credentials(value) if "://" in value else value


def _existing(folder: Path) -> Path:
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder
