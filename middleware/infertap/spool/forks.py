"""What a forked child must let go of, so that it never keeps its parent's slot locked or writes into its page.

`os.register_at_fork` is process-wide and cannot be taken back. So there is one hook and one weak set of what is open:
the only module state of the spool.
"""

import os
from typing import Protocol
from weakref import WeakSet


class Inherited(Protocol):
    """Something that holds a descriptor or a shared mapping."""

    def after_fork_in_child(self) -> None:
        """Closes what was inherited and nothing else: never unlocks, never writes. Safe twice."""


_inherited: WeakSet[Inherited] = WeakSet()


def close_in_forked_child(thing: Inherited) -> None:
    """Has `thing.after_fork_in_child()` called in every child forked while `thing` is alive."""
    _inherited.add(thing)


def _after_fork_in_child() -> None:
    for thing in list(_inherited):
        thing.after_fork_in_child()


os.register_at_fork(after_in_child=_after_fork_in_child)
