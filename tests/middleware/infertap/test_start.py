"""The first law at the start: whatever is wrong with the environment or the log, the app starts and answers."""

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from infertap.events import EventLog

_DRIVER = """
import asyncio, sys
from infertap import Config, InferenceMiddleware

state = []

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        state.append("started")
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    assert state == ["started"] or "--lifespan-off" in sys.argv
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"fine"})

async def main():
    wrapped = InferenceMiddleware(app)
    sent, queue = [], asyncio.Queue()
    async def send(message):
        sent.append(message)
    if "--lifespan-off" not in sys.argv:
        lifespan = asyncio.create_task(wrapped({"type": "lifespan", "asgi": {"version": "3.0"}}, queue.get, send))
        await queue.put({"type": "lifespan.startup"})
        while not sent:
            await asyncio.sleep(0.01)
        assert sent[0]["type"] == "lifespan.startup.complete", sent
    scope = {"type": "http", "method": "POST", "path": "/p", "headers": [], "query_string": b"", "scheme": "http"}
    async def receive():
        return {"type": "http.request", "body": b"{}"}
    await wrapped(scope, receive, send)
    assert sent[-1]["body"] == b"fine"
    if "--lifespan-off" not in sys.argv:
        await queue.put({"type": "lifespan.shutdown"})
        await lifespan

asyncio.run(main())
"""


def _run(tmp_path: Path, environ: dict[str, str], *arguments: str, stderr: str | None = None) -> str:
    env = {name: value for name, value in os.environ.items() if not name.startswith(("INFERTAP_", "OTEL_"))}
    env |= {"INFERTAP_TABLES": str(tmp_path / "tables"), "INFERTAP_DRAINER": "external", "INFERTAP_DRAIN_S": "0.1"}
    command = [sys.executable, "-c", _DRIVER, *arguments]
    if stderr is None:
        done = subprocess.run(command, env=env | environ, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    else:
        with open(stderr, "w") as full:
            done = subprocess.run(
                command, env=env | environ, cwd=tmp_path, stdout=subprocess.PIPE, stderr=full, text=True, timeout=120
            )
    assert done.returncode == 0, done.stderr
    return done.stderr or ""


@pytest.mark.parametrize("lifespan", ["--lifespan-on", "--lifespan-off"])
@pytest.mark.parametrize(
    "settings",
    [{}, {"INFERTAP_SERVER_SPAN": "otel"}, {"INFERTAP_INSTALL_TRACER_PROVIDER": "true"}],
    ids=["light", "otel", "provider"],
)
def test_limits_that_opentelemetry_refuses_stop_no_app(tmp_path: Path, settings: dict[str, str], lifespan: str) -> None:
    """Its SDK raises for them when it is imported, and when a provider is made."""
    _run(tmp_path, settings | {"OTEL_SPAN_EVENT_COUNT_LIMIT": "abc"}, lifespan)
    assert list((tmp_path / "tables" / ".spool").glob("*/slots/*/*.seg"))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
@pytest.mark.parametrize("lifespan", ["--lifespan-on", "--lifespan-off"])
@pytest.mark.parametrize("destination", ["none", "table"])
def test_a_log_that_cannot_be_written_stops_no_app(tmp_path: Path, destination: str, lifespan: str) -> None:
    """A full disk is when there is something to say, and the app's own start must not depend on it."""
    _run(tmp_path, {"INFERTAP_DESTINATION": destination}, lifespan, stderr="/dev/full")
    assert destination == "none" or list((tmp_path / "tables" / ".spool").glob("*/slots/*/*.seg"))


def test_a_reader_that_has_gone_away_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """A closed pipe, and a closed file."""
    reading, writing = os.pipe()
    os.close(reading)
    pipe = os.fdopen(writing, "w", buffering=1)
    monkeypatch.setattr(sys, "stderr", pipe)
    monkeypatch.setattr("logging.Logger.hasHandlers", lambda _: False)
    EventLog().warn("nobody hears this")
    with contextlib.suppress(BrokenPipeError):
        pipe.close()
    EventLog().warn("nor this")


_FIRST_REQUEST = """
import asyncio, sys, threading
from infertap import InferenceMiddleware

found = []

class Watch:
    def find_spec(self, name, path=None, target=None):
        if threading.current_thread() is threading.main_thread():
            found.append(name)

async def app(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"fine"})

async def main():
    wrapped = InferenceMiddleware(app)
    scope = {"type": "http", "method": "POST", "path": "/p", "headers": [], "query_string": b"", "scheme": "http"}
    async def nothing(*_):
        return {"type": "http.request", "body": b"{}"}
    sys.meta_path.insert(0, Watch())
    await wrapped(scope, nothing, nothing)
    del sys.meta_path[0]
    assert wrapped.pipeline is not None
    wrapped.pipeline.stop()

asyncio.run(main())
assert found == [], found
"""


def test_a_first_request_without_lifespan_imports_nothing(tmp_path: Path) -> None:
    """What an import costs has been paid at the start-up: modules, entry points and detectors of OpenTelemetry."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("INFERTAP_", "OTEL_"))}
    env |= {"INFERTAP_DRAINER": "external", "INFERTAP_DRAIN_S": "0"}
    command = [sys.executable, "-c", _FIRST_REQUEST]
    done = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
