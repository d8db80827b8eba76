"""The drainer's log: JSON lines in two bounded files of the folder, which one owner relays. No credential gets in."""

import contextlib
import json
import logging
import sys
from collections.abc import Collection, Iterator
from logging.handlers import RotatingFileHandler

from infertap.masking import masked
from infertap.spool.folder import SpoolFolder

LOG_BYTES_MAX = 256 << 10
"""Of each of the two files."""


class JsonLine(logging.Formatter):
    """One masked JSON object a line: `at`, `level`, `logger`, `message`."""

    def __init__(self, secrets: Collection[str]) -> None:
        super().__init__()
        self._secrets = secrets

    def format(self, record: logging.LogRecord) -> str:
        message = record.getMessage()
        if record.exc_info:
            message += "\n" + self.formatException(record.exc_info)
        entry = {"at": record.created, "level": record.levelname, "logger": record.name, "message": message}
        entry["message"] = masked(message, self._secrets)
        return json.dumps(entry)


class MaskedText(logging.Formatter):
    """A masked line for people; `timed` where they read it later."""

    def __init__(self, secrets: Collection[str], *, timed: bool) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s" if timed else "infertap drain: %(message)s")
        self._secrets = secrets

    def format(self, record: logging.LogRecord) -> str:
        return masked(super().format(record), self._secrets)


def log_to_folder(folder: SpoolFolder, secrets: Collection[str]) -> None:
    """Sends this process's log records into the folder. Raises OSError."""
    handler = RotatingFileHandler(folder.drainer_log, maxBytes=LOG_BYTES_MAX, backupCount=1, encoding="utf-8")
    handler.setFormatter(JsonLine(secrets))
    _install(handler)


@contextlib.contextmanager
def log_to_stderr(secrets: Collection[str], *, chatty: bool) -> Iterator[None]:
    """Sends log records to this process's own stderr for a while, as for a drainer in the foreground.

    `chatty`: also what is no warning, as a process that stays should.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(MaskedText(secrets, timed=chatty))
    handler.setLevel(logging.INFO if chatty else logging.WARNING)
    _install(handler)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)


def _install(handler: logging.Handler) -> None:
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    logging.getLogger("infertap").setLevel(logging.INFO)
