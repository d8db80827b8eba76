"""Real servers in processes of their own, and readers of what they recorded."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

APPS = Path(__file__).parent / "apps"
_START_S_MAX = 120.0
_STOP_S_MAX = 180.0
_ROWS_S_MAX = 90.0


class Process:
    """A server process: its address, its output, its end."""

    def __init__(self, command: list[str], env: dict[str, str], folder: Path, port: int, probe: str | None) -> None:
        self.port = port
        self.folder = folder
        self.output_path = folder / f"output-{port}.txt"
        self._output = self.output_path.open("wb")
        self.process = subprocess.Popen(
            command, env=env, cwd=folder, stdout=self._output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL
        )
        self._probe = probe

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def output(self) -> str:
        return self.output_path.read_text(errors="replace")

    def wait_ready(self) -> None:
        deadline = time.monotonic() + _START_S_MAX
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise AssertionError(f"ended with {self.process.returncode}:\n{self.output}")
            try:
                httpx.get(f"{self.url}{self._probe}", timeout=2)
            except httpx.TransportError:
                time.sleep(0.05)
            else:
                return
        raise AssertionError(f"not ready:\n{self.output}")

    def stop(self, signal_number: int = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal_number)
        try:
            return self.process.wait(_STOP_S_MAX)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise AssertionError(f"did not stop:\n{self.output}") from None
        finally:
            self._output.close()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self._output.close()


@pytest.fixture
def environment() -> dict[str, str]:
    """The environment of a server under test: nothing of the caller's that configures telemetry."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("INFERTAP_", "OTEL_", "MLFLOW_"))}
    # A stop that delivers everything is fast; one that runs out of time on a busy machine would leave rows behind.
    return {**kept, "INFERTAP_COMMIT_INTERVAL_S": "0.5", "INFERTAP_DRAIN_S": "90"}


@pytest.fixture
def start(
    tmp_path: Path, free_port: Callable[[], int], environment: dict[str, str]
) -> Iterator[Callable[..., Process]]:
    """Starts a server: `start("uvicorn", "zoo:recorded", "--workers", "4", env={...})`; stopped at the end."""
    with ExitStack() as stack:

        def run(
            server: str,
            *arguments: str,
            env: dict[str, str] | None = None,
            folder: Path | None = None,
            probe: str | None = "/health",
        ) -> Process:
            port = free_port()
            where = folder or tmp_path
            command = [*_COMMANDS[server](port), *arguments]
            # After the apps, whatever the caller tests: a worktree's sources come before what is installed.
            path = os.pathsep.join(filter(None, (str(APPS), environment.get("PYTHONPATH"))))
            process = Process(command, {**environment, "PYTHONPATH": path, **(env or {})}, where, port, probe)
            stack.callback(process.kill)
            if probe is not None:
                process.wait_ready()
            return process

        yield run


_BIN = Path(sys.executable).parent
_COMMANDS: dict[str, Callable[[int], list[str]]] = {
    "uvicorn": lambda port: [str(_BIN / "uvicorn"), "--port", str(port), "--log-level", "info"],
    "hypercorn": lambda port: [str(_BIN / "hypercorn"), "--bind", f"127.0.0.1:{port}"],
    "granian": lambda port: [str(_BIN / "granian"), "--interface", "asgi", "--port", str(port)],
    "gunicorn": lambda port: [
        str(_BIN / "gunicorn"), "--bind", f"127.0.0.1:{port}", "--worker-class", "uvicorn_worker.UvicornWorker",
        # Its own 30 s are for workers that hang; here they would end workers of a busy machine.
        "--timeout", "300", "--graceful-timeout", "300",
    ],
    "run": lambda port: [str(_BIN / "infertap"), "run", "--", str(_BIN / "uvicorn"), "--port", str(port)],
    "vllm-like": lambda port: [sys.executable, str(APPS / "vllm_like.py"), "--port", str(port)],
    "serve": lambda port: [str(_BIN / "infertap"), "serve", "--listen", f"127.0.0.1:{port}"],
    "collect": lambda port: [str(_BIN / "infertap"), "collect", "--otlp-http", f"127.0.0.1:{port}"],
}  # fmt: skip


@pytest.fixture
def rows(tmp_path: Path) -> Callable[..., list[dict[str, Any]]]:
    """Reads a table by deltalake, waiting for at least `least` rows: `rows("inference", 3)`."""

    def read(table: str = "inference", least: int = 0, folder: Path | None = None) -> list[dict[str, Any]]:
        import deltalake

        path = (folder or tmp_path) / "inference_tables" / table
        deadline = time.monotonic() + _ROWS_S_MAX
        while True:
            found: list[dict[str, Any]] = []
            if deltalake.DeltaTable.is_deltatable(str(path)):
                found = deltalake.DeltaTable(str(path)).to_pyarrow_table().to_pylist()
            if len(found) >= least or time.monotonic() > deadline:
                return found
            time.sleep(0.1)

    return read
