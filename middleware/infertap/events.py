"""What infertap says about itself in the log: typed events, each with its level, its words and its rate limit.

Never a body, never a header value, never a credential: messages carry names, counts and causes.
"""

import contextlib
import logging
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from infertap.words import plural

LOGGER_NAME = "infertap"
_REPEAT_AFTER_S = 60.0


@dataclass(slots=True)
class EventLog:
    """Writes events to the logger `infertap`; installs no handler."""

    is_helper: bool = False
    """Whether this process lives for another one, which says by itself what is true of both."""
    is_throwaway: bool = False
    """Whether the spool is thrown away at the end: then nothing in it waits for anybody."""
    _last_said: dict[str, float] = field(default_factory=dict)
    _suppressed: dict[str, int] = field(default_factory=dict)

    def starting(self, line: str, warnings: Iterable[str], conflict: str | None) -> None:
        """The one line at every start, and what is wrong beside it."""
        if self.is_helper:
            return
        say(logging.INFO, line)
        for warning in warnings:
            say(logging.WARNING, warning)
        if conflict is not None:
            say(logging.WARNING, conflict)

    def forgotten(self, folders: Iterable[Path]) -> None:
        """Records wait for a destination of former times."""
        if self.is_helper or self.is_throwaway:
            return
        first, *others = [f"`infertap drain {folder}`" for folder in folders] or [""]
        if first:
            more = f", and {plural(len(others), 'folder')} more (infertap doctor lists them)" if others else ""
            line = f"records of an earlier run wait for another destination; deliver them by {first}{more}"
            say(logging.WARNING, f"{line} (with --redirect: to where records go now)")

    def warn(self, line: str) -> None:
        """A line at WARNING that its sender says once."""
        say(logging.WARNING, line)

    def not_recording(self, problems: Sequence[str]) -> None:
        """Something is wrong where a start cannot be refused."""
        say(logging.ERROR, "nothing is recorded:\n" + "\n".join(f"- {problem}" for problem in problems))

    def spool_failed(self, error: Exception) -> None:
        """The spool took nothing; rate limited."""
        self._limited("spool", logging.WARNING, f"records are being lost: {error}")

    def record_failed(self, error: Exception) -> None:
        """A record could not be built: a bug of ours. Names the place, never the content."""
        self._limited("record", logging.ERROR, f"a record was lost: {_place(error)}")

    def capture_failed(self, error: Exception) -> None:
        """The capture itself failed: a bug of ours, or a message that is not ASGI."""
        self._limited("capture", logging.ERROR, f"a request was not recorded completely: {_place(error)}")

    def queue_full(self, count: int) -> None:
        """Records were dropped because the worker lags."""
        self._limited("queue", logging.WARNING, f"{count} records were dropped: queue_bytes_max is reached")

    def stopped(self, spooled: int, lost: Mapping[str, int], lost_behind: Mapping[str, int], waits: str) -> None:
        """The last line, where there is anything to say: how much reached the spool, what was lost before and behind it
        and why, and what waits for whom (empty: nothing)."""
        before, behind = _counted(lost), _counted(lost_behind)
        if self.is_throwaway and not before and not behind:
            return
        is_bad = bool(before or behind or waits)
        if (self.is_helper or not spooled) and not is_bad:
            return
        parts = [f"{plural(spooled, 'request')} spooled"]
        if before:
            parts.append(f"lost: {before}")
        if behind:
            parts.append(f"of the spooled ones lost: {behind}")
        if waits:
            parts.append(waits)
        elif not is_bad:
            parts.append("all delivered")
        say(logging.WARNING if is_bad else logging.INFO, "; ".join(parts))

    def _limited(self, key: str, level: int, message: str) -> None:
        now = time.monotonic()
        last = self._last_said.get(key)
        if last is not None and now - last < _REPEAT_AFTER_S:
            self._suppressed[key] = self._suppressed.get(key, 0) + 1
            return
        self._last_said[key] = now
        more = self._suppressed.pop(key, 0)
        say(level, f"{message} ({more} more like this)" if more else message)


def say(level: int, line: str, logger_name: str = LOGGER_NAME) -> None:
    """Log a line; print it where logging would swallow it, or show it without a word about who says it.

    A bare uvicorn configures no handler for us, and `logging.basicConfig()` stops at WARNING: the line at start, which
    says where bodies go, must be seen all the same.
    """
    logger = logging.getLogger(logger_name)
    # An app's dictConfig disables loggers that existed before it; ours must still be heard.
    logger.disabled = False
    if logger.hasHandlers() and logger.isEnabledFor(level):
        # An app's handler or filter may raise whatever it likes: this is the border to it.
        with contextlib.suppress(Exception):
            logger.log(level, "%s", line)
    else:
        # A full disk, a closed pipe, a closed file: nobody hears it then, and nothing else may fail for it.
        with contextlib.suppress(OSError, ValueError):
            print(f"infertap: {line}", file=sys.stderr, flush=True)


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items() if count)


def _place(error: Exception) -> str:
    """Exception type and code position. Its text may hold content, so it is not said."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = f" at {trace.tb_frame.f_code.co_filename.rpartition('/')[2]}:{trace.tb_lineno}" if trace is not None else ""
    return f"{type(error).__name__}{where}"
