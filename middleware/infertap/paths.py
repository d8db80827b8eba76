"""Which paths are recorded: globs, compiled once, remembered per path."""

import fnmatch
import functools
import re
from collections.abc import Iterable, Sequence

_REMEMBERED_MAX = 2048
_REMEMBERED_CHARACTERS_MAX = 256
_SHOWN_CHARACTERS_MAX = 20
"""Who mistakes one variable for another may put a secret here, which is longer."""


_REGULAR_EXPRESSION = re.compile(r"\^.*|.*\$|.*\\.*", re.DOTALL)


def useless(globs: Sequence[str]) -> Iterable[str]:
    """One line for each glob that no path can match, or that was meant as a regular expression; it is not repeated
    where it is long."""
    for number, glob in enumerate(globs, start=1):
        named = repr(glob) if len(glob) <= _SHOWN_CHARACTERS_MAX else f"entry {number}"
        if _REGULAR_EXPRESSION.fullmatch(glob):
            yield f"{named} is a regular expression, and globs are expected, such as /v1/* or */predict"
        elif not glob.startswith(("/", "*", "?", "[")):
            yield f"{named} matches no path, because paths begin with /; expected a glob such as /v1/* or */predict"


class PathFilter:
    """`include` (where given) lets in, `exclude` takes out; both are globs on the path.

    The answer is remembered, because it is asked on the event loop and most apps have few paths. Where they have
    many (ids in paths), the memory is emptied when it is full.
    """

    __slots__ = ("_exclude", "_include", "_known")

    def __init__(self, include: Sequence[str], exclude: Sequence[str]) -> None:
        self._include = _compiled(tuple(include))
        self._exclude = _compiled(tuple(exclude))
        self._known: dict[str, bool] = {}

    def records(self, path: str) -> bool:
        """Whether requests to this path are recorded."""
        known = self._known.get(path)
        if known is None:
            known = self._decide(path)
            if len(path) <= _REMEMBERED_CHARACTERS_MAX:
                if len(self._known) >= _REMEMBERED_MAX:
                    self._known.clear()
                self._known[path] = known
        return known

    def _decide(self, path: str) -> bool:
        if self._include is not None and not self._include.match(path):
            return False
        return self._exclude is None or not self._exclude.match(path)


@functools.lru_cache(maxsize=8)
def _compiled(globs: tuple[str, ...]) -> re.Pattern[str] | None:
    return re.compile("|".join(fnmatch.translate(glob) for glob in globs)) if globs else None
