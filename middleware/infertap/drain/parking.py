"""What no destination can have: kept in `parked/`, redacted like everything in the spool, never silently dropped.

Names are made from slot, segment and destination, so that parking the same again after a crash changes nothing.
"""

import os
from pathlib import Path
from typing import Any

import orjson

from infertap.spool.durability import sync_folder
from infertap.spool.folder import SpoolFolder
from infertap.spool.reader import Segment


class Parking:
    """The folder `parked/`. Every method is durable when it returns and raises OSError where it cannot be."""

    def __init__(self, folder: SpoolFolder) -> None:
        self._dir = folder.parked_dir

    def park(self, destination: str, segment: Segment, reason: str, *, by: str = "drainer") -> None:
        """Writes down a segment's requests and spans as JSON lines `{"destination", "reason", "kind", "row"}`.

        `by` says who gave them up: what another has parked of the same segment stays.
        """
        head = {"destination": destination, "reason": reason, "spool_id": segment.spool_id}
        head["segment_no"] = segment.segment_no  # type: ignore[assignment] # the only number among texts
        lines = [{**head, "kind": "request", "row": row} for row in segment.requests]
        lines += [{**head, "kind": "span", "row": row} for row in segment.spans]
        content = b"".join(orjson.dumps(line, default=_as_text) + b"\n" for line in lines)
        self._write(f"{destination}-{by}-{segment.spool_id}-{segment.segment_no:012d}.jsonl", content)

    def park_unknown(self, segment: Segment) -> int:
        """Writes down frames of kinds that this version does not know; returns their number."""
        if segment.unknown:
            lines = [{"kind": kind, "payload_hex": payload.hex()} for kind, payload in segment.unknown]
            content = b"".join(orjson.dumps(line) + b"\n" for line in lines)
            self._write(f"unknown-{segment.spool_id}-{segment.segment_no:012d}.jsonl", content)
        return len(segment.unknown)

    def _write(self, name: str, content: bytes) -> None:
        self._dir.mkdir(mode=0o700, exist_ok=True)
        path, temporary = self._dir / name, self._dir / f".{name}.tmp"
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).rename(path)
        sync_folder(self._dir)


def _as_text(value: Any) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)
