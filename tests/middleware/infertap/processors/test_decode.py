"""Decoding: codings and charsets, and inputs that were made to hurt."""

import contextlib
import gzip
import tracemalloc
import zlib
from collections.abc import Callable

import brotli
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from infertap.processors.decode import BinaryError, TooLargeError, UndecodableError, decode
from infertap.processors.media import parse_media_type

_LIMIT = 1 << 16


def _raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


_CODINGS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "deflate": zlib.compress,
    "br": lambda data: brotli.compress(data, quality=4),
    "zstd": zstandard.ZstdCompressor().compress,
}


def _decode(raw: bytes, coding: str | None = None, media: str | None = "text/plain", limit: int = _LIMIT) -> str:
    return decode(raw, parse_media_type(media), coding, bytes_max=limit)


@pytest.mark.parametrize("coding", _CODINGS)
@given(data=st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=2_000))
def test_every_coding_comes_back(coding: str, data: str) -> None:
    """Names are compared without case."""
    assert _decode(_CODINGS[coding](data.encode()), f" {coding.upper()} ") == data


def test_raw_deflate_under_the_name_deflate() -> None:
    """Some servers send it."""
    assert _decode(_raw_deflate(b"text" * 100), "deflate") == "text" * 100


def test_several_codings_are_undone_from_the_last() -> None:
    """In the order of the header, backwards; `identity` and empty entries mean nothing."""
    raw = brotli.compress(gzip.compress(b"text"))
    assert _decode(raw, "gzip, identity,, br") == "text"
    with pytest.raises(UndecodableError):
        _decode(raw, "br, gzip")


def test_members_and_frames_may_follow_one_another() -> None:
    """As `gzip` and `zstd` write them when they append."""
    assert _decode(gzip.compress(b"one ") + gzip.compress(b"two"), "gzip") == "one two"
    zstd = _CODINGS["zstd"]
    assert _decode(zstd(b"one ") + zstd(b"two"), "zstd") == "one two"


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd"])
@pytest.mark.parametrize("cut", [1, 3, 9])
def test_a_truncated_body_is_undecodable(coding: str, cut: int) -> None:
    """Never the half of it taken for the whole."""
    whole = _CODINGS[coding](b"a text that is long enough to be cut " * 20)
    with pytest.raises(UndecodableError):
        _decode(whole[:-cut], coding)


@pytest.mark.parametrize("coding", [*_CODINGS, "deflate-raw"])
@pytest.mark.parametrize("size", [_LIMIT + 1, 16 << 20])
def test_a_bomb_is_too_large(coding: str, size: int) -> None:
    """It is noticed at the limit and never unpacked; what fits to the byte is kept."""
    pack = _CODINGS.get(coding, _raw_deflate)
    name = coding.removesuffix("-raw")
    bomb = pack(b" " * size)
    tracemalloc.start()
    try:
        with pytest.raises(TooLargeError):
            _decode(bomb, name)
        assert tracemalloc.get_traced_memory()[1] < 20 * _LIMIT
    finally:
        tracemalloc.stop()
    assert len(_decode(pack(b" " * _LIMIT), name)) == _LIMIT


def test_a_bomb_in_a_coding_in_a_coding() -> None:
    """Every layer has the limit."""
    with pytest.raises(TooLargeError):
        _decode(gzip.compress(gzip.compress(bytes(8 << 20))), "gzip, gzip")


def test_endless_empty_members_are_refused() -> None:
    """Each costs a copy of the rest: a thousand would stop the worker, and with it the event loop."""
    with pytest.raises(UndecodableError):
        _decode(gzip.compress(b"") * 3_000, "gzip")
    with pytest.raises(UndecodableError):
        _decode(_CODINGS["zstd"](b"") * 3_000, "zstd")


def test_what_is_larger_compressed_than_allowed_is_not_even_opened() -> None:
    """16 MiB may have been captured, where 1 MiB may be kept."""
    with pytest.raises(TooLargeError):
        _decode(gzip.compress(b"") * 100_000, "gzip")


@pytest.mark.parametrize("coding", ["compress", "rot13", "gzip;q=1", "\x00"])
def test_an_unknown_coding_is_undecodable(coding: str) -> None:
    """Rather than stored as it is."""
    with pytest.raises(UndecodableError):
        _decode(b"text", coding)


@pytest.mark.parametrize("coding", _CODINGS)
@given(raw=st.binary(min_size=1, max_size=200))
def test_garbage_under_a_coding_is_undecodable(coding: str, raw: bytes) -> None:
    """Or, by luck, text; nothing else is ever raised."""
    with contextlib.suppress(UndecodableError):
        _decode(raw, coding)


@pytest.mark.parametrize(
    ("raw", "charset", "text"),
    [
        ("é€".encode(), "utf-8", "é€"),
        ("é".encode("latin-1"), "ISO-8859-1", "é"),
        ("é€".encode("cp1252"), "windows-1252", "é€"),
        ("é".encode("utf-16"), "utf-16", "é"),
        ("あ".encode("shift-jis"), "Shift_JIS", "あ"),
    ],
)
def test_charsets(raw: bytes, charset: str, text: str) -> None:
    """The one that the header names; UTF-8 without one."""
    assert _decode(raw, None, f"text/plain; charset={charset}") == text


@pytest.mark.parametrize(
    "charset",
    ["utf-9", "zip", "hex", "rot13", "undefined", "idna", "punycode", "unicode_escape", "é", "a\0b", "x" * 999],
)
def test_what_is_no_charset_is_undecodable(charset: str) -> None:
    """Python's registry holds much more than charsets, and some of it is slow or raises what nobody expects."""
    with pytest.raises(UndecodableError):
        _decode(b"abc-999", None, f"text/plain; charset={charset}")


@pytest.mark.parametrize(("raw", "charset"), [(b"\xff\xfe\xfd", ""), (b"\x80", "ascii"), (b"\xd8", "utf-16")])
def test_bytes_that_are_not_of_their_charset_are_undecodable(raw: bytes, charset: str) -> None:
    """Never replaced by question marks."""
    with pytest.raises(UndecodableError):
        _decode(raw, None, f"text/plain; charset={charset}")


@given(raw=st.binary(max_size=50), charset=st.text(max_size=12))
def test_no_charset_is_too_odd(raw: bytes, charset: str) -> None:
    """Text, or one of the three errors."""
    with contextlib.suppress(UndecodableError, BinaryError):
        _decode(raw, None, f'application/json; charset="{charset}"')


def test_binary_types_are_not_looked_at() -> None:
    """Whatever their bytes are."""
    with pytest.raises(BinaryError):
        _decode(b"plain text", None, "application/octet-stream")


@pytest.mark.parametrize("raw", [b"\x89PNG\r\n\x1a\n\x00", b"abc\0def", b"\xff\xd8\xff\xe0"])
def test_a_body_without_a_type_is_binary_if_it_is_no_text(raw: bytes) -> None:
    """A NUL byte, or no UTF-8; anything else is text."""
    with pytest.raises(BinaryError):
        _decode(raw, None, None)
    assert _decode("é{}".encode(), None, None) == "é{}"


def test_multipart_is_decoded_whatever_its_files_hold() -> None:
    """No byte of a file is lost before it is counted."""
    raw = b"--x\r\n\xff\xfe"
    assert _decode(raw, None, "multipart/form-data; boundary=x").encode("utf-8", "surrogateescape") == raw


def test_the_limit_counts_decoded_bytes() -> None:
    """To the byte."""
    assert _decode(b"x" * 10, limit=10) == "x" * 10
    with pytest.raises(TooLargeError):
        _decode(b"x" * 11, limit=10)


_PLANTED = '{"password": "hunter2"}'


@pytest.mark.parametrize("codec", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"])
@pytest.mark.parametrize("charset", ["", "; charset=utf-8", "; charset=latin-1", "; charset=cp037"])
def test_json_is_read_by_its_bytes_as_servers_read_it(codec: str, charset: str) -> None:
    """Whatever the header says: or a name would hide between NULs from redaction, and not from the server."""
    text = _decode(_PLANTED.encode(codec), None, f"application/json{charset}")
    assert text.removeprefix("\ufeff") == _PLANTED


@pytest.mark.parametrize("charset", ["utf-16-le", "utf-32", "cp037", "cp1140", "utf-7"])
@pytest.mark.parametrize(
    "media",
    [
        "application/json",
        "application/x-ndjson",
        "application/x-www-form-urlencoded",
        "text/event-stream",
        "text/plain",
    ],
)
def test_a_false_charset_hides_nothing(media: str, charset: str) -> None:
    """What is plain ASCII is read as such, where the charset says that it is something else."""
    assert _decode(_PLANTED.encode(), None, f"{media}; charset={charset}") == _PLANTED


@pytest.mark.parametrize("media", ["application/json", "text/plain"])
def test_utf_7_that_hides_ascii_is_refused(media: str) -> None:
    """Read as what it is, or as what it looks like: either way a name could hide from somebody."""
    with pytest.raises(UndecodableError):
        _decode(b"pass+AHc-ord=hunter2", None, f"{media}; charset=utf-7")


def test_a_charset_that_is_true_is_kept() -> None:
    """JSON in Latin-1 is against the rules, and is sent."""
    assert _decode('{"a": "é"}'.encode("latin-1"), None, "application/json; charset=latin-1") == '{"a": "é"}'
    assert _decode("<a>é</a>".encode("utf-16"), None, "text/xml; charset=utf-16") == "<a>é</a>"


def test_text_with_a_nul_is_binary() -> None:
    """UTF-16 that nobody announced: a name in it would not be found."""
    with pytest.raises(BinaryError):
        _decode("password=hunter2".encode("utf-16-le"), None, "text/plain")
