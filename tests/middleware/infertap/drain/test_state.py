"""`drainer.json`."""

import json
from pathlib import Path

import pytest

from infertap.drain.state import DestinationStatus, DrainerState, Phase


def test_it_survives_the_disk(tmp_path: Path) -> None:
    """Saved and loaded it is the same; the phase is called `state` in the file."""
    status = DestinationStatus(records=3, last_error="refused")
    status.count("lost", "rejected", 2)
    state = DrainerState(phase=Phase.RUNNING, nonce="n", pid=12, failures=1, destinations={"otlp": status})
    state.save(tmp_path / "drainer.json")
    assert DrainerState.load(tmp_path / "drainer.json") == state
    data = json.loads((tmp_path / "drainer.json").read_text())
    assert data["state"] == "running"
    assert data["destinations"]["otlp"]["counts"] == {"lost/rejected": 2}
    assert (tmp_path / "drainer.json").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", '{"state": "flying", "pid": "12", "destinations": [1]}', '{"destinations": {"otlp": 3}}'],
)
def test_what_is_no_state_is_an_empty_one(tmp_path: Path, content: str) -> None:
    """A damaged file, or one of another shape, never stops an election."""
    (tmp_path / "drainer.json").write_text(content)
    assert DrainerState.load(tmp_path / "drainer.json") == DrainerState()


def test_what_a_newer_version_adds_is_ignored(tmp_path: Path) -> None:
    """Two versions of infertap can share a folder."""
    (tmp_path / "drainer.json").write_text('{"state": "ended", "failures": 2, "mood": "fine"}')
    assert DrainerState.load(tmp_path / "drainer.json") == DrainerState(phase=Phase.ENDED, failures=2)
