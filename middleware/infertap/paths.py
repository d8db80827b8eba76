"""Which paths are recorded: globs, compiled once, remembered per path."""

import fnmatch
import functools
import re
from collections.abc import Sequence

_REMEMBERED_MAX = 2048
_REMEMBERED_CHARACTERS_MAX = 256


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
