"""The terminal as recorded text must not see it: no byte of a body may move the cursor, or hide what is shown."""

import re
from typing import TextIO

from rich.console import Console

from infertap_sidecar.width import WIDTH_MAX

# Everything that a terminal obeys or that changes the order of what is read, but for tab and line feed: C0, DEL and C1
# controls, U+2028 and U+2029, and Unicode's marks for the direction of writing.
_HARMFUL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]")
_PICTURES = 0x2400


class _PipedConsole(Console):
    """Leaves a closed pipe to the command line, which knows that `| head` is no failure."""

    def on_broken_pipe(self) -> None:
        # Called while the BrokenPipeError is handled.
        raise


def console(stream: TextIO, *, width_max: int | None = None) -> Console:
    """A console as wide as the terminal (at most `width_max`), and 100 columns where there is none."""
    if not stream.isatty():
        return _PipedConsole(file=stream, width=WIDTH_MAX, highlight=False)
    found = Console(file=stream).width
    return _PipedConsole(file=stream, width=min(found, width_max or found), highlight=False)


def harmless(text: str) -> str:
    """The text with a picture or a number in place of each character that a terminal would obey."""
    return _HARMFUL.sub(lambda match: _shown(match.group()), text)


def harmless_json(text: str) -> str:
    """The same JSON value, with such characters written as escapes."""
    return _HARMFUL.sub(lambda match: f"\\u{ord(match.group()):04x}", text)


def _shown(character: str) -> str:
    code = ord(character)
    if code < 0x20:
        return chr(_PICTURES + code)
    return "␡" if code == 0x7F else f"<U+{code:04X}>"
