"""Lines of the sidecar's log, as text and as JSON."""

import asyncio
import json
import logging
import sys

import pytest

from infertap_sidecar.failure_log import INTERVAL_S, KINDS_MAX, FailureLog
from infertap_sidecar.logs import JsonFormatter, TextFormatter, wanted
from infertap_sidecar.upstream.protocol import UpstreamError


def record(message: str, error: BaseException | None = None) -> logging.LogRecord:
    info = (type(error), error, error.__traceback__) if error is not None else None
    made = logging.LogRecord("infertap.x", logging.WARNING, __file__, 1, message, (), info)
    made.created = 1_700_000_000.25
    return made


def test_text_is_one_line() -> None:
    """Time in UTC, level, logger, message."""
    assert TextFormatter().format(record("hello")) == "2023-11-14 22:13:20.250Z WARNING infertap.x: hello"


def test_json_is_one_object_even_with_a_traceback() -> None:
    """A traceback stays within its line."""
    try:
        raise ValueError("boom")
    except ValueError:
        line = JsonFormatter().format(record("hello", sys.exc_info()[1]))
    assert "\n" not in line
    entry = json.loads(line)
    assert entry["message"] == "hello"
    assert entry["time"] == "2023-11-14T22:13:20.250+00:00"
    assert "ValueError: boom" in entry["exception"]


def test_uvicorns_lines_about_what_we_tell_ourselves_are_dropped() -> None:
    """A failed upstream is no traceback; any other error still is."""
    assert not wanted(record("Exception in ASGI application", UpstreamError("ReadError", "gone")))
    assert not wanted(record("Unsupported upgrade request."))
    assert not wanted(record("Exception in ASGI application", asyncio.CancelledError("Task cancelled, timeout")))
    assert wanted(record("Exception in ASGI application", ValueError("boom")))


class StepClock:
    """Time that a test sets."""

    now_s = 1000.0

    def wall_ns(self) -> int:
        return int(self.now_s * 1e9)

    def monotonic_s(self) -> float:
        return self.now_s


def test_failures_are_told_once_in_a_while_with_their_number(caplog: pytest.LogCaptureFixture) -> None:
    """The first at once, the next after the interval, counting those between."""
    clock = StepClock()
    failures = FailureLog(logging.getLogger("test.failures"), clock)
    for _ in range(5):
        failures.failed("refused")
    assert caplog.messages == ["refused"]
    clock.now_s += INTERVAL_S
    failures.failed("refused")
    failures.failed("refused")
    assert caplog.messages == ["refused", "refused (4 more failures of this kind since the last such line)"]


def test_each_kind_of_failure_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """A server that breaks off, answers garbage and is then gone: three lines at once, and no kind is kept for ever."""
    failures = FailureLog(logging.getLogger("test.failures"), StepClock())
    for message in ("closed", "closed", "garbage", "refused", "closed"):
        failures.failed(message)
    assert caplog.messages == ["closed", "garbage", "refused"]
    for number in range(KINDS_MAX):
        failures.failed(f"kind {number}")
    failures.failed("closed")
    assert caplog.messages[-1] == "closed"
