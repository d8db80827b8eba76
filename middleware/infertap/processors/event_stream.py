"""Redact server-sent events, one by one; where nothing is redacted the text stays, line ends and all."""

import re
from collections.abc import Callable

_LINE_END = re.compile(r"\r\n|\r|\n")

Redact = Callable[[str], tuple[str, int]]


def redact_event_stream(text: str, redact_data: Redact, redact_line: Redact) -> tuple[str, int]:
    """The redacted stream and the number of redacted values.

    Args:
        redact_data: For the data of an event, its lines joined.
        redact_line: For every line that is no data.
    """
    stream = text.removeprefix("\ufeff")
    lines = _LINE_END.split(stream) if "\r" in stream else stream.split("\n")
    out: list[str] = []
    count = start = 0
    rewritten = False
    for index, line in enumerate([*lines, ""]):
        if not line:
            event = lines[start:index]
            shown, hits = _event(event, redact_data, redact_line)
            count += hits
            rewritten = rewritten or shown != event
            out += [*shown, ""]
            start = index + 1
    out.pop()
    return ("\n".join(out), count) if rewritten else (text, 0)


def _event(lines: list[str], redact_data: Redact, redact_line: Redact) -> tuple[list[str], int]:
    """One event: its `data` lines are one document, wherever other fields stand between them."""
    count = 0
    data: list[str] = []
    shown: list[str] = []
    first = 0
    for line in lines:
        if line.startswith("data:"):
            first = first if data else len(shown)
            data.append(line[5:].removeprefix(" "))
        else:
            other, hits = redact_line(line)
            count += hits
            shown.append(other)
    if not data:
        return shown, count
    document = "\n".join(data)
    kept, hits = redact_data(document)
    if kept == document and count == 0:
        return lines, 0
    shown[first:first] = [f"data: {line}" for line in kept.split("\n")]
    return shown, count + hits
