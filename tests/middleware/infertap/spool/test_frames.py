"""Frames: whatever is done to the bytes, what comes back is what went in."""

import struct

import pytest
import xxhash
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from infertap.errors import SpoolError
from infertap.spool import frames
from infertap.spool.frames import Frame, Kind, UnsupportedFormat, encode, pack, scan, unpack

PAYLOADS = [pack({"n": number, "body": chr(97 + number) * (40 + number)}) for number in range(9)]
FRAMES = [Frame(Kind.REQUEST, payload) for payload in PAYLOADS]
BUFFER = b"".join(encode(Kind.REQUEST, payload) for payload in PAYLOADS)


def _is_subsequence(found: list[Frame], written: list[Frame]) -> bool:
    remaining = iter(written)
    return all(frame in remaining for frame in found)


@given(st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=300))))
def test_scan_reads_what_encode_wrote(written: list[tuple[int, bytes]]) -> None:
    """Any payload of any kind, known or not, comes back unchanged and in order."""
    buffer = b"".join(encode(kind, payload) for kind, payload in written)
    assert scan(buffer) == (written, len(buffer), 0)


@given(st.binary(max_size=400))
def test_scan_of_arbitrary_bytes_finds_nothing(noise: bytes) -> None:
    """Bytes that nobody encoded are no frames, and never an exception."""
    assert scan(noise) == ([], 0, 0)


def test_a_file_cut_at_any_byte_gives_its_whole_frames() -> None:
    """A torn write costs the torn frame only, and is no damage."""
    ends = [0]
    for payload in PAYLOADS:
        ends.append(ends[-1] + frames.OVERHEAD_BYTES + len(payload))
    for cut in range(len(BUFFER)):
        whole = sum(end <= cut for end in ends[1:])
        assert scan(BUFFER[:cut]) == (FRAMES[:whole], ends[whole], 0)


@pytest.mark.parametrize("bit", [0, 3, 7])
def test_no_flipped_bit_is_read_as_data(bit: int) -> None:
    """A flipped bit is noticed at every position, and no other frame changes."""
    for position in range(len(BUFFER)):
        damaged = bytearray(BUFFER)
        damaged[position] ^= 1 << bit
        result = scan(bytes(damaged))
        assert len(result.frames) < len(FRAMES)
        assert _is_subsequence(result.frames, FRAMES)
        assert result.damaged == 1 or result.good_end < len(BUFFER)


def test_a_damaged_payload_costs_one_frame() -> None:
    """Frames behind a damaged payload are still read."""
    damaged = bytearray(BUFFER)
    damaged[frames.OVERHEAD_BYTES + 2] ^= 0xFF
    result = scan(bytes(damaged))
    assert (result.frames, result.good_end, result.damaged) == (FRAMES[1:], len(BUFFER), 1)


def test_zeros_behind_the_data_end_the_scan() -> None:
    """What a file system leaves after a power loss is not data."""
    assert scan(BUFFER + bytes(4096)) == (FRAMES, len(BUFFER), 0)


def test_a_forged_frame_in_a_body_is_never_found() -> None:
    """After a damaged header nothing is searched for: a body may hold a valid frame of somebody else's making."""
    forged = encode(Kind.REQUEST, pack({"request": "forged"}))
    buffer = bytearray(encode(Kind.REQUEST, pack({"request": forged})))
    buffer[8] ^= 1
    assert scan(bytes(buffer)) == ([], 0, 0)


def _with_header(format_: int, flags: int, length: int, payload: bytes) -> bytes:
    header = struct.pack("<4sBBHI", b"ITS1", format_, Kind.REQUEST, flags, length)
    return header + struct.pack("<IQ", xxhash.xxh32_intdigest(header), xxhash.xxh3_64_intdigest(payload)) + payload


def test_an_absurd_length_is_refused() -> None:
    """A header that is whole but claims more than a frame may hold ends the scan."""
    absurd = _with_header(1, 0, frames.FRAME_BYTES_MAX + 1, b"x")
    assert scan(BUFFER + absurd) == (FRAMES, len(BUFFER), 0)


@pytest.mark.parametrize(("format_", "flags"), [(2, 0), (1, 2)])
def test_a_newer_format_is_no_damage(format_: int, flags: int) -> None:
    """A whole header of a format or with a flag that we do not know raises, so that the file is left alone."""
    with pytest.raises(UnsupportedFormat, match="format"):
        scan(BUFFER + _with_header(format_, flags, 1, b"x"))


def test_a_compressed_frame_is_read_as_the_original() -> None:
    """Compression is a matter of the frame, not of its reader."""
    payload = pack({"body": "abc" * 10_000})
    packed = zstandard.ZstdCompressor(level=1).compress(payload)
    encoded = _with_header(1, 1, len(packed), packed)
    assert len(encoded) < len(payload) / 10
    assert scan(encoded) == ([(Kind.REQUEST, payload)], len(encoded), 0)


def test_a_flag_that_lies_about_compression_is_damage() -> None:
    """Bytes that are no zstd frame cost that frame only."""
    buffer = _with_header(1, 1, 3, b"abc") + encode(Kind.SPAN, b"x")
    assert scan(buffer) == ([(Kind.SPAN, b"x")], len(buffer), 1)


def test_unpack_accepts_maps_only() -> None:
    """A payload is a map, whatever its check says."""
    assert unpack(pack({"a": [1, None, b"\xff", 1.5]})) == {"a": [1, None, b"\xff", 1.5]}
    for payload in (b"\x93\x01\x02\x03", b"", b"\xc1"):
        with pytest.raises(ValueError, match=r".*"):
            unpack(payload)


def test_encode_refuses_what_scan_would_refuse() -> None:
    """A frame over the limit is never written."""

    class Huge(bytes):
        def __len__(self) -> int:
            return frames.FRAME_BYTES_MAX + 1

    with pytest.raises(SpoolError, match="limit"):
        encode(Kind.REQUEST, Huge())
