"""The demo's own processes: started, waited for, and always stopped."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from infertap.config import ENV_PREFIX
from infertap.errors import InfertapError

POLL_S = 0.1
READY_S_MAX = 60.0
STOP_S_MAX = 30.0
LOG_LINES_SHOWN = 20
SERVICE_NAME = "infertap-demo"
"""What the demo's rows say of their service."""


class DemoError(InfertapError):
    """The demo cannot go on; the message is for the person who typed the command."""


@dataclass(frozen=True, slots=True)
class Child:
    """A running process, whose output goes to `log`."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def check(self) -> None:
        """Raises: DemoError with the end of the log, if the process has ended."""
        code = self.process.poll()
        if code is not None:
            raise DemoError(f"the {self.name} ended with exit code {code}:\n{self.log_end()}")

    def log_end(self) -> str:
        """The last lines that the process has written."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-LOG_LINES_SHOWN:])


@contextmanager
def running(name: str, command: Sequence[str], *, log_dir: Path) -> Iterator[Child]:
    """Runs `python -m COMMAND` while the block lasts; ends it with SIGTERM, and with SIGKILL if that takes too long."""
    log = log_dir / f"{name.replace(' ', '_')}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=_environment(),
            # A group of its own: Ctrl-C is ours to answer, in the right order.
            process_group=0,
        )
    try:
        yield Child(name, process, log)
    finally:
        process.terminate()
        try:
            process.wait(STOP_S_MAX)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_until_ready(child: Child, url: str) -> None:
    """Waits until `url` answers 200. Raises: DemoError if the process ends first, or takes too long."""
    deadline = time.monotonic() + READY_S_MAX
    with httpx.Client(trust_env=False, timeout=READY_S_MAX) as client:
        while time.monotonic() < deadline:
            child.check()
            try:
                if client.get(url).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            time.sleep(POLL_S)
    raise DemoError(f"the {child.name} did not answer {url} within {READY_S_MAX:g} s")


@contextmanager
def reserved_port() -> Iterator[int]:
    """A port of 127.0.0.1 for a child to listen on; on Linux, the system gives it to nobody else meanwhile.

    Elsewhere a second socket cannot be bound to it, so there it is only free at this moment.
    """
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", 0))
        port: int = holder.getsockname()[1]
        if sys.platform != "linux":
            holder.close()
        yield port


def _environment() -> dict[str, str]:
    """Ours, without the settings of somebody's real deployment: the demo must not send its rows there."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith((ENV_PREFIX, "OTEL_", "MLFLOW_"))}
    return {**kept, "OTEL_SERVICE_NAME": SERVICE_NAME}
