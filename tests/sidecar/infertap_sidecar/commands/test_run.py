"""`infertap run` with real servers: the unmodified app answers, and its requests are in the spool."""

import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

APP = """
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

async def hello(request):
    return PlainTextResponse("hello")

app = Starlette(routes=[Route("/hello", hello)])

def make():
    return app

def breaks():
    raise TypeError("nothing works today")
"""

OWN_MIDDLEWARE_APP = """
from functools import partial

from infertap import Config, InferenceMiddleware
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

async def echo(request):
    return PlainTextResponse(await request.body())

routes = [Route("/{place}", echo, methods=["POST"])]
config = Config(redact_keys=("iban",), exclude_paths=("/private",))

class Derived(InferenceMiddleware):
    pass

class Hiding:
    def __init__(self, app):
        self._app = app

    async def __call__(self, scope, receive, send):
        await self._app(scope, receive, send)

class Shy(Hiding):
    user_middleware = None

    @property
    def app(self):
        raise RuntimeError("not yet")

def listed():
    app = Starlette(routes=routes)
    app.add_middleware(InferenceMiddleware, config=config)
    return app

def derived():
    app = Starlette(routes=routes)
    app.add_middleware(Derived, config=config)
    return app

def partly():
    app = Starlette(routes=routes)
    app.add_middleware(partial(InferenceMiddleware, config=config))
    return app

def late():
    app = Starlette(routes=routes)
    app.add_middleware(lambda app: InferenceMiddleware(app, config=config))
    return app

def silent():
    app = Starlette(routes=routes)
    app.add_middleware(lambda app: InferenceMiddleware(app, config=Config(destination="none")))
    return app

def around():
    return InferenceMiddleware(Starlette(routes=routes), config=config)

def mounted():
    return Starlette(routes=[Mount("/", around())])

def hidden():
    return Hiding(around())

def shy():
    return Shy(Starlette(routes=routes))
"""

FASTAPI_APP = """
from fastapi import FastAPI

api = FastAPI()

@api.get("/hello")
def hello():
    return "hello"
"""

SERVERS = {
    "uvicorn": ["uvicorn", "app:app", "--port", "PORT"],
    "python -m uvicorn, factory": [sys.executable, "-m", "uvicorn", "--factory", "app:make", "--port", "PORT"],
    "uvicorn, workers": ["uvicorn", "app:app", "--port", "PORT", "--workers", "2"],
    "gunicorn": ["gunicorn", "-k", "uvicorn_worker.UvicornWorker", "-b", "127.0.0.1:PORT", "app:app"],
    "gunicorn, preload": [
        "gunicorn",
        "-k",
        "uvicorn_worker.UvicornWorker",
        "--preload",
        "-b",
        "127.0.0.1:PORT",
        "app:app",
    ],
    "fastapi run": [sys.executable, "-m", "fastapi", "run", "served.py", "--port", "PORT"],
}


def wait_for_answer(url: str, process: subprocess.Popen[bytes]) -> httpx.Response:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert process.poll() is None, "the server ended"
        try:
            return httpx.get(url)
        except httpx.ConnectError:
            time.sleep(0.05)
    raise AssertionError("no answer")


@pytest.mark.parametrize("server", SERVERS)
def test_an_unmodified_app_is_recorded(tmp_path: Path, free_port: Callable[[], int], server: str) -> None:
    """The server starts the app as before, and what it answers is recorded."""
    if server == "fastapi run" and importlib.util.find_spec("fastapi_cli") is None:
        pytest.skip("fastapi-cli is not installed")
    (tmp_path / "app.py").write_text(APP)
    (tmp_path / "served.py").write_text(FASTAPI_APP)
    port = free_port()
    command = [part.replace("PORT", str(port)) for part in SERVERS[server]]
    flags = ["--tables", str(tmp_path / "tables"), "--drainer", "external", "--drain-s", "0"]
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("INFERTAP_", "OTEL_"))}
    process = subprocess.Popen(
        [sys.executable, "-m", "infertap_sidecar", "run", *flags, "--", *command],
        cwd=tmp_path,
        env={**clean, "PYTHONPATH": str(tmp_path)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        assert "hello" in wait_for_answer(f"http://127.0.0.1:{port}/hello", process).text
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=120)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    segments = list(tmp_path.glob("tables/.spool/*/slots/*/*.seg"))
    assert sum(segment.read_bytes().count(b"/hello") > 0 for segment in segments) == 1


@pytest.mark.parametrize("app", ["listed", "derived", "partly", "around", "mounted", "hidden"])
def test_an_app_with_a_middleware_of_its_own_keeps_its_settings(
    tmp_path: Path, free_port: Callable[[], int], app: str
) -> None:
    """What it redacts stays redacted and what it leaves out is left out; its requests are recorded once."""
    told, spooled = _serve_twice(tmp_path, free_port(), app)
    assert spooled.count(b"/public") > 0
    assert (spooled.count(b"/private"), spooled.count(b"DE02")) == (0, 0)
    assert "the app has an InferenceMiddleware of its own" in told
    assert told.count("recording to ") == 1


def test_a_middleware_that_is_made_at_the_start_keeps_its_settings(
    tmp_path: Path, free_port: Callable[[], int]
) -> None:
    """It cannot be seen before: what infertap run has added records nothing then, and says so."""
    told, spooled = _serve_twice(tmp_path, free_port(), "late")
    assert spooled.count(b"/public") > 0
    assert (spooled.count(b"/private"), spooled.count(b"DE02")) == (0, 0)
    assert "the one of infertap run records nothing, the app's own settings count" in told


def test_an_app_that_wants_nothing_recorded_is_heard(tmp_path: Path, free_port: Callable[[], int]) -> None:
    """`destination="none"` in its own middleware, which is made at the start only."""
    told, spooled = _serve_twice(tmp_path, free_port(), "silent")
    assert spooled.count(b"DE02") == 0
    assert "the one of infertap run records nothing, the app's own settings count" in told


def test_an_app_that_does_not_let_itself_be_looked_at_is_wrapped(tmp_path: Path, free_port: Callable[[], int]) -> None:
    """Its attributes are its own matter; it starts, and is recorded."""
    _, spooled = _serve_twice(tmp_path, free_port(), "shy")
    assert spooled.count(b"/private") > 0


def _serve_twice(tmp_path: Path, port: int, app: str) -> tuple[str, bytes]:
    """Two requests with a secret to one of the apps above: what was said, and what is in the spool."""
    (tmp_path / "app.py").write_text(OWN_MIDDLEWARE_APP)
    own = [sys.executable, "-m", "infertap_sidecar", "run", "--drainer", "external", "--drain-s", "0"]
    process = subprocess.Popen(
        [*own, "--", "uvicorn", "--factory", f"app:{app}", "--port", str(port)],
        cwd=tmp_path,
        env={name: value for name, value in os.environ.items() if not name.startswith(("INFERTAP_", "OTEL_"))},
        stderr=subprocess.PIPE,
    )
    try:
        wait_for_answer(f"http://127.0.0.1:{port}/", process)
        for place in ("public", "private"):
            url = f"http://127.0.0.1:{port}/{place}"
            assert httpx.post(url, json={"iban": "DE02"}).text == '{"iban":"DE02"}'
        process.send_signal(signal.SIGTERM)
        told = process.communicate(timeout=120)[1].decode()
    finally:
        process.kill()
        process.wait()
    # Whatever it is called: a middleware that sees no lifespan ends without a word, its segment open.
    return told, b"".join(path.read_bytes() for path in tmp_path.rglob("slots/*/*"))


def test_wrong_settings_start_no_server(tmp_path: Path) -> None:
    """Exit code 2 before the server is run."""
    command = [sys.executable, "-m", "infertap_sidecar", "run", "--content", "half", "--", "uvicorn", "app:app"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120)
    assert result.returncode == 2
    assert "content" in result.stderr


def test_a_program_that_does_not_exist_is_named(tmp_path: Path) -> None:
    """Exit code 1, and the program's name."""
    command = [sys.executable, "-m", "infertap_sidecar", "run", "--", "/nowhere/uvicorn", "app:app"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120)
    assert result.returncode == 1
    assert "/nowhere/uvicorn" in result.stderr


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("uvicorn nowhere:app", 'Error loading ASGI app. Could not import module "nowhere".'),
        ("uvicorn app:missing", 'Attribute "missing" not found in module "app"'),
        ("uvicorn broken:app", "ModuleNotFoundError: No module named 'not_installed'"),
        ("uvicorn --factory app:missing", 'Attribute "missing" not found in module "app"'),
        ("uvicorn --factory app:breaks", "Error loading ASGI app factory: nothing works today"),
        ("uvicorn --factory app:app", "Error loading ASGI app factory: "),
        ("fastapi run", "Could not find a default file to run"),
    ],
)
def test_an_app_that_does_not_load_fails_in_the_servers_own_words(tmp_path: Path, command: str, words: str) -> None:
    """As without infertap, and without a traceback where the server shows none."""
    if command == "fastapi run" and importlib.util.find_spec("fastapi_cli") is None:
        pytest.skip("fastapi-cli is not installed")
    if " app:" in command:
        (tmp_path / "app.py").write_text(APP)
    (tmp_path / "broken.py").write_text("import not_installed\n")
    line = [sys.executable, "-m", "infertap_sidecar", "run", "--", *command.split()]
    result = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)
    assert result.returncode in (1, 3)
    assert words in result.stderr
    assert ("Traceback" in result.stderr) == (command == "uvicorn broken:app")
