"""The drainer's log in an owner's logger."""

import logging
from typing import Any

import pytest

from infertap.drain.relay import LogRelay
from infertap.drain.state import DrainerState, Phase

LOGGER = "infertap.drainer"


def write(bench: Any, *messages: str) -> None:
    with bench.folder.drainer_log.open("a") as file:
        for message in messages:
            file.write(f'{{"level": "WARNING", "message": "{message}"}}\n')


def test_one_owner_relays_and_the_next_goes_on(bench: Any, caplog: pytest.LogCaptureFixture) -> None:
    """No line is relayed twice or left out when the relaying changes hands."""
    first, second = LogRelay(bench.folder, LOGGER), LogRelay(bench.folder, LOGGER)
    write(bench, "one")
    for relay in (first, second):
        relay.tick(DrainerState())
    write(bench, "two")
    first.close()
    for relay in (second, first):
        relay.tick(DrainerState())
    assert caplog.messages == ["one", "two"]
    second.close()


def test_half_a_line_waits_and_nonsense_is_left_out(bench: Any, caplog: pytest.LogCaptureFixture) -> None:
    """A drainer killed while it wrote does not disturb the relay."""
    relay = LogRelay(bench.folder, LOGGER)
    bench.folder.drainer_log.write_bytes(b'garbage\n{"level": "INFO"}\n{"level": "WARNING", "mess')
    relay.tick(DrainerState())
    with bench.folder.drainer_log.open("ab") as file:
        file.write(b'age": "whole"}\n')
    relay.tick(DrainerState())
    assert caplog.messages == ["whole"]
    relay.close()


def test_lines_before_a_rotation_are_not_lost(bench: Any, caplog: pytest.LogCaptureFixture) -> None:
    """What was written into the file that has just been moved aside comes first."""
    relay = LogRelay(bench.folder, LOGGER)
    write(bench, "one")
    relay.tick(DrainerState())
    write(bench, "two")
    bench.folder.drainer_log.rename(bench.folder.path / "drainer.log.1")
    write(bench, "three")
    relay.tick(DrainerState())
    assert caplog.messages == ["one", "two", "three"]
    relay.close()


def test_a_death_is_told_once_with_the_last_words(bench: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Masked, limited to the last lines, and again only for the next death."""
    relay = LogRelay(bench.folder, LOGGER)
    relay.tick(DrainerState(phase=Phase.RUNNING))
    lines = [f"line {number}" for number in range(50)]
    bench.folder.drainer_err.write_text("\n".join([*lines, "panicked: password=s3cr3t"]))
    dead = DrainerState(phase=Phase.CRASHED, failures=1)
    for _ in range(3):
        relay.tick(dead)
    (message,) = caplog.messages
    assert "1 in a row" in message
    assert "line 49" in message
    assert "line 30" not in message
    assert "panicked" in message
    assert "s3cr3t" not in message
    relay.tick(DrainerState(phase=Phase.CRASHED, failures=2))
    assert len(caplog.messages) == 2
    relay.close()


def test_a_bare_app_hears_warnings_with_a_name_and_no_chatter(
    bench: Any, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nobody configured logging, Python would print the bare sentence: nobody knew who says it."""
    for name in (None, "infertap", LOGGER):
        monkeypatch.setattr(logging.getLogger(name), "handlers", [])
    relay = LogRelay(bench.folder, LOGGER)
    bench.folder.drainer_log.write_text('{"level": "INFO", "message": "fine"}\n')
    write(bench, "the disk is full")
    relay.tick(DrainerState())
    relay.close()
    assert capfd.readouterr().err == "infertap: the disk is full\n"


def test_what_was_relayed_need_not_be_said_again(bench: Any) -> None:
    """As part of one of the last lines; what another owner relayed counts for nothing here."""
    relay, other = LogRelay(bench.folder, LOGGER), LogRelay(bench.folder, LOGGER)
    write(bench, "destination otlp did not take records: refused")
    for each in (relay, other):
        each.tick(DrainerState())
    reasons = "otlp: refused\ntable: no space"
    assert relay.news(reasons) == "table: no space"
    assert other.news(reasons) == reasons
    assert relay.news("") == ""
    relay.close()
