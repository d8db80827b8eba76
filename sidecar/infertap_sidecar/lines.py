"""Single findings on standard output: folded under their own beginning on a terminal, whole lines in a pipe."""

import sys

from rich.console import Console
from rich.table import Table
from rich.text import Text

from infertap_sidecar.terminal import console, harmless
from infertap_sidecar.width import WIDTH_MAX


def line_console() -> Console:
    """Standard output of at most 100 columns; a pipe, which `grep` reads, gets lines of any length."""
    return console(sys.stdout, width_max=WIDTH_MAX)


def print_line(out: Console, text: Text | str, *, mark: str = "", style: str = "") -> None:
    """One finding behind its mark; what does not fit goes on below its first word."""
    words = text.copy() if isinstance(text, Text) else Text(text, style)
    words.plain = harmless(words.plain)
    if not out.is_terminal:
        out.print(Text(mark) + words, soft_wrap=True)
    elif not mark:
        out.print(words)
    else:
        grid = Table.grid()
        grid.add_column(no_wrap=True, width=len(mark))
        grid.add_column(overflow="fold")
        grid.add_row(Text(mark, style), words)
        out.print(grid)
