"""The frames of a segment: one record each, checked so that no damage is ever read as data.

    header 12 B: magic "ITS1" | format u8 | kind u8 | flags u16 (bit 0: the payload is zstd) | payload length u32
    check  12 B: xxh32(header) u32 | xxh3_64(payload) u64                                      little-endian
    payload: a msgpack map

1. A damaged payload costs that frame only. A damaged header ends the scan: bytes are never searched for the next
   magic, because a recorded body may contain a forged frame.
2. Compressed payloads are read, for writers that know how; this version writes none.
3. A valid header of another format is not damage: it raises, and the file is left for a newer version.
"""

import struct
from collections.abc import Mapping
from enum import IntEnum
from typing import Any, NamedTuple

import ormsgpack
import xxhash

from infertap.errors import SpoolError

FORMAT = 1
FRAME_BYTES_MAX = 1 << 30
"""Largest payload, before and after decompression. Larger lengths are refused as damage."""

OVERHEAD_BYTES = 24

_MAGIC = b"ITS1"
_HEADER = struct.Struct("<4sBBHI")
_CHECK = struct.Struct("<IQ")
_COMPRESSED = 1


class Kind(IntEnum):
    """What a frame's payload is. 4 is reserved for references to payload files."""

    OPEN = 0
    REQUEST = 1
    SPAN = 2
    LEDGER = 3
    SEAL = 9


class UnsupportedFormat(SpoolError):  # noqa: N818 - a state to wait in, not a fault
    """A newer infertap wrote this, or it needs a codec that is not installed: leave the file where it is."""


class Frame(NamedTuple):
    """One frame whose checks held. `kind` may be a number that this version does not know."""

    kind: int
    payload: bytes


class Scan(NamedTuple):
    """What a buffer holds."""

    frames: list[Frame]
    good_end: int
    """Offset behind the last whole frame, damaged payloads included: what lies behind it cannot be read."""
    damaged: int
    """Frames whose payload did not match its check."""


def pack(payload: Mapping[str, Any]) -> bytes:
    """The msgpack form. Raises `ormsgpack.MsgpackEncodeError` for lone surrogates and integers over 64 bits."""
    return ormsgpack.packb(payload)


def unpack(payload: bytes) -> dict[str, Any]:
    """The inverse of `pack`. Raises ValueError for anything but a map with text keys."""
    data = ormsgpack.unpackb(payload)
    if not isinstance(data, dict):
        raise ValueError("the payload is not a map")
    return data


def encode_header(kind: int, payload: bytes) -> bytes:
    """The 24 bytes that go before `payload` as it is. Raises SpoolError for a payload over `FRAME_BYTES_MAX`."""
    if len(payload) > FRAME_BYTES_MAX:
        raise SpoolError(f"a frame of {len(payload)} bytes is over the limit of {FRAME_BYTES_MAX}")
    header = _HEADER.pack(_MAGIC, FORMAT, kind, 0, len(payload))
    return header + _CHECK.pack(xxhash.xxh32_intdigest(header), xxhash.xxh3_64_intdigest(payload))


def encode(kind: int, payload: bytes) -> bytes:
    """One whole frame. Raises SpoolError for a payload over `FRAME_BYTES_MAX`."""
    return encode_header(kind, payload) + payload


def scan(buffer: bytes) -> Scan:
    """Reads frames until the buffer ends or cannot be trusted any more.

    Raises:
        UnsupportedFormat: A header that is whole names another format, or a payload needs a missing codec.
    """
    frames: list[Frame] = []
    offset = damaged = 0
    while (header := _read_header(buffer, offset)) is not None:
        kind, flags, length, payload_check = header
        start, offset = offset + OVERHEAD_BYTES, offset + OVERHEAD_BYTES + length
        stored = buffer[start:offset]
        intact = xxhash.xxh3_64_intdigest(stored) == payload_check
        payload = (_decompress(stored) if flags & _COMPRESSED else stored) if intact else None
        if payload is None:
            damaged += 1
        else:
            frames.append(Frame(kind, payload))
    return Scan(frames, offset, damaged)


def _read_header(buffer: bytes, offset: int) -> tuple[int, int, int, int] | None:
    """Kind, flags, payload length and payload check; None where no whole frame can be trusted to follow."""
    if offset + OVERHEAD_BYTES > len(buffer):
        return None
    header_check, payload_check = _CHECK.unpack_from(buffer, offset + _HEADER.size)
    if xxhash.xxh32_intdigest(buffer[offset : offset + _HEADER.size]) != header_check:
        return None
    magic, format_, kind, flags, length = _HEADER.unpack_from(buffer, offset)
    if magic != _MAGIC:
        return None
    if format_ != FORMAT or flags & ~_COMPRESSED:
        raise UnsupportedFormat(f"frame format {format_} with flags {flags:#x}; this version reads format {FORMAT}")
    if length > FRAME_BYTES_MAX or offset + OVERHEAD_BYTES + length > len(buffer):
        return None
    return kind, flags, length, payload_check


def _decompress(payload: bytes) -> bytes | None:
    """None for what is no zstd frame of a stated and allowed size."""
    try:
        import zstandard
    except ImportError as error:
        raise UnsupportedFormat("compressed frames need the package zstandard") from error
    try:
        # A frame without a stated size could grow without bound.
        if not 0 <= zstandard.frame_content_size(payload) <= FRAME_BYTES_MAX:
            return None
        return zstandard.ZstdDecompressor().decompress(payload)
    except zstandard.ZstdError:
        return None
