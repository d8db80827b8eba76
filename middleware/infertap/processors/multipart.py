"""Redact a multipart/form-data body part by part: fields by name, files by leaving only their size.

A body that was cut off is read as far as it goes; a part whose head is not whole is not kept.
"""

import re
from collections.abc import Callable

from infertap.processors.secret_names import MARK, SecretNames

_NAME = re.compile(r'[;\s]name\*?\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s;"]+))', re.IGNORECASE)
_FILE = re.compile(r"[;\s]filename\*?\s*=", re.IGNORECASE)
_END_OF_HEAD = re.compile(r"\r?\n\r?\n")


def redact_multipart(
    text: str, boundary: str | None, names: SecretNames, redact_value: Callable[[str], tuple[str, int]]
) -> tuple[str, int]:
    """Redact the parts of a body that was decoded as latin-1 or UTF-8 text.

    Raises:
        ValueError: there is no boundary, or the body does not follow it.
    """
    if not boundary:
        raise ValueError("multipart body without its boundary")
    delimiter = rf"((?:\A|\r?\n)--{re.escape(boundary)}(?:--)?[ \t]*(?=\r?\n|\Z))"
    preamble, *rest = re.split(delimiter, text)
    if not rest:
        raise ValueError("multipart body that does not follow its boundary")
    shown, count = redact_value(preamble)
    out = [shown]
    for line, content in zip(rest[::2], rest[1::2], strict=True):
        closing = line.rstrip().endswith(f"{boundary}--")
        shown, hits = redact_value(content) if closing else _part(content, names, redact_value)
        out += line, shown
        count += hits
    return "".join(out), count


def _part(content: str, names: SecretNames, redact_value: Callable[[str], tuple[str, int]]) -> tuple[str, int]:
    """One part, from the end of its delimiter to the next one."""
    end = _END_OF_HEAD.search(content)
    if end is None:
        return (f"\r\n{MARK}", 1) if content.strip() else (content, 0)
    head, body = content[: end.end()], content[end.end() :]
    if _FILE.search(head):
        return f"{head}[WITHHELD: {len(body)} characters of a file]", 0
    found = [(quoted or bare).strip("'").rpartition("''")[2] for quoted, bare in _NAME.findall(head)]
    if body and any(names.in_fields(name) for name in found):
        return f"{head}{MARK}", 1
    shown, hits = redact_value(body)
    return f"{head}{shown}", hits
