"""Redact by name in text that a parser refuses: cut-off JSON, YAML, settings, logs, command lines.

1. Wherever a secret's name stands in quotes, before a colon or an equals sign, or as a flag, its value goes.
2. A value without quotes goes with all its words: to the end of its line, or to the next name on it.
3. Where the end of a value cannot be found, everything to the end of the text goes.
4. `value` is a secret's name where the value of the `name` beside it says so.
"""

import re
from collections.abc import Callable

from infertap.processors.paired_names import NAMING_WORDS, VALUE_WORDS, names_secret, values_of_secret_names
from infertap.processors.secret_names import MARK, looks_like_key

_SIGN = r"(?:=>|->|:=|===?|[:=：＝])"
_LETTER = r"[\w.\[\]\-\u00ad\u200b-\u200d\u2060\ufeff]"  # invisible ones hide a name from the eye only
_NAME = re.compile(
    rf"(?P<quote>[\"'])\s*+(?:(?P<comma>,)|{_SIGN})\s*+"
    rf"|(?<!{_LETTER})(?P<bare>(?![.-]){_LETTER}++(?: {_LETTER}++){{0,2}}+)(?P<gap>[ \t]*+){_SIGN}[ \t]*+"
    r"|(?<![\w-])--?(?P<flag>[A-Za-z][\w-]++)(?:=|[ \t]++(?![-\s]))"
)
_HEADERS = frozenset({"authorization", "proxy-authorization", "cookie", "set-cookie", "x-api-key", "api-key"})
"""Names that stand in pairs, `(b'cookie', b'a=b')`, as ASGI and HTTP libraries print them."""
_STRING_THAT_NAMES = re.compile(r"\\*[\"'][^\"'\\\r\n]{0,64}\\*[\"']\s*+[:=]")
_QUOTED_NAME_CHARACTERS_MAX = 128
_ESCAPE = re.compile(r"\\+u([0-9a-fA-F]{4})")
_QUOTE = re.compile(r"(?:[bBrRuUfF]{1,2}(?=[\"']))?(\\*)(\"\"\"|'''|\"|')")
_NEXT_STRING = re.compile(rf"[ \t]{{1,8}}{_QUOTE.pattern}")
_ANY_QUOTE = re.compile(r"(\\*)([\"'])")
_GLUED = re.compile(r"[\w.~+/=$!*@%-]*")
_HEADER_LINE = re.compile(r"(?:authorization|cookie)\]?$", re.IGNORECASE)
_LINE_END = re.compile(r"[\r\n]|\Z")
_STOP = (
    rf"[\r\n]|[,;&|\s][ \t]{{0,8}}[\"']?[\w.-]{{1,64}}+[\"']?[ \t]{{0,8}}{_SIGN}(?=[ \t]*[^\s=])"
    rf"|[,;|\s][ \t]{{0,8}}\\*[\"'][^\"'\\]{{1,64}}+\\*[\"'][ \t]{{0,8}}{_SIGN}"
)
_RUN_END = re.compile(rf"{_STOP}|\Z")
_ITEM_END = re.compile(rf"{_STOP}|[}}\]]|\Z")
_LINE_START = re.compile(r"[ \t>#*/]*(?:- +)*")
_LINE_START_CHARACTERS_MAX = 200
_WORD_END = re.compile(r"\s|\Z")
_BLOCK = re.compile(r"[|>][+-]?\d?[+-]?[ \t]*(?:#[^\r\n]*)?(?=[\r\n]|\Z)")
_LINE = re.compile(r"(?:\r\n|\r|\n)([ \t]*)([^\r\n]*)")
_LONE_WORD = re.compile(r"(?:[^\s:=]+|[^\s:]+={0,2})\s*\Z")
_BRACKET = re.compile(r"(\\*[\"'])|([{\[])|([}\]])")
_HARMLESS = frozenset({"", "null", "true", "false", "None", "True", "False", "~", MARK})


def redact_named_values(
    text: str, secret: Callable[[str], bool], doubtful: frozenset[str] = frozenset()
) -> tuple[str, int]:
    """The text without the values of secret names, and how many there were.

    Args:
        doubtful: Lower-case names whose value goes where it looks like a key.
    """
    return _redacted(text, secret, doubtful, None)


def _redacted(
    text: str, secret: Callable[[str], bool], doubtful: frozenset[str], paired: set[int] | None
) -> tuple[str, int]:
    """`paired`: where the names end that other values say are a secret's; None until one is seen that says so."""
    out: list[str] = []
    count = done = 0
    for match in _NAME.finditer(text):
        if match.start() < done:
            continue
        name = _name(text, match)
        certain = _is_secret(text, name, match, secret)
        if not certain:
            word = name.rpartition(" ")[2].lower()
            if word in NAMING_WORDS and paired is None and names_secret(text, match.end(), secret):
                return _redacted(text, secret, doubtful, values_of_secret_names(text, secret))
            certain = word in VALUE_WORDS and paired is not None and _name_end(text, match) in paired
            if not certain and (word not in doubtful or match["comma"]):
                continue
        start, end = match.end(), _value_end(text, match)
        if not certain and text[start - 1] == "=":
            end = min(end, _find(_WORD_END, text, start))
        closing = ""
        opening = _QUOTE.match(text, start, end)
        if opening is not None:
            start = opening.end()
            quote = "".join(opening.groups())
            # Where the text was cut off, the quote stays open.
            closing = quote if end < len(text) or text.endswith(quote, start, end) else ""
        value = text[start:end].removesuffix(closing).strip()
        if value in _HARMLESS or not (certain or looks_like_key(value)):
            continue
        out += text[done:start], MARK, closing
        done = end
        count += 1
    return ("".join((*out, text[done:])), count) if count else (text, 0)


def _name(text: str, match: re.Match[str]) -> str:
    return _quoted_name(text, match.start()) if match["quote"] else match["flag"] or match["bare"]


def _is_secret(text: str, name: str, match: re.Match[str], secret: Callable[[str], bool]) -> bool:
    if match["comma"]:
        return name.lower() in _HEADERS and _STRING_THAT_NAMES.match(text, match.end()) is None
    if not match["bare"]:
        return secret(name)
    # `export API_KEY=`, `my api key:`; and `token:` in "a bad token: x".
    words = name.split(" ")
    return any(secret(" ".join(words[first:])) for first in range(len(words)))


def _name_end(text: str, match: re.Match[str]) -> int:
    """Where the letters of the name end, in a text that may have escaped its quotes."""
    if not match["quote"] or match["comma"]:
        return match.end("bare")
    end = match.start()
    while end > 0 and text[end - 1] == "\\":
        end -= 1
    return end


def _quoted_name(text: str, end: int) -> str:
    """What stands in the quotes that close at `end`; where they do not open, the last characters before it."""
    quote = text[end]
    while end > 0 and text[end - 1] == "\\":
        end -= 1
    name = text[max(0, end - _QUOTED_NAME_CHARACTERS_MAX) : end].rpartition(quote)[2]
    return _ESCAPE.sub(lambda escape: chr(int(escape[1], 16)), name) if "\\" in name else name


def _value_end(text: str, match: re.Match[str]) -> int:
    start = match.end()
    opening = _QUOTE.match(text, start)
    if opening is not None:
        return _strings_end(text, opening)
    if match["quote"]:
        return _item_end(text, match)
    if match["flag"]:
        return _find(_WORD_END, text, start)
    column = _column(text, match.start())
    sign = text[match.end("gap") : start]
    if column >= 0 and (sign.strip() in (":", "：") or match["gap"] or sign[-1] in " \t"):
        return _block_end(text, start, column)
    if _HEADER_LINE.search(match["bare"]):
        # A header in a text: its value has words and pairs of its own (`Digest ...`, `a=b; session=...`).
        return _find(_LINE_END, text, start)
    return _find(_RUN_END, text, _bracket_end(text, start))


def _find(pattern: re.Pattern[str], text: str, start: int) -> int:
    """Where a pattern begins that matches at the end of the text at the latest."""
    return pattern.search(text, start).start()  # type: ignore[union-attr]


def _item_end(text: str, match: re.Match[str]) -> int:
    """Where a value without quotes ends behind a name with them."""
    start = match.end()
    name = _quoted_name(text, match.start())
    if text.startswith(("{", "["), start):
        return _bracket_end(text, start)
    if _BLOCK.match(text, start):
        return _block_end(text, start, max(0, _column(text, match.start() - len(name) - 1)))
    if _HEADER_LINE.search(name):
        return _find(_LINE_END, text, start)
    return _find(_ITEM_END, text, start)


def _column(text: str, name_start: int) -> int:
    """How far a name is indented that is the first on its line; -1 where it is not the first."""
    begin = max(0, name_start - _LINE_START_CHARACTERS_MAX)
    before = text[begin:name_start]
    line = max(before.rfind("\n"), before.rfind("\r")) + 1
    if (line == 0 and begin > 0) or _LINE_START.fullmatch(before, line) is None:
        return -1
    return len(before) - line


def _block_end(text: str, start: int, column: int) -> int:
    """After the rest of the line and all lines that belong to it: deeper ones, as in YAML and folded headers."""
    first = last = end = _find(_LINE_END, text, start)
    rest = text[start:end].strip()
    while (line := _LINE.match(text, end)) is not None:
        indent, words = line.groups()
        end = line.end()
        if not words.strip():
            continue
        belongs = len(indent) > column
        if not rest:
            belongs |= len(indent) == column and words.startswith("- ")
            belongs |= last == first and _LONE_WORD.match(words) is not None
        if not belongs:
            break
        last = end
    return max(last, _find(_LINE_END, text, _bracket_end(text, start)))


def _strings_end(text: str, opening: re.Match[str] | None) -> int:
    """After a string and all that is one value with it: `"a"$B`, `"a" "b"`, `"a"b"c"`."""
    end = 0
    while opening is not None:
        end = _string_end(text, opening)
        glued = _GLUED.match(text, end).end()  # type: ignore[union-attr]  # matches nothing, too
        opening = (_QUOTE.match(text, glued) if glued > end else None) or _NEXT_STRING.match(text, glued)
        end = glued
    return end


def _string_end(text: str, opening: re.Match[str]) -> int:
    """After the quote that closes this string: of the same kind, and escaped as often."""
    escapes, kind = opening.groups()
    if len(kind) == 3:
        end = text.find(escapes + kind, opening.end())
        return len(text) if end < 0 else end + len(escapes) + 3
    position = opening.end()
    while (quote := _ANY_QUOTE.search(text, position)) is not None:
        position = quote.end()
        found = len(quote[1])
        if quote[2] == kind and (found == len(escapes) or (not escapes and found % 2 == 0)):
            if not text.startswith(escapes + kind, position):
                return position
            position += len(escapes) + 1  # doubled: the quote itself, as SQL and YAML write it
    return len(text)


def _bracket_end(text: str, start: int) -> int:
    """After the bracket that closes the one at `start`; brackets in strings do not count. `start` where none opens."""
    if not text.startswith(("{", "["), start):
        return start
    depth = 0
    position = start
    while (token := _BRACKET.search(text, position)) is not None:
        position = token.end()
        if token[1]:
            opening = _QUOTE.match(text, token.start())
            position = _string_end(text, opening) if opening is not None else position
        else:
            depth += 1 if token[2] else -1
            if depth == 0:
                return position
    return len(text)
