"""Redact by name in XML and HTML: elements with all that is in them, and values beside a name, in one element
(`name="password" value="..."`) or two (`<name>password</name><value>...</value>`).

Attributes that carry a secret's name themselves are pairs like any other, and not looked at here.
"""

import re
from collections import Counter
from collections.abc import Callable

from infertap.processors.paired_names import Siblings
from infertap.processors.secret_names import MARK, looks_like_key

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
_CONTENT = r"\s*+([^<>&\s]{1,128}+)\s*+(?:</|&lt;/|\Z)"
_CONTENT_OF_NAME = re.compile(_CONTENT)
_NAME_ELEMENT = re.compile(
    rf"[<:;](?:name|NAME|Name|key|KEY|Key|property|param|field)(?:\s[^<>&]{{0,256}}+)?(?:>|&gt;){_CONTENT}"
)
_NAMES = frozenset({"name", "key", "property", "param", "field"})
_VALUES = frozenset({"value", "val", "string", "data", "integer", "content", "default"})


def redact_markup(text: str, secret: Callable[[str], bool], doubtful: frozenset[str] = frozenset()) -> tuple[str, int]:
    """The text without the content of secret elements, and how many there were.

    Where an element does not end, everything to the end of the text is its content.

    Args:
        doubtful: Lower-case names of elements whose content goes where it looks like a key.
    """
    out: list[str] = []
    count = done = 0
    paired = _values_beside_names(text, secret)
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
        certain = named or secret(local) or tag.end() in paired
        if not (certain or local.lower() in doubtful) or attributes.rstrip().endswith("/") or local.lower() in _VOID:
            continue
        end = _element_end(text, tag)
        content = text[tag.end() : end].strip()
        if content in ("", MARK) or not (certain or looks_like_key(content)):
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


def _values_beside_names(text: str, secret: Callable[[str], bool]) -> set[int]:
    """Where the content of elements begins that are a value, and whose name an element beside them holds."""
    found: set[int] = set()
    if not any(secret(name) for name in _NAME_ELEMENT.findall(text)):
        return found
    opened: list[tuple[str, Siblings]] = [("", Siblings(found))]
    names: Counter[str] = Counter()
    for tag in _TAG_OR_DATA.finditer(text):
        name = tag["name"]
        if name is None:
            continue  # CDATA
        if tag["closing"]:
            while names[name]:
                last, _ = opened.pop()
                names[last] -= 1
                if last == name:
                    break
            continue
        word = name.rpartition(":")[2].lower()
        if word in _NAMES:
            content = _CONTENT_OF_NAME.match(text, tag.end())
            opened[-1][1].named(word, secret=content is not None and secret(content[1]), repeats=True)
        elif word in _VALUES:
            opened[-1][1].valued(word, tag.end(), repeats=True)
        if word not in _VOID and not tag["attributes"].rstrip().endswith("/"):
            opened.append((name, Siblings(found)))
            names[name] += 1
    return found
