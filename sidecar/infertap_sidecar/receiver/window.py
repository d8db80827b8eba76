"""What has been received lately, so that a sender's retry is recognised and a request becomes one row.

1. A key counts as known only once its span is on the disk; until then it is under way, and a failure forgets it.
2. The window is bounded: the oldest keys that are known are forgotten first.
"""

import threading
from collections import OrderedDict
from collections.abc import Hashable, Iterable
from enum import Enum

SPANS_REMEMBERED_MAX = 100_000


class Seen(Enum):
    """What the window knows about a key."""

    NEW = "new"
    UNDER_WAY = "under way"
    KNOWN = "known"


class Window:
    """Remembers keys. Any thread."""

    def __init__(self, keys_max: int = SPANS_REMEMBERED_MAX) -> None:
        self._keys_max = keys_max
        self._lock = threading.Lock()
        self._known: OrderedDict[Hashable, None] = OrderedDict()
        self._under_way: set[Hashable] = set()

    def claim(self, keys: Iterable[Hashable]) -> list[Seen]:
        """What each key was until now; those that were NEW are UNDER_WAY from here on."""
        with self._lock:
            return [self._claim(key) for key in keys]

    def confirm(self, keys: Iterable[Hashable]) -> None:
        """The spans of these keys are on the disk."""
        with self._lock:
            for key in keys:
                self._under_way.discard(key)
                self._known[key] = None
                if len(self._known) > self._keys_max:
                    self._known.popitem(last=False)

    def forget(self, keys: Iterable[Hashable]) -> None:
        """The spans of these keys did not reach the disk: they may come again."""
        with self._lock:
            self._under_way.difference_update(keys)

    def _claim(self, key: Hashable) -> Seen:
        if key in self._known:
            return Seen.KNOWN
        if key in self._under_way:
            return Seen.UNDER_WAY
        self._under_way.add(key)
        return Seen.NEW
