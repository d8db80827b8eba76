"""Redact a multipart/form-data body part by part: fields by name, files by leaving only their size."""

import re
from collections.abc import Callable

from infertap.processors.secret_names import MARK, SecretNames

_NAME = re.compile(r'[;\s]name="((?:[^"\\]|\\.)*)"', re.IGNORECASE)
_FILE = re.compile(r"[;\s]filename\*?=", re.IGNORECASE)


def redact_multipart(
    text: str, boundary: str | None, names: SecretNames, redact_value: Callable[[str], tuple[str, int]]
) -> tuple[str, int]:
    """Redact the parts of a body that was decoded as latin-1 or UTF-8 text.

    Raises:
        ValueError: there is no boundary, or the body does not follow it.
    """
    if not boundary or f"--{boundary}" not in text:
        raise ValueError("multipart body without its boundary")
    count = 0
    pieces = text.split(f"--{boundary}")
    for index, piece in enumerate(pieces):
        head, separator, content = piece.partition("\r\n\r\n")
        if not separator:
            continue
        body = content.removesuffix("\r\n")
        tail = content[len(body) :]
        if _FILE.search(head):
            shown = f"[WITHHELD: {len(body)} characters of a file]"
        else:
            name = _NAME.search(head)
            if name is not None and names.in_fields(name[1]):
                shown = MARK
                count += 1
            else:
                shown, hits = redact_value(body)
                count += hits
        pieces[index] = f"{head}{separator}{shown}{tail}"
    return f"--{boundary}".join(pieces), count
