"""Redact a multipart/form-data body part by part: fields by name, files by leaving only their size.

1. A body that was cut off is read as far as it goes; a part whose head is not whole is not kept.
2. A field that is no text, or text that was encoded in a way that may hide names, is not kept either.
"""

import codecs
import re
from collections.abc import Callable
from urllib.parse import unquote

from infertap.processors.decode import keeps_ascii
from infertap.processors.media import Kind, MediaType, parse_media_type
from infertap.processors.secret_names import MARK

_NAME = re.compile(r'[;\s]name\*?\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s;"]+))', re.IGNORECASE)
_FILE = re.compile(r"[;\s]filename\*?\s*=", re.IGNORECASE)
_TYPE = re.compile(r"^content-type[ \t]*:[ \t]*(.*)$", re.IGNORECASE | re.MULTILINE)
_ENCODING = re.compile(r"^content-transfer-encoding[ \t]*:[ \t]*(?!7bit|8bit|binary)\S", re.IGNORECASE | re.MULTILINE)
_FOLD = re.compile(r"\r?\n[ \t]+")
_ESCAPED = re.compile(r"\\(.)")
_ENCODED_NAME = re.compile(r"[;\s]name\*\d|[;\s]name\*?\s*=\s*\"?=\?", re.IGNORECASE)
"""In pieces (RFC 2231) or as an encoded word (RFC 2047), which few servers read: such a field is not kept."""
_END_OF_HEAD = re.compile(r"\r?\n\r?\n")


def redact_multipart(
    text: str,
    boundary: str | None,
    secret: Callable[[str], bool],
    redact_part: Callable[[str, Kind], tuple[str, int]],
) -> tuple[str, int]:
    """Redact the parts of a body.

    Args:
        text: Decoded as UTF-8, with lone surrogates (`surrogateescape`) for the bytes of files that are no UTF-8. None
            of them is in the text that is returned.
        redact_part: Redacts the content of a field as what its own content type says.

    Raises:
        ValueError: there is no boundary, or the body does not follow it.
    """
    if not boundary:
        raise ValueError("multipart body without its boundary")
    delimiter = rf"((?:\A|\r?\n)--{re.escape(boundary)}(?:--)?[ \t]*(?=\r?\n|\Z))"
    preamble, *rest = re.split(delimiter, text)
    if not rest:
        raise ValueError("multipart body that does not follow its boundary")
    shown, count = redact_part(_readable(preamble), Kind.UNKNOWN)
    out = [shown]
    for line, content in zip(rest[::2], rest[1::2], strict=True):
        closing = line.rstrip().endswith(f"{boundary}--")
        shown, hits = redact_part(_readable(content), Kind.UNKNOWN) if closing else _part(content, secret, redact_part)
        out += line, shown
        count += hits
    return "".join(out), count


def _part(
    content: str, secret: Callable[[str], bool], redact_part: Callable[[str, Kind], tuple[str, int]]
) -> tuple[str, int]:
    """One part, from the end of its delimiter to the next one."""
    end = _END_OF_HEAD.search(content)
    if end is None:
        return (f"\r\n{MARK}", 1) if content.strip() else (content, 0)
    head, body = _readable(content[: end.end()]), content[end.end() :]
    # Line ends in a head fold it; what they hide from a pattern, they must not hide from us.
    flat = _FOLD.sub(" ", head)
    head, count = redact_part(head, Kind.UNKNOWN)
    if _FILE.search(flat):
        return f"{head}[WITHHELD: {len(_bytes_of(body))} bytes of a file]", count
    body = _readable(body)
    if body and (_ENCODED_NAME.search(flat) or any(map(secret, _names(flat)))):
        return f"{head}{MARK}", count + 1
    given = _TYPE.search(flat)
    media = parse_media_type(given[1].strip() if given is not None else "text/plain")
    if body and ("\0" in body or _ENCODING.search(flat) or not _is_text(media)):
        return f"{head}[WITHHELD: {len(body)} characters that are no text]", count
    shown, hits = redact_part(body, Kind.UNKNOWN if media.kind is Kind.TEXT else media.kind)
    return f"{head}{shown}", count + hits


def _bytes_of(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _readable(text: str) -> str:
    """As it may be stored: U+FFFD for what is no UTF-8."""
    return text if text.isascii() else _bytes_of(text).decode("utf-8", "replace")


def _names(head: str) -> list[str]:
    """Every name that a server might take for the field's."""
    found = [_ESCAPED.sub(r"\1", quoted) or bare for quoted, bare in _NAME.findall(head)]
    return [unquote(name.strip("'").rpartition("''")[2]) for name in found]


def _is_text(media: MediaType) -> bool:
    if media.kind in (Kind.BINARY, Kind.MULTIPART):
        return False
    try:
        return media.charset is None or keeps_ascii(codecs.lookup(media.charset).name)
    except (LookupError, ValueError):
        return False
