"""OTLP headers from a file that somebody else rewrites: tokens that rotate while we run.

1. The file is looked at before each delivery, and read again when it has changed (a mounted secret is swapped whole).
2. While it cannot be read, the headers of the last good reading stay.
3. A header that tells tenants apart cannot come from it: what was spooled for one tenant never goes to another.
"""

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from infertap.errors import RetryableError
from infertap.targets import TENANT_HEADERS, OtlpTarget, is_header

_FILE_BYTES_MAX = 64 << 10


class HeadersFile:
    """A target whose headers may change. One thread."""

    def __init__(self, target: OtlpTarget) -> None:
        self._target = target
        self._path = Path(target.headers_file) if target.headers_file is not None else None
        self._seen: tuple[int, int, int] | None = None
        self._current = target

    def current(self) -> OtlpTarget:
        """The target with the headers as they are now; the same object while nothing has changed.

        Raises:
            RetryableError: the file could never be read, or holds something else than headers.
        """
        if self._path is None:
            return self._target
        try:
            status = os.stat(self._path)
            seen = (status.st_ino, status.st_mtime_ns, status.st_size)
            if seen != self._seen:
                headers = parse_headers(self._path.read_bytes()[:_FILE_BYTES_MAX])
                self._current, self._seen = replace(self._target, headers={**self._target.headers, **headers}), seen
        except OSError as error:
            if self._seen is None:
                raise RetryableError(f"otlp_headers_file cannot be read: {error.strerror}") from error
        return self._current


def parse_headers(text: bytes) -> Mapping[str, str]:
    """`name=value` a line, values as they are; empty lines and lines with `#` in front do not count.

    Raises:
        RetryableError: with the number of the line, never with its text.
    """
    headers: dict[str, str] = {}
    for number, line in enumerate(text.decode("utf-8", "replace").splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, equals, value = line.partition("=")
        name, value = name.strip().lower(), value.strip()
        if not equals or not is_header(name, value):
            raise RetryableError(f"otlp_headers_file: line {number} is not name=value")
        if name in TENANT_HEADERS:
            raise RetryableError(f"otlp_headers_file: {name} tells tenants apart; set it in OTEL_EXPORTER_OTLP_HEADERS")
        headers[name] = value
    return headers
