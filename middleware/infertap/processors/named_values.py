"""Redact by name in text that a parser refuses: cut-off JSON, XML, YAML, settings.

1. Wherever a secret's name stands in quotes, in a tag, or before a colon or an equals sign, its value goes.
2. Where the end of a value cannot be found, everything to the end of the text goes.
"""

import re
from collections.abc import Callable

from infertap.processors.secret_names import MARK

_NAME = re.compile(
    r"(?P<quote>\\*[\"'])(?P<quoted>(?:[^\"'\\\r\n]|\\+u[0-9a-fA-F]{4}){1,64})(?P=quote)\s*[:=]\s*"
    r"|<(?P<tag>[A-Za-z_][\w.:-]{0,63})(?:\s[^<>]*)?(?<!/)>"
    r"|(?<![\w\"'<.-])(?P<bare>[A-Za-z_][\w.-]{0,63})[ \t]*[:=][ \t]*"
)
_ESCAPE = re.compile(r"\\+u([0-9a-fA-F]{4})")
_QUOTE = re.compile(r"\\*[\"']")
_WHOLE_LINE = re.compile(r"(?:authorization|cookie)$", re.IGNORECASE)
_LINE_END = re.compile(r"[\r\n]|$")
_BARE_VALUE = re.compile(r"[^\s,;&}\]<>\"']+")
_BRACKET = re.compile(r"(\\*\")|([{\[])|([}\]])")
_HARMLESS = frozenset({"", "null", "true", "false", "None", "True", "False", MARK})


def redact_named_values(text: str, secret: Callable[[str], bool]) -> tuple[str, int]:
    """The text without the values of secret names, and how many there were."""
    if ":" not in text and "=" not in text and "<" not in text:
        return text, 0
    out: list[str] = []
    count = done = 0
    for match in _NAME.finditer(text):
        name = match["quoted"] or match["bare"] or match["tag"].rpartition(":")[2]
        if "\\" in name:
            name = _ESCAPE.sub(lambda escape: chr(int(escape[1], 16)), name)
        if match.start() < done or not secret(name):
            continue
        start, end = match.end(), _end_of_value(text, match)
        opening = _QUOTE.match(text, start, end)
        if opening is not None:
            start = opening.end()
            end = max(start, end - len(opening[0]) if text.endswith(opening[0], start, end) else end)
        if text[start:end].strip() in _HARMLESS:
            continue
        out += text[done:start], MARK
        done = end
        count += 1
    return ("".join((*out, text[done:])), count) if count else (text, 0)


def _end_of_value(text: str, match: re.Match[str]) -> int:
    if match["tag"]:
        return _element_end(text, match.end())
    if match["bare"] and _WHOLE_LINE.search(match["bare"]) and _QUOTE.match(text, match.end()) is None:
        # A header in a text: its value has words and pairs of its own (`Digest ...`, `a=b; session=...`).
        return _LINE_END.search(text, match.end()).start()  # type: ignore[union-attr]  # matches at the end at the latest
    return _value_end(text, match.end())


def _element_end(text: str, start: int) -> int:
    """Where the content of an XML element ends; what is nested in it goes with it only up to the first end tag."""
    if text.startswith("<![CDATA[", start):
        end = text.find("]]>", start)
        return len(text) if end < 0 else end + 3
    end = text.find("<", start)
    return len(text) if end < 0 else end


def _value_end(text: str, start: int) -> int:
    opening = _QUOTE.match(text, start)
    if opening is not None:
        return _string_end(text, opening)
    if text.startswith(MARK, start):
        return start + len(MARK)
    if text.startswith(("{", "["), start):
        return _bracket_end(text, start)
    value = _BARE_VALUE.match(text, start)
    return value.end() if value is not None else start


def _string_end(text: str, opening: re.Match[str]) -> int:
    """After the quote that closes this string: of the same kind, and escaped as often."""
    kind, escapes = opening[0][-1], len(opening[0]) - 1
    for quote in _QUOTE.finditer(text, opening.end()):
        if quote[0][-1] == kind:
            found = len(quote[0]) - 1
            if found == escapes or (escapes == 0 and found % 2 == 0):
                return quote.end()
    return len(text)


def _bracket_end(text: str, start: int) -> int:
    """After the bracket that closes this one; brackets in strings do not count."""
    depth = 0
    position = start
    while (token := _BRACKET.search(text, position)) is not None:
        position = token.end()
        if token[1]:
            position = _string_end(text, token)
        else:
            depth += 1 if token[2] else -1
            if depth == 0:
                return position
    return len(text)
