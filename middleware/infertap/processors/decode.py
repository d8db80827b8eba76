"""From the bytes that passed to text: content codings, then the charset; both bounded, both strict."""

import codecs
import zlib
from collections.abc import Callable

from infertap.processors.media import Kind, MediaType

_PIECE_BYTES = 16 << 10


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
    for name in reversed([part.strip().lower() for part in (coding or "").split(",")]):
        if name not in ("", "identity"):
            raw = _decompress(name, raw, bytes_max)
    if len(raw) > bytes_max:
        raise TooLargeError(len(raw))
    if media.kind is Kind.MULTIPART:
        # File parts may be of any bytes; they are dropped before anything is stored, fields are read again as UTF-8.
        return raw.decode("utf-8", "replace")
    if media.kind is Kind.UNKNOWN and b"\0" in raw:
        raise BinaryError("no content type, and a NUL byte")
    try:
        return raw.decode(_text_codec(media.charset))
    except UnicodeDecodeError as error:
        if media.kind is Kind.UNKNOWN:
            raise BinaryError("no content type, and not UTF-8") from error
        raise UndecodableError(error.reason) from error


def _text_codec(charset: str | None) -> str:
    if not charset:
        return "utf-8"
    try:
        info = codecs.lookup(charset)
    except LookupError as error:
        raise UndecodableError("unknown charset") from error
    # The registry also holds codecs that are no charsets (zip, rot13, hex).
    if not getattr(info, "_is_text_encoding", True):
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
    while rest:
        decoder = zlib.decompressobj(window)
        out += decoder.decompress(rest, bytes_max + 1 - len(out))
        if len(out) > bytes_max:
            raise TooLargeError(len(out))
        if not decoder.eof:
            raise EOFError
        rest = decoder.unused_data  # gzip members may follow one another
    return bytes(out)


def _brotli(raw: bytes, bytes_max: int) -> bytes:
    import brotli

    decoder = brotli.Decompressor()
    try:
        return _in_pieces(raw, decoder.process, bytes_max, decoder.is_finished)
    except brotli.error as error:
        raise UndecodableError("br") from error


def _zstd(raw: bytes, bytes_max: int) -> bytes:
    import zstandard

    try:
        with zstandard.ZstdDecompressor().stream_reader(raw, read_across_frames=True) as reader:
            out = bytes(reader.read(bytes_max + 1))
    except zstandard.ZstdError as error:
        raise UndecodableError("zstd") from error
    if len(out) > bytes_max:
        raise TooLargeError(len(out))
    return out


def _in_pieces(raw: bytes, process: Callable[[bytes], bytes], bytes_max: int, finished: Callable[[], bool]) -> bytes:
    """Feed small pieces, so that a bomb is noticed after one of them."""
    out = bytearray()
    for start in range(0, len(raw), _PIECE_BYTES):
        out += process(raw[start : start + _PIECE_BYTES])
        if len(out) > bytes_max:
            raise TooLargeError(len(out))
    if not finished():
        raise EOFError
    return bytes(out)
