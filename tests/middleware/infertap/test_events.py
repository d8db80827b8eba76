"""What infertap says about itself: heard, rate limited, and without a word of content."""

import logging
import logging.config
from collections.abc import Iterator

import pytest

from infertap import events
from infertap.errors import SpoolError
from infertap.events import LOGGER_NAME, EventLog

_SECRET = "Hunter2-tr0ub4dor"


class _Heard(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[tuple[int, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append((record.levelno, record.getMessage()))


@pytest.fixture
def heard() -> Iterator[_Heard]:
    """A handler of the app's on our logger, at level INFO; all loggers are as before afterwards."""
    logger = logging.getLogger(LOGGER_NAME)
    level = logger.level
    # All of them: a `dictConfig` in one test would silence what later ones listen for.
    enabled = [
        known
        for known in logging.root.manager.loggerDict.values()
        if isinstance(known, logging.Logger) and not known.disabled
    ]
    handler = _Heard()
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(level)
    for known in enabled:
        known.disabled = False


def _failed(text: str) -> Exception:
    try:
        raise ValueError(text)
    except ValueError as error:
        return error


def test_a_logger_that_the_app_has_disabled_is_heard(heard: _Heard) -> None:
    """`dictConfig` disables all loggers that existed before it."""
    log = EventLog()
    log.starting("one", (), None)
    logging.config.dictConfig({"version": 1, "disable_existing_loggers": True})
    assert logging.getLogger(LOGGER_NAME).disabled
    log.starting("recording to x", ("mind this",), "TWO DESTINATIONS")
    assert heard.lines[1:] == [
        (logging.INFO, "recording to x"),
        (logging.WARNING, "mind this"),
        (logging.WARNING, "TWO DESTINATIONS"),
    ]


def test_the_line_at_start_is_seen_where_nobody_configured_logging(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bare uvicorn: an INFO line would be lost."""
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    monkeypatch.setattr(logging.getLogger(LOGGER_NAME), "handlers", [])
    EventLog().starting("recording to x", (), None)
    assert capfd.readouterr().err == "infertap: recording to x\n"


def test_wrong_settings_are_one_error_with_all_problems(heard: _Heard) -> None:
    """Where a start cannot be refused."""
    EventLog().not_recording(["first", "second"])
    ((level, line),) = heard.lines
    assert level == logging.ERROR
    assert line.endswith("- first\n- second")


def test_a_failing_record_names_its_place_and_not_its_content(heard: _Heard) -> None:
    """The text of an exception may hold a prompt."""
    log = EventLog()
    log.record_failed(_failed(_SECRET))
    log.capture_failed(_failed(_SECRET))
    log.record_failed(ValueError(_SECRET))
    assert len(heard.lines) == 2
    for level, line in heard.lines:
        assert level == logging.ERROR
        assert _SECRET not in line
        assert "ValueError at test_events.py:" in line


def test_repeated_events_are_said_once_a_minute(heard: _Heard, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each kind by itself; the next one says how many were left out."""
    log = EventLog()
    for _ in range(5):
        log.spool_failed(SpoolError("no space left"))
        log.queue_full(7)
    assert [line for _, line in heard.lines] == [
        "records are being lost: no space left",
        "7 records were dropped: queue_bytes_max is reached",
    ]
    monkeypatch.setattr(events, "_REPEAT_AFTER_S", 0.0)
    log.spool_failed(SpoolError("no space left"))
    assert heard.lines[2] == (logging.WARNING, "records are being lost: no space left (4 more like this)")


def test_the_last_line_says_what_waits(heard: _Heard) -> None:
    """INFO where all is delivered, WARNING where something waits or was lost, and why; nothing where nothing came."""
    log = EventLog()
    log.stopped(0, {"queue_full": 0}, {}, "")
    log.stopped(5, {"queue_full": 0}, {"otlp rejected": 0}, "")
    log.stopped(1, {}, {}, "2 requests wait in the spool for the next start")
    log.stopped(0, {"spool_full": 3}, {}, "")
    log.stopped(5, {}, {"table damaged": 1, "otlp spool_full": 4}, "")
    assert heard.lines == [
        (logging.INFO, "5 requests spooled; all delivered"),
        (logging.WARNING, "1 request spooled; 2 requests wait in the spool for the next start"),
        (logging.WARNING, "0 requests spooled; lost: spool_full 3"),
        (logging.WARNING, "5 requests spooled; of the spooled ones lost: table damaged 1, otlp spool_full 4"),
    ]


def test_a_helper_says_only_what_is_its_own(heard: _Heard) -> None:
    """Where records go and that all is well is the other process's word; what is lost or waits is not."""
    log = EventLog(is_helper=True)
    log.starting("recording to ./t", ["odd"], "conflict")
    log.stopped(0, {"queue_full": 0}, {}, "")
    assert heard.lines == []
    log.stopped(0, {"queue_full": 1}, {}, "2 requests wait")
    assert [level for level, _ in heard.lines] == [logging.WARNING]
