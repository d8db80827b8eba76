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
    """Its SDK raises for them when it is imported: one ERROR names them, requests pass, nothing is recorded."""
    said = _run(tmp_path, settings | {"OTEL_SPAN_EVENT_COUNT_LIMIT": "abc", "OTEL_TRACES_SAMPLER": "x"}, lifespan)
    assert said.count("nothing is recorded") == 1
    assert said.count("OTEL_SPAN_EVENT_COUNT_LIMIT") == said.count("OTEL_TRACES_SAMPLER") == 1
    assert list(tmp_path.iterdir()) == []


_SPAN_FACT = b"http_version"
"""Stands in a REQUEST frame only where the request's span is sampled."""
_SAMPLER_PACKAGE = {
    "lab_sampler.py": """
from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult

class Never(Sampler):
    def should_sample(self, *args, **kwargs):
        return SamplingResult(Decision.DROP)

    def get_description(self):
        return "never"

def make(argument):
    if argument == "broken":
        raise RuntimeError("no rules")
    return Never() if argument == "never" else None
""",
    "lab_sampler-1.dist-info/METADATA": "Metadata-Version: 2.1\nName: lab-sampler\nVersion: 1\n",
    "lab_sampler-1.dist-info/entry_points.txt": "[opentelemetry_traces_sampler]\nLab = lab_sampler:make\n",
}


@pytest.fixture
def sampler_package(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder for PYTHONPATH with an installed package that brings the sampler `Lab`."""
    folder = tmp_path_factory.mktemp("site")
    for name, text in _SAMPLER_PACKAGE.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    return str(folder)


@pytest.mark.parametrize(("argument", "rows"), [("never", 1), ("broken", 0), ("neither", 0)])
def test_an_installed_sampler_is_made_and_asked(tmp_path: Path, sampler_package: str, argument: str, rows: int) -> None:
    """By the SDK's entry points, with its argument; one that cannot be made is an ERROR and harms no request."""
    variables = {"OTEL_TRACES_SAMPLER": "Lab", "OTEL_TRACES_SAMPLER_ARG": argument, "PYTHONPATH": sampler_package}
    said = _run(tmp_path, variables)
    segments = list((tmp_path / "tables" / ".spool").glob("*/slots/*/*.seg"))
    assert len(segments) == rows
    assert said.count("nothing is recorded") == 1 - rows
    assert not any(_SPAN_FACT in segment.read_bytes() for segment in segments)


def test_without_that_sampler_there_is_a_span(tmp_path: Path) -> None:
    """The default one samples a request without a parent, so its span's facts are in the spool."""
    _run(tmp_path, {})
    (segment,) = (tmp_path / "tables" / ".spool").glob("*/slots/*/*.seg")
    assert _SPAN_FACT in segment.read_bytes()


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
