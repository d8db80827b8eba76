"""Compressed bodies: what comes out, and what must never come out."""

import gzip
import zlib

import pytest

from infertap_sidecar.receiver.body import decompressed
from infertap_sidecar.receiver.errors import MalformedError, MediaTypeError, TooLargeError

TEXT = b"spans " * 1000


@pytest.mark.parametrize(
    ("body", "coding"),
    [
        (TEXT, ""),
        (TEXT, "identity"),
        (gzip.compress(TEXT), "gzip"),
        (gzip.compress(TEXT), " GZIP "),
        (gzip.compress(TEXT[:3000]) + gzip.compress(TEXT[3000:]), "gzip"),
        (zlib.compress(TEXT), "deflate"),
    ],
    ids=["none", "identity", "gzip", "spelling", "members", "deflate"],
)
def test_a_body_comes_out_as_it_went_in(body: bytes, coding: str) -> None:
    """Every supported coding gives the sender's bytes, a limit of exactly their number included."""
    assert decompressed(body, coding, bytes_max=len(TEXT)) == TEXT


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_a_bomb_is_given_up_at_the_limit(coding: str) -> None:
    """A small body that unfolds to 100 MB is refused."""
    inflated = bytes(100_000_000)
    bomb = gzip.compress(inflated) if coding == "gzip" else zlib.compress(inflated)
    assert len(bomb) < 200_000
    with pytest.raises(TooLargeError):
        decompressed(bomb, coding, bytes_max=1_000_000)


def test_many_small_members_count_together() -> None:
    """A bomb cannot hide in the number of gzip members."""
    with pytest.raises(TooLargeError):
        decompressed(gzip.compress(bytes(1000)) * 20, "gzip", bytes_max=10_000)


def test_the_number_of_members_is_bounded() -> None:
    """Sixteen are read as one body; a further one, even empty, is the sender's mistake, and so are a million."""
    empty = gzip.compress(b"")
    assert decompressed(empty * 15 + gzip.compress(TEXT), "gzip", bytes_max=len(TEXT)) == TEXT
    for count in (17, 1_000_000):
        with pytest.raises(MalformedError, match="over 16 members"):
            decompressed(empty * count, "gzip", bytes_max=1 << 20)


@pytest.mark.parametrize(
    ("body", "coding"),
    [
        (b"no gzip at all", "gzip"),
        (gzip.compress(TEXT)[:-10], "gzip"),
        (gzip.compress(TEXT) + b"rest", "gzip"),
        (zlib.compress(TEXT)[:-3], "deflate"),
        (zlib.compress(TEXT) + b"rest", "deflate"),
        (gzip.compress(TEXT), "deflate"),
    ],
    ids=["no gzip", "cut gzip", "gzip with a rest", "cut deflate", "deflate with a rest", "gzip called deflate"],
)
def test_damage_is_malformed(body: bytes, coding: str) -> None:
    """What is cut off, followed by rubbish, or of another coding is the sender's mistake."""
    with pytest.raises(MalformedError):
        decompressed(body, coding, bytes_max=1 << 20)


def test_an_unknown_coding_is_said_so() -> None:
    """A coding that we do not undo is refused by its name's class, and the supported ones are named."""
    with pytest.raises(MediaTypeError, match="gzip, deflate"):
        decompressed(b"", "br", bytes_max=1)
