"""From the bytes that passed to text: content codings, then the charset; both bounded, both strict."""

import codecs
import json
import zlib
from functools import lru_cache

from infertap.processors.media import Kind, MediaType

_MEMBERS_MAX = 256
"""Compressed parts of one body that follow one another. Each costs a copy of all the rest."""
_ZSTD_WINDOW_BYTES_MAX = 8 << 20
"""What RFC 9659 lets an HTTP peer ask for."""
_JSON_KINDS = frozenset({Kind.JSON, Kind.NDJSON})
_READ_BY_BYTES = _JSON_KINDS | {Kind.EVENT_STREAM, Kind.FORM}
_ASCII = bytes(range(32, 127))
_NO_CHARSETS = frozenset({"idna", "punycode", "undefined", "unicode_escape", "raw_unicode_escape"})


class UndecodableError(ValueError):
    """The bytes are not what their headers say, or no decoder for the coding is installed."""


class BinaryError(ValueError):
    """The body is no text."""


class TooLargeError(ValueError):
    """Decoded, the body is larger than what may be kept."""


def decode(raw: bytes, media: MediaType, coding: str | None, *, bytes_max: int) -> str:
    """The body as text.

    Args:
        raw: What passed on the wire.
        coding: The `Content-Encoding` header.
        bytes_max: Largest decoded size; guards against decompression bombs.

    Raises:
        BinaryError, UndecodableError, TooLargeError
    """
    if media.kind is Kind.BINARY:
        raise BinaryError(media.name)
    if coding is not None:
        raw = _without_codings(raw, coding, bytes_max)
    if len(raw) > bytes_max:
        raise TooLargeError(len(raw))
    if media.kind is Kind.MULTIPART:
        # Files may be of any bytes: what is not UTF-8 stands as lone surrogates until `multipart` has dropped them.
        return raw.decode("utf-8", "surrogateescape")
    try:
        text = _decoded(raw, media)
    except UnicodeError as error:
        if media.kind is Kind.UNKNOWN:
            raise BinaryError("no content type, and not UTF-8") from error
        raise UndecodableError("not of its charset") from error
    if "\0" in text:
        # No text holds one; between the letters of a name they would hide it from redaction.
        raise BinaryError("a NUL character")
    return text


def _decoded(raw: bytes, media: MediaType) -> str:
    """Servers read JSON, forms and events by their bytes, whatever charset is said: a false one must not turn names
    into characters that redaction does not know, and the server does."""
    if media.kind in _JSON_KINDS and (b"\0" in raw[:4] or raw[:1] in (b"\xff", b"\xfe")):
        return raw.decode(json.detect_encoding(raw))
    codec = _text_codec(media.charset)
    if codec != "utf-8" and (media.kind in _READ_BY_BYTES or not keeps_ascii(codec)):
        try:
            text = raw.decode()
            if codec == "utf-7" and raw.decode(codec) != text:
                # ASCII that stands for other ASCII: neither reading is safe.
                raise UndecodableError("utf-7")
            if "\0" not in text:
                return text
        except UnicodeError:
            if media.kind in _READ_BY_BYTES and not keeps_ascii(codec):
                raise
    return raw.decode(codec)


@lru_cache(64)
def keeps_ascii(codec: str) -> bool:
    """Whether the printable characters of ASCII are the same bytes in this charset: only then no name can hide."""
    try:
        return _ASCII.decode(codec) == _ASCII.decode("ascii")
    except UnicodeError:
        return False


def _without_codings(raw: bytes, header: str, bytes_max: int) -> bytes:
    for name in reversed([part.strip().lower() for part in header.split(",")]):
        if name not in ("", "identity"):
            if len(raw) > bytes_max + (bytes_max >> 3) + 1024:
                raise TooLargeError(len(raw))  # no coding makes a body that much larger
            raw = _decompress(name, raw, bytes_max)
    return raw


def _text_codec(charset: str | None) -> str:
    if not charset:
        return "utf-8"
    try:
        info = codecs.lookup(charset)
    except (LookupError, ValueError) as error:
        raise UndecodableError("unknown charset") from error
    # The registry also holds codecs that are no charsets (zip, rot13, hex), some of them slow.
    if info.name.replace("-", "_") in _NO_CHARSETS or not getattr(info, "_is_text_encoding", True):
        raise UndecodableError("not a charset")
    return info.name


def _decompress(coding: str, raw: bytes, bytes_max: int) -> bytes:
    try:
        if coding in ("gzip", "x-gzip"):
            return _inflate(raw, 31, bytes_max)
        if coding == "deflate":
            try:
                return _inflate(raw, 15, bytes_max)
            except zlib.error:
                return _inflate(raw, -15, bytes_max)  # some servers send raw deflate under this name
        if coding == "br":
            return _brotli(raw, bytes_max)
        if coding == "zstd":
            return _zstd(raw, bytes_max)
    except (TooLargeError, UndecodableError):
        raise
    except (zlib.error, ImportError, EOFError) as error:
        raise UndecodableError(f"{coding}: {type(error).__name__}") from error
    raise UndecodableError("unknown content coding")


def _inflate(raw: bytes, window: int, bytes_max: int) -> bytes:
    out = bytearray()
    rest = raw
    for _ in range(_MEMBERS_MAX):
        decoder = zlib.decompressobj(window)
        out += decoder.decompress(rest, bytes_max + 1 - len(out))
        if len(out) > bytes_max:
            raise TooLargeError(len(out))
        if not decoder.eof:
            raise EOFError
        rest = decoder.unused_data  # gzip members may follow one another
        if not rest:
            return bytes(out)
    raise UndecodableError("too many members")


def _brotli(raw: bytes, bytes_max: int) -> bytes:
    import brotli

    decoder = brotli.Decompressor()
    out = bytearray()
    piece = raw
    try:
        while not decoder.is_finished():
            # Without a limit on the output a bomb of 400 bytes is 256 MiB after one call.
            shown = decoder.process(piece, output_buffer_limit=bytes_max + 1 - len(out))
            out += shown
            if len(out) > bytes_max:
                raise TooLargeError(len(out))
            if not shown and not piece and not decoder.is_finished():
                raise EOFError
            piece = b""
    except TypeError as error:
        raise UndecodableError("br needs brotli 1.2") from error
    except brotli.error as error:
        raise UndecodableError("br") from error
    return bytes(out)


def _zstd(raw: bytes, bytes_max: int) -> bytes:
    import zstandard

    decompressor = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW_BYTES_MAX)
    try:
        with decompressor.stream_reader(raw, read_across_frames=True) as reader:
            out = bytes(reader.read(bytes_max + 1))
        if len(out) > bytes_max:
            raise TooLargeError(len(out))
        # To the reader a frame that was cut off has ended. The size is known by now, so this cannot be a bomb.
        rest = raw
        for _ in range(_MEMBERS_MAX):
            frame = decompressor.decompressobj()
            frame.decompress(rest)
            if not frame.eof:
                raise EOFError
            rest = frame.unused_data
            if not rest:
                return out
    except zstandard.ZstdError as error:
        raise UndecodableError("zstd") from error
    raise UndecodableError("too many frames")
