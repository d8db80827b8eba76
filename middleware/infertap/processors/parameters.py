"""Redact pairs of a name and a value, percent-encoded and joined: parameters of URLs, and fields of forms."""

import re
from collections.abc import Callable
from urllib.parse import unquote_plus

from infertap.processors.secret_names import MARK

_PARAMETER = re.compile(
    r"(?:[?&#;]|\\u0026|%3[FfBb]|%2[36])((?:[^\s?&#;=%\"'<>\\]|%(?!3[DdFfBb]|2[36])){1,128}+)(?:=|(%3[Dd]))"
)
"""A name in a URL, or in a URL inside another one's parameter."""
_VALUE_END = re.compile(r"[\s&#\"'<>\\]|\Z")
_PAIR_END = re.compile(r"[\s&#\"'<>\\;]|\Z")
_ENCODED_VALUE_END = re.compile(r"[\s&#\"'<>\\]|%2[36]|\Z")
_UNQUOTED_TIMES_MAX = 3

Redact = Callable[[str], tuple[str, int]]


def redact_parameters(text: str, secret: Callable[[str], bool]) -> tuple[str, int]:
    """The text without the values of secret parameters in the URLs in it, and how many there were."""
    out: list[str] = []
    count = done = 0
    for match in _PARAMETER.finditer(text):
        if match.start() < done or not secret(unquote_plus(match[1])):
            continue
        pattern = _ENCODED_VALUE_END if match[2] else _PAIR_END if match[0][0] == ";" else _VALUE_END
        end = pattern.search(text, match.end()).start()  # type: ignore[union-attr]  # matches at the end at the latest
        if text[match.end() : end] in ("", MARK):
            continue
        out += text[done : match.end()], MARK
        done = end
        count += 1
    return ("".join((*out, text[done:])), count) if count else (text, 0)


def redact_pairs(text: str, secret: Callable[[str], bool], redact: Redact, *, joined_by: str = "&") -> tuple[str, int]:
    """`name=value` pairs, percent-encoded: a query, a form, a fragment. What is not redacted keeps its encoding.

    Args:
        redact: Redacts a name that is not secret itself, and the value of such a name.
    """
    count = 0
    pairs = text.split(joined_by)
    for index, pair in enumerate(pairs):
        name, equals, value = pair.partition("=")
        if not equals:
            pairs[index], hits = _encoded(pair, redact)
        elif value and secret(unquote_plus(name)):
            hits = int(value != MARK)
            pairs[index] = f"{name}={MARK}"
        else:
            name, hits_in_name = _encoded(name, redact)
            value, hits = _encoded(value, redact)
            hits += hits_in_name
            if hits:
                pairs[index] = f"{name}={value}"
        count += hits
    return joined_by.join(pairs), count


def _encoded(text: str, redact: Redact) -> tuple[str, int]:
    """A name or a value, redacted as what it is when it has been decoded, once or several times."""
    if not text:
        return text, 0
    plain = text
    for _ in range(_UNQUOTED_TIMES_MAX):
        before, plain = plain, unquote_plus(plain)
        if plain == before and before is not text:
            break
        shown, hits = redact(plain)
        if hits:
            return shown, hits
        if "%" not in plain:
            break
    return text, 0
