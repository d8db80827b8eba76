"""What `infertap doctor` has found: each line behind its mark, and the verdict that counts them."""

from rich.console import Console
from rich.text import Text

from infertap.words import plural
from infertap_sidecar.lines import print_line


class Verdict:
    """Prints findings as they come."""

    def __init__(self, out: Console) -> None:
        self._out = out
        self.problems = 0
        self.notes = 0

    def line(self, text: Text | str, *, indent: str = "", style: str = "") -> None:
        """What is neither good nor bad."""
        print_line(self._out, text, mark=indent, style=style)

    def good(self, text: Text | str) -> None:
        """What was tried and works."""
        print_line(self._out, text, mark="✓ ", style="green")

    def note(self, text: str, *, indent: str = "") -> None:
        """What may be meant so, and is to be looked at by somebody who knows."""
        self.notes += 1
        print_line(self._out, text, mark=f"{indent}! ", style="yellow")

    def problem(self, text: Text | str, *, indent: str = "") -> None:
        """What does not work."""
        self.problems += 1
        print_line(self._out, text, mark=f"{indent}✗ ", style="red")

    def end(self) -> None:
        """The last line: how many of each stand above."""
        words = f"{plural(self.problems, 'problem')} found (✗)" if self.problems else "no problem found"
        if self.notes:
            words += f", {'and' if self.problems else 'but'} {plural(self.notes, 'thing')} to look at (!)"
        print_line(self._out, words, style=f"bold {_colour(self.problems, self.notes)}")


def _colour(problems: int, notes: int) -> str:
    if problems:
        return "red"
    return "yellow" if notes else "green"
