"""Small state files that are always whole: replaced by rename, never written in place."""

import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson


def write_json_atomic(path: Path, data: Mapping[str, Any], *, durable: bool = True) -> None:
    """Replaces `path`, mode 0600. Raises OSError, `path` untouched.

    Args:
        durable: The content is on the disk before the name. False: it survives our death, and after a power loss the
            file may be the old one or unreadable.
    """
    content = orjson.dumps(data, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(content)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        temporary.rename(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def read_json(path: Path) -> dict[str, Any] | None:
    """The map in `path`; None where it is missing or is not a JSON map. Raises OSError where it cannot be read."""
    try:
        data = orjson.loads(path.read_bytes())
    except (FileNotFoundError, orjson.JSONDecodeError):
        return None
    return data if isinstance(data, dict) else None
