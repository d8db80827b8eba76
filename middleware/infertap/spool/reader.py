"""Reads sealed segments: what the drainer carries to the destinations."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infertap.errors import SpoolError
from infertap.record import SCHEMA_VERSION
from infertap.spool.folder import list_segments, segment_no_of
from infertap.spool.frames import Frame, Kind, UnsupportedFormat, scan, unpack

__all__ = ["Segment", "UnsupportedFormat", "list_segments", "read_header_file", "read_segment"]


@dataclass(frozen=True, slots=True)
class Segment:
    """One sealed segment, read whole."""

    spool_id: str
    segment_no: int
    header: Mapping[str, Any]
    """The OPEN payload."""
    requests: tuple[dict[str, Any], ...]
    spans: tuple[dict[str, Any], ...]
    ledger: tuple[dict[str, Any], ...]
    """LEDGER payloads in the order of writing; per minute and outcome the last one wins."""
    size_bytes: int
    damaged: int
    """Frames lost to damage; an unreadable tail of unknown length counts as one."""
    unknown: tuple[tuple[int, bytes], ...]
    """(kind, payload) of frames that this version does not know, to be parked."""


def read_segment(path: Path) -> Segment:
    """Reads one segment. Names (slot and number) come from the path, which is what cursors speak of.

    Raises:
        UnsupportedFormat: A newer infertap wrote it: leave it, and all later ones of its slot, in place.
        SpoolError: It cannot be read now.
        FileNotFoundError: It is gone, as after its delivery by another drainer.
    """
    try:
        buffer = path.read_bytes()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise SpoolError(f"cannot read {path.name}: {error.strerror}") from error
    result = scan(buffer)
    sorted_frames = _SortedFrames()
    for frame in result.frames:
        sorted_frames.add(frame)
    header = sorted_frames.header or read_header_file(path.parent)
    _check_schema(header)
    return Segment(
        spool_id=path.parent.name,
        segment_no=segment_no_of(path),
        header=header,
        requests=tuple(sorted_frames.requests),
        spans=tuple(sorted_frames.spans),
        ledger=tuple(sorted_frames.ledger),
        size_bytes=len(buffer),
        damaged=result.damaged + sorted_frames.damaged + (result.good_end < len(buffer)),
        unknown=tuple(sorted_frames.unknown),
    )


def read_header_file(slot_dir: Path) -> dict[str, Any]:
    """The slot's own copy of what its OPEN frames say, without a segment number; empty where it cannot be read."""
    try:
        frames = scan((slot_dir / "header").read_bytes()).frames
        return unpack(frames[0].payload) if frames else {}
    except (OSError, ValueError, UnsupportedFormat):
        return {}


class _SortedFrames:
    def __init__(self) -> None:
        self.header: dict[str, Any] = {}
        self.requests: list[dict[str, Any]] = []
        self.spans: list[dict[str, Any]] = []
        self.ledger: list[dict[str, Any]] = []
        self.unknown: list[tuple[int, bytes]] = []
        self.damaged = 0

    def add(self, frame: Frame) -> None:
        if frame.kind not in _KNOWN_KINDS:
            self.unknown.append((frame.kind, frame.payload))
            return
        try:
            payload = unpack(frame.payload)
        except ValueError:
            self.damaged += 1
            return
        match frame.kind:
            case Kind.OPEN:
                self.header = payload
                # Before any row: a newer writer's rows must not be taken for ours.
                _check_schema(payload)
            case Kind.REQUEST:
                self.requests.append(payload)
            case Kind.SPAN:
                self.spans.append(payload)
            case Kind.LEDGER:
                self.ledger.append(payload)


_KNOWN_KINDS = frozenset({Kind.OPEN, Kind.REQUEST, Kind.SPAN, Kind.LEDGER, Kind.SEAL})


def _check_schema(header: Mapping[str, Any]) -> None:
    version = header.get("schema_version", SCHEMA_VERSION)
    if not isinstance(version, int) or version > SCHEMA_VERSION:
        raise UnsupportedFormat(f"schema version {version}; this version reads up to {SCHEMA_VERSION}")
