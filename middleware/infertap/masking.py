"""Takes credentials out of text that came from libraries, before it reaches a log, a file or a metric."""

import re
from collections.abc import Collection

TEXT_CHARS_MAX = 400
SECRET_CHARS_MIN = 4
"""Shorter values of secret settings are no secrets, and would be found everywhere."""

_URL = re.compile(
    r"(?P<scheme>[a-zA-Z][a-zA-Z0-9+.-]*://)(?:[^\s/@'\"<>]*@)?(?P<rest>[^\s?#'\"<>]*)(?:[?#][^\s'\"<>]*)?"
)
_AUTHORIZATION = re.compile(r"(?i)\b(bearer|basic|token|(?:api[-_ ]?)?key)\b([ =:]+['\"]?)[^\s'\",;)]{4,}")
_ASSIGNMENT = re.compile(
    r"(?i)([\w.-]*(?:secret|token|password|passwd|credential|authorization|signature|api[-_]?key|access[-_]?key)[\w.-]*"
    r"['\"]?\s*[:=]\s*['\"]?)[^\s'\",;)}]+"
)

_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""Whatever a receiver answers, its words go to terminals; tab and line feed are harmless."""


def masked(text: str, secrets: Collection[str] = ()) -> str:
    """The text without the secrets, without user information and query strings of URLs, and without values that look
    like credentials.

    Args:
        secrets: Values that are known to be secret, wherever they stand.
    """
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) >= SECRET_CHARS_MIN:
            text = text.replace(secret, "***")
    text = _URL.sub(lambda match: match["scheme"] + match["rest"], text)
    text = _AUTHORIZATION.sub(r"\1\2***", text)
    return _CONTROLS.sub("?", _ASSIGNMENT.sub(r"\1***", text))


def masked_line(text: str, secrets: Collection[str] = (), *, chars_max: int = TEXT_CHARS_MAX) -> str:
    """The same as one printable line of at most `chars_max` characters, for a status file."""
    printable = "".join(c if c.isprintable() else " " for c in masked(text, secrets))
    line = " ".join(printable.split())
    return line if len(line) <= chars_max else line[: chars_max - 1] + "…"
