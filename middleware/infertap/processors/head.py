"""The beginning of a body that is too large to be read whole, cut so that redaction can read it like a small body.

1. What comes out is a document of the body's own kind, with whole names and values; only a text at its end may be cut.
2. Bytes are read as UTF-8 or not at all, and nothing is guessed: where the rules do not fit there is no beginning.
3. It costs the same for a body of any size.
"""

import codecs
import json
import re
import zlib
from collections.abc import Callable, Mapping

from infertap.processors.media import Kind, MediaType

HEAD_BYTES_MAX = 16 << 10
_WINDOWS = {"gzip": 31, "x-gzip": 31, "deflate": 15}
_STRING = r'"(?:[^"\\]|\\.)*"'
_TOKEN = re.compile(rf'\s*({_STRING}|[{{}}\[\],:]|[^\s{{}}\[\],:"]+)', re.DOTALL)
_CUT_MEMBER = re.compile(rf'(\s*,?\s*{_STRING}\s*:\s*)"((?:[^"\\]|\\.)*\\?)', re.DOTALL)
_CUT_ITEM = re.compile(r'(\s*,?\s*)"((?:[^"\\]|\\.)*\\?)', re.DOTALL)
_CUT_ESCAPE = re.compile(r"(?<!\\)((?:\\\\)*)\\(?:u[0-9a-fA-F]{0,3})?\Z")
_CLOSES = {"{": "}", "[": "]"}
_BLANK = " \t\r\n\ufeff"


_DEPTH_MAX = 256
"""A document nested deeper shows nothing: each level costs at each token."""


def head_of(raw: bytes, media: MediaType, coding: str | None) -> str | None:
    """The beginning as a document of `media`'s kind; None where there is none that can be read.

    Args:
        raw: What passed on the wire.
        coding: The `Content-Encoding` header.
    """
    text = _decoded(raw, coding)
    if text is None or "\0" in text:
        return None
    cut = _CUTS.get(media.kind)
    return None if cut is None else cut(text)


def _decoded(raw: bytes, coding: str | None) -> str | None:
    name = (coding or "").strip().lower()
    if name in _WINDOWS:
        try:
            head = zlib.decompressobj(_WINDOWS[name]).decompress(raw, HEAD_BYTES_MAX)
        except zlib.error:
            return None
    elif name in ("", "identity"):
        head = raw[:HEAD_BYTES_MAX]
    else:
        return None
    try:
        # Not final: a character that the cut has split is left out.
        return codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return None


def _json(text: str) -> str | None:
    """As many whole members as there are, then a cut text, then what closes them all."""
    text = text.lstrip(_BLANK)
    end, closing, before = 0, "", ""
    brackets: list[str] = []
    position = 0
    while match := _TOKEN.match(text, position):
        token, position = match[1], match.end()
        if token in _CLOSES:
            brackets.append(_CLOSES[token])
            if len(brackets) > _DEPTH_MAX:
                return None
        elif brackets and token == brackets[-1]:
            brackets.pop()
        elif token in ",:" or (before != ":" and brackets[-1:] == ["}"]):
            # No value is complete behind a comma, a colon or a name.
            before = token
            continue
        elif token[0] != '"' and position == len(text):
            break  # a number that may go on
        end, closing, before = position, "".join(reversed(brackets)), token
    if not end:
        return None
    return f"{text[:end]}{_cut_text(text[end:], in_object=closing.startswith('}'))}{closing}"


def _cut_text(rest: str, *, in_object: bool) -> str:
    """The text value that the cut has split, closed; nothing where there is none, or where it is a document itself."""
    match = (_CUT_MEMBER if in_object else _CUT_ITEM).fullmatch(rest)
    if match is None:
        return ""
    before, value = match[1], _CUT_ESCAPE.sub(r"\1", match[2])
    try:
        shown = json.loads(f'"{value}"', strict=False)
    except ValueError:
        return ""
    return "" if shown.lstrip(_BLANK)[:1] in _CLOSES else f'{before}"{value}"'


def _events(text: str) -> str | None:
    ends = [text.rfind(end) + len(end) for end in ("\n\n", "\r\r", "\r\n\r\n") if end in text]
    return text[: max(ends)] if ends else None


def _lines(text: str) -> str | None:
    return text[: text.rfind("\n") + 1] or None


def _form(text: str) -> str | None:
    return text.rpartition("&")[0] or None


def _text(text: str) -> str | None:
    return _json(text) if text.lstrip(_BLANK)[:1] in _CLOSES else text


_CUTS: Mapping[Kind, Callable[[str], str | None]] = {
    Kind.JSON: _json,
    Kind.NDJSON: _lines,
    Kind.DELIMITED: _lines,
    Kind.EVENT_STREAM: _events,
    Kind.FORM: _form,
    Kind.TEXT: _text,
    Kind.UNKNOWN: _text,
}
