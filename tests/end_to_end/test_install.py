"""`pip install .` and nothing else, in an environment of its own: middleware, sidecar, command line and types."""

import json
import os
import subprocess
import sys
import time
import venv
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

ROOT = Path(__file__).parents[2]
APP = """
from infertap import InferenceMiddleware, annotate

async def answer(scope, receive, send):
    if scope["type"] == "http":
        await receive()
        annotate(arm="b")
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
        await send({"type": "http.response.body", "body": b"done"})

app = InferenceMiddleware(answer)
"""
CONSUMER = """
from infertap import Config, InferenceMiddleware, annotate, start_span

with start_span("step") as span:
    span.set_inputs({"a": 1})
annotate(user="u-1")
config = Config(tables="./tables")
reveal_type(config.tables)
InferenceMiddleware(None, config="not a config")
"""

_START_S_MAX = 180.0

pytestmark = pytest.mark.heavy


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the commands of an environment in which only `pip install .` was run."""
    folder = tmp_path_factory.mktemp("installed") / "venv"
    venv.create(folder, with_pip=True)
    pinned = ("--constraint", str(ROOT / "constraints.txt"))
    subprocess.run([str(folder / "bin" / "pip"), "install", "--quiet", *pinned, str(ROOT)], check=True, timeout=1800)
    return folder / "bin"


@pytest.fixture
def run(
    programs: Path, environment: dict[str, str], tmp_path: Path
) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts a command of that environment in an empty folder; it is stopped at the end."""
    kept = {name: value for name, value in environment.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    with ExitStack() as stack:

        def start(name: str, *arguments: str) -> subprocess.Popen[bytes]:
            log = stack.enter_context((tmp_path / f"{name}.log").open("wb"))
            process = subprocess.Popen(
                [str(programs / name), *arguments], cwd=tmp_path, env=kept, stdout=log, stderr=log
            )
            stack.callback(process.wait)
            stack.callback(process.kill)
            return process

        yield start


def post(url: str) -> httpx.Response:
    """As soon as somebody listens there."""
    deadline = time.monotonic() + _START_S_MAX
    while True:
        try:
            return httpx.post(url, content=b"{}")
        except httpx.ConnectError:
            assert time.monotonic() < deadline
            time.sleep(0.1)


def test_middleware_sidecar_and_command_line_work(
    run: Callable[..., subprocess.Popen[bytes]], programs: Path, tmp_path: Path, free_port: Callable[[], int]
) -> None:
    """The app behind the middleware, and the same behind the sidecar, give rows that `infertap query` shows."""
    (tmp_path / "consumer.py").write_text(APP)
    ports = free_port(), free_port()
    app = run("uvicorn", "--port", str(ports[0]), "consumer:app")
    assert post(f"http://127.0.0.1:{ports[0]}/direct").text == "done"
    upstream = ("--upstream", f"http://127.0.0.1:{ports[0]}")
    sidecar = run("infertap", "serve", *upstream, "--listen", f"127.0.0.1:{ports[1]}", "--admin", "127.0.0.1:0")
    assert post(f"http://127.0.0.1:{ports[1]}/through").text == "done"
    for process in (sidecar, app):
        process.terminate()
        process.wait(180)
    query = "SELECT path, count(*) AS n FROM inference GROUP BY path ORDER BY path"
    command = [str(programs / "infertap"), "query", query, "--format", "jsonl"]
    shown = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=180, check=True)
    found = [json.loads(line) for line in shown.stdout.splitlines()]
    assert found == [{"path": "/direct", "n": 1}, {"path": "/through", "n": 2}]


def test_a_consumer_sees_the_types(programs: Path, tmp_path: Path) -> None:
    """`py.typed` is shipped: mypy knows a setting's type, and finds an argument of the wrong one."""
    source = tmp_path / "consumer.py"
    source.write_text(CONSUMER)
    command = [sys.executable, "-m", "mypy", "--python-executable", str(programs / "python"), "--cache-dir", os.devnull]
    kept = {name: value for name, value in os.environ.items() if name not in ("MYPYPATH", "PYTHONPATH")}
    checked = subprocess.run(
        [*command, str(source)], cwd=tmp_path, env=kept, capture_output=True, text=True, timeout=900, check=False
    )
    assert 'Revealed type is "str' in checked.stdout.replace("builtins.", ""), checked.stdout
    assert 'Argument "config" to "InferenceMiddleware" has incompatible type "str"' in checked.stdout
    assert "import-untyped" not in checked.stdout
