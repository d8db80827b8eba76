"""What the benchmarks share: one core, and one way to print a table."""

import contextlib
import os
from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.table import Table

PRIORITY = -19
"""Before other people's processes, where we may: what is measured is then ours."""


def take_core(core: int) -> None:
    """Move this process to one core and before others; what is refused is left out. Call it in a session of its own."""
    with contextlib.suppress(OSError, AttributeError):
        os.sched_setaffinity(0, {core})
    take_priority("self", PRIORITY)


def take_priority(process: int | str, niceness: int) -> None:
    """Weigh a process's session against all others: where Linux groups sessions, a process's own niceness does not."""
    with contextlib.suppress(OSError), open(f"/proc/{process}/autogroup", "w") as file:
        file.write(str(niceness))


@contextlib.contextmanager
def pinned(core: int = 0) -> Iterator[None]:
    """Run on one core, where the system allows it."""
    before = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    if before is not None:
        os.sched_setaffinity(0, {core if core in before else min(before)})
    try:
        yield
    finally:
        if before is not None:
            os.sched_setaffinity(0, before)


def show(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table; numbers to the right."""
    table = Table(title=title, title_justify="left")
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left")
    for row in rows:
        table.add_row(*row)
    Console(width=100).print(table)
