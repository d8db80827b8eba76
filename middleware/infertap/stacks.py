"""An exception's stack as it is kept on the event loop: where, and not what; formatted by whoever writes it down.

1. No frame is kept, so no local variable of the app lives longer for it. A frame is a code object and a number.
2. Formatting reads source files. That is the worker's to do, and costs hundreds of microseconds on the event loop.
"""

import linecache
import textwrap
import traceback
from collections import deque
from collections.abc import Iterator
from sys import getsizeof
from types import CodeType, TracebackType
from typing import NamedTuple

from infertap.texts import text_of

_FRAMES_MAX = 128
"""Of one exception: the last ones, which are nearest to the error."""
_ERRORS_MAX = 16
"""Of one stack, causes and members of groups together."""
_NOTES_MAX = 16
_PART_BYTES, _FRAME_BYTES = 256, 80
_CAUSE = "\nThe above exception was the direct cause of the following exception:\n\n"
_CONTEXT = "\nDuring handling of the above exception, another exception occurred:\n\n"


class _Part(NamedTuple):
    """One exception."""

    title: str
    frames: tuple[tuple[CodeType, int], ...]
    left_out: int
    """Frames before those."""
    members: tuple["Stack", ...]
    """Of a group."""
    link: str
    """How it led to the one after it; empty for the last."""


class Stack:
    """The stack of an exception and of those that led to it. `str()` gives it in Python's own form."""

    __slots__ = ("_parts", "held_bytes")

    def __init__(self, error: BaseException, room: "_Room | None" = None) -> None:
        room = room or _Room()
        parts: list[_Part] = []
        found: BaseException | None = error
        link = ""
        while found is not None and room.take(found):
            parts.append(_part(found, link, room))
            cause = found.__cause__
            link = _CONTEXT if cause is None else _CAUSE
            found = cause if cause is not None or found.__suppress_context__ else found.__context__
        self._parts = tuple(reversed(parts))
        self.held_bytes = sum(map(_held_bytes, self._parts))
        """What it holds in memory, roughly."""

    def __str__(self) -> str:
        return "".join(line for part in self._parts for line in _lines(part))


class _Room:
    """How many exceptions may still be kept: each once, and together no more than `_ERRORS_MAX`."""

    __slots__ = ("_seen",)

    def __init__(self) -> None:
        self._seen: set[int] = set()

    def take(self, error: BaseException) -> bool:
        if len(self._seen) >= _ERRORS_MAX or id(error) in self._seen:
            return False
        self._seen.add(id(error))
        return True


def _part(error: BaseException, link: str, room: _Room) -> _Part:
    frames, left_out = _frames(error.__traceback__)
    members: tuple[Stack, ...] = ()
    if isinstance(error, BaseExceptionGroup):
        members = tuple(Stack(member, room) for member in error.exceptions[:_ERRORS_MAX])
    return _Part(_title(error), frames, left_out, members, link)


def _frames(trace: TracebackType | None) -> tuple[tuple[tuple[CodeType, int], ...], int]:
    frames: deque[tuple[CodeType, int]] = deque(maxlen=_FRAMES_MAX)
    count = 0
    while trace is not None:
        frames.append((trace.tb_frame.f_code, trace.tb_lineno))
        count += 1
        trace = trace.tb_next
    return tuple(frames), count - len(frames)


def _title(error: BaseException) -> str:
    kind = type(error)
    name = (
        kind.__qualname__ if kind.__module__ in ("builtins", "__main__") else f"{kind.__module__}.{kind.__qualname__}"
    )
    message = text_of(error)
    lines = [f"{name}: {message}" if message else name]
    notes = getattr(error, "__notes__", ())
    if isinstance(notes, (list, tuple)):
        lines += [text_of(note) for note in notes[:_NOTES_MAX]]
    return "\n".join(lines)


def _held_bytes(part: _Part) -> int:
    own = _PART_BYTES + _FRAME_BYTES * len(part.frames) + getsizeof(part.title)
    return own + sum(member.held_bytes for member in part.members)


def _lines(part: _Part) -> Iterator[str]:
    if part.frames:
        yield "Traceback (most recent call last):\n"
    if part.left_out:
        yield f"  [{part.left_out} more frames]\n"
    summary = traceback.StackSummary.from_list(
        (code.co_filename, number, code.co_name, linecache.getline(code.co_filename, number))
        for code, number in part.frames
    )
    # It shows repeated frames of a recursion once.
    yield from summary.format()
    yield f"{part.title}\n"
    for place, member in enumerate(part.members, 1):
        yield textwrap.indent(f"---------------- {place} ----------------\n{member}", "  | ")
    if part.link:
        yield part.link
