"""The sidecar's log: one line an event on standard error, as text for people or JSON for collectors."""

import asyncio
import json
import logging
import sys
from datetime import UTC, datetime
from typing import Literal, TextIO

from infertap_sidecar.proxy import ClientGoneError
from infertap_sidecar.upstream.protocol import UpstreamError

_UVICORN_NOISE = ("Unsupported upgrade request.", "No supported WebSocket library")


class TextFormatter(logging.Formatter):
    """`2026-11-25 01:58:03.120Z WARNING infertap: message`."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, and a traceback where there is one."""
        at = datetime.fromtimestamp(record.created, UTC)
        line = f"{at:%Y-%m-%d %H:%M:%S}.{at.microsecond // 1000:03d}Z {record.levelname:<7} {record.name}: "
        line += record.getMessage()
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class JsonFormatter(logging.Formatter):
    """One JSON object a line: `time`, `level`, `logger`, `message`, and `exception` where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, always."""
        entry = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False)


def configure(log_format: Literal["text", "json"], stream: TextIO | None = None) -> None:
    """Own the process's logging: everything from WARNING, infertap's own from INFO."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("infertap").setLevel(logging.INFO)
    logging.getLogger("uvicorn.error").addFilter(wanted)


def wanted(record: logging.LogRecord) -> bool:
    """Whether a line of uvicorn says something new.

    A failed upstream is ours to tell, once and not per request; how many answers a stop cuts off it says elsewhere.
    """
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, UpstreamError | ClientGoneError | asyncio.CancelledError):
        return False
    return not record.getMessage().startswith(_UVICORN_NOISE)
