"""Redact by name in XML and HTML: elements with all that is in them, and values beside a name (`name="password"`).

Attributes that carry a secret's name themselves are pairs like any other, and not looked at here.
"""

import re
from collections.abc import Callable

from infertap.processors.secret_names import MARK

_TAG = re.compile(
    r"(?:<|&lt;)(?P<closing>/?)(?P<name>[^\W\d][\w.:-]*+)"
    r"(?P<attributes>(?:[^<>\"'&]++|\"[^\"]*+\"|'[^']*+'|&(?![gl]t;))*+)(?:>|&gt;)"
)
_TAG_OR_DATA = re.compile(rf"<!\[CDATA\[.*?(?:\]\]>|\Z)|{_TAG.pattern}", re.DOTALL)
_VALUE = r"(\"[^\"]*+\"|'[^']*+'|[^\s\"'<>]++)"
_NAMING = re.compile(rf"(?:^|\s)(?:name|key|property|field|param|type)\s*+=\s*+{_VALUE}", re.IGNORECASE)
_VALUED = re.compile(rf"((?:^|\s)(?:value|content|default|data|val)\s*+=\s*+){_VALUE}", re.IGNORECASE)
_VOID = frozenset({"input", "meta", "link", "img", "br", "hr", "source", "embed"})
"""Elements of HTML that never have content, and no closing tag."""


def redact_markup(text: str, secret: Callable[[str], bool]) -> tuple[str, int]:
    """The text without the content of secret elements, and how many there were.

    Where an element does not end, everything to the end of the text is its content.
    """
    out: list[str] = []
    count = done = 0
    for tag in _TAG.finditer(text):
        if tag.start() < done or tag["closing"]:
            continue
        attributes = tag["attributes"]
        named = "=" in attributes and any(secret(_bare(name)) for name in _NAMING.findall(attributes))
        if named:
            shown, hits = _VALUED.subn(rf'\1"{MARK}"', attributes)
            if hits and shown != attributes:
                out += text[done : tag.start("attributes")], shown
                done = tag.end("attributes")
                count += hits
        local = tag["name"].rpartition(":")[2]
        if not (named or secret(local)) or attributes.rstrip().endswith("/") or local.lower() in _VOID:
            continue
        end = _element_end(text, tag)
        if text[tag.end() : end].strip() in ("", MARK):
            continue
        out += text[done : tag.end()], MARK
        done = end
        count += 1
    return ("".join((*out, text[done:])), count) if count else (text, 0)


def _bare(value: str) -> str:
    return value.strip("\"'")


def _element_end(text: str, opening: re.Match[str]) -> int:
    """Where the content of an element ends: before the tag that closes it, whatever is nested in between."""
    depth = 1
    for tag in _TAG_OR_DATA.finditer(text, opening.end()):
        if tag["name"] != opening["name"]:
            continue
        if tag["closing"]:
            depth -= 1
            if depth == 0:
                return tag.start()
        elif not tag["attributes"].rstrip().endswith("/"):
            depth += 1
    return len(text)
