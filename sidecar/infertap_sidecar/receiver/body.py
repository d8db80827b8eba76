"""The body of an OTLP/HTTP request: undone compression, with a limit on what may come out of it."""

import zlib

from infertap_sidecar.receiver.errors import MalformedError, MediaTypeError, TooLargeError

_WINDOW_BITS = {"gzip": 31, "deflate": 15}
_CODINGS = "gzip, deflate"
_MEMBERS_MAX = 16
"""Senders write one; what follows each is copied, so that many empty ones would take quadratic time."""


def decompressed(body: bytes, coding: str, *, bytes_max: int) -> bytes:
    """The body as its sender wrote it.

    Args:
        coding: The header `content-encoding`, empty where there is none.
        bytes_max: Longest result; what would be longer is given up at that point, however small the body is.

    Raises:
        MediaTypeError: another coding.
        MalformedError: damaged, cut off, or of more than 16 members.
        TooLargeError: the result is over `bytes_max`.
    """
    coding = coding.strip().lower()
    if coding in ("", "identity"):
        return body
    window_bits = _WINDOW_BITS.get(coding)
    if window_bits is None:
        raise MediaTypeError(f"this content-encoding is not supported; supported are {_CODINGS}")
    parts: list[bytes] = []
    size = 0
    rest = body
    try:
        # A gzip body may consist of several members (RFC 1952 section 2.2).
        while rest:
            if len(parts) == _MEMBERS_MAX:
                raise MalformedError(f"the compressed body has over {_MEMBERS_MAX} members")
            inflater = zlib.decompressobj(window_bits)
            part = inflater.decompress(rest, bytes_max - size + 1)
            size += len(part)
            if size > bytes_max:
                raise TooLargeError(f"the decompressed body is over {bytes_max} bytes")
            if not inflater.eof:
                raise MalformedError("the compressed body is cut off")
            parts.append(part)
            rest = inflater.unused_data
            if rest and coding != "gzip":
                raise MalformedError("bytes follow the compressed body")
    except zlib.error:
        raise MalformedError(f"the body is not {coding}") from None
    return b"".join(parts)
