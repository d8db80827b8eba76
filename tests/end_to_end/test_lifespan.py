"""An app whose start fails fails it behind the middleware just as without: same end, same words of the server."""

import re
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest

Rows = Callable[..., list[dict[str, Any]]]
Start = Callable[..., Any]
AUTO, ON, OFF = (["uvicorn", "--lifespan", value] for value in ("auto", "on", "off"))
HYPERCORN = ["hypercorn"]
_OURS = ("infertap: ",)


def _end(server: Any) -> int | str:
    """The exit code of a server whose start failed, or that it serves."""
    deadline = time.monotonic() + 120
    while server.process.poll() is None:
        assert time.monotonic() < deadline, server.output
        try:
            assert httpx.get(f"{server.url}/x").text == "ok"
        except httpx.TransportError:
            time.sleep(0.05)
        else:
            server.stop()
            return "serves"
    code: int = server.process.returncode
    return code


def _words(output: str) -> list[str]:
    """What the server said: without our own lines, what differs between any two processes, and our frames."""
    lines = [line for line in output.splitlines() if not line.startswith(_OURS)]
    said = [re.sub(r"\d+", "N", line) for line in lines if not re.match(r'\s+(File "|\^|await |return |self\.)', line)]
    # Two processes write here: a line and its end may come apart.
    return [line for line in said if line and "GET /x" not in line]


@pytest.mark.parametrize("server", [AUTO, ON, OFF, HYPERCORN], ids="-".join)
@pytest.mark.parametrize("way", ["after-asking", "answers"])
def test_a_failed_start_fails_as_without_us(start: Start, server: list[str], way: str) -> None:
    """Whether it raises or answers `startup.failed`; where the server serves all the same, it serves with us, too."""
    command, *options = server
    env = {"FAILS": way, "INFERTAP_DRAIN_S": "0"}
    bare = start(command, "failing:app", *options, env=env, probe=None)
    recorded = start(command, "failing:recorded", *options, env=env, probe=None)
    expected = _end(bare)
    assert _end(recorded) == expected, recorded.output
    assert _words(recorded.output) == _words(bare.output)


def test_a_server_that_insists_on_lifespan_refuses_an_app_that_never_asks(start: Start) -> None:
    """An app that raises before it asks for a message may have failed, too: uvicorn is told, and says so."""
    env = {"FAILS": "before-asking", "INFERTAP_DRAIN_S": "0"}
    bare = start("uvicorn", "failing:app", "--lifespan", "on", env=env, probe=None)
    recorded = start("uvicorn", "failing:recorded", "--lifespan", "on", env=env, probe=None)
    assert _end(bare) == 3
    assert _end(recorded) == 3, recorded.output
    assert _words(recorded.output) == _words(bare.output)


@pytest.mark.parametrize("way", ["before-asking", "after-asking"])
def test_a_server_that_goes_on_is_recorded(start: Start, rows: Rows, way: str) -> None:
    """uvicorn takes such an app for one without lifespan; its requests become rows."""
    server = start("uvicorn", "failing:recorded", env={"FAILS": way}, probe="/x")
    httpx.get(f"{server.url}/y")
    found = rows("inference", 2)
    server.stop()
    assert {"/x", "/y"} <= {row["path"] for row in found}
