"""Starts the drainer as a child process that inherits the lock, so that the folder is never without a holder.

1. Nothing here may make Python leave vfork (`preexec_fn`, `user`, `group`): from a large process a fork stops every
   thread for tens of milliseconds.
2. Credentials go over the pipe, never onto a command line, into the environment or onto a disk.
3. The exit code is never believed: parents that ignore or steal SIGCHLD make it 0. The truth is in `drainer.json`.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from infertap.drain.settings import DrainerSettings
from infertap.spool.folder import SpoolFolder
from infertap.spool.lock import FileLock

CHILD_MARKER = "_INFERTAP_DRAINER_CHILD"
"""Set in every drainer: a frozen app whose `sys.executable` is the app would otherwise start itself for ever."""

_LEFT_OUT = ("PYTHONINSPECT", "PYTHONSTARTUP")
_LEFT_OUT_PREFIXES = ("COV_", "COVERAGE_")


@dataclass(frozen=True, slots=True)
class Interpreter:
    """A Python that can run `-m infertap.drain`."""

    executable: str
    guessed: bool
    """Not the one that runs us: where it never comes up, that is no crash but a wrong guess."""

    @classmethod
    def find(cls) -> "Interpreter | None":
        """The running interpreter; inside uwsgi and the like the one it was built from; None where there is none."""
        if getattr(sys, "frozen", False):
            return None
        if Path(sys.executable or "").name.startswith(("python", "pypy")):
            return cls(sys.executable, guessed=False)
        name = f"python{sys.version_info.major}.{sys.version_info.minor}"
        for prefix in (sys.prefix, sys.base_prefix):
            candidate = Path(prefix) / "bin" / name
            if os.access(candidate, os.X_OK):
                return cls(str(candidate), guessed=True)
        return None

    @property
    def command(self) -> tuple[str, ...]:
        """Without the folder. `-P`: a `queue.py` in the app's working directory must not shadow the library's."""
        return (self.executable, "-P", "-m", "infertap.drain")


@dataclass(frozen=True, slots=True)
class SpawnedDrainer:
    """A child process that this process has to reap."""

    pid: int

    def reap(self) -> bool:
        """Whether it has ended (and no zombie of it is left)."""
        try:
            return os.waitpid(self.pid, os.WNOHANG)[0] != 0
        except ChildProcessError:
            # Somebody else in this process reaped it, or SIGCHLD is ignored; it may also be another's child by now.
            return True

    def kill(self) -> None:
        """Ends it at once; `reap` collects what is left."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)


def spawn_drainer(
    command: Sequence[str], folder: SpoolFolder, settings: DrainerSettings, *, lock: FileLock, nonce: str
) -> SpawnedDrainer:
    """Starts the drainer and hands it a duplicate of the lock; the caller closes its own.

    Raises:
        OSError: No process could be started; the lock has not been handed on.
    """
    payload = json.dumps({"lock_fd": lock.fileno(), "nonce": nonce, "settings": settings.to_json()}).encode()
    errors_fd = _open_error_file(folder)
    try:
        process = subprocess.Popen(
            [*command, str(folder.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=errors_fd,
            env=child_environment(os.environ),
            pass_fds=(lock.fileno(),),
            close_fds=True,
            # Its own session: Ctrl-C in the app's terminal must not reach it.
            start_new_session=True,
        )
    finally:
        os.close(errors_fd)
    # It ends when it wants to, so Popen is not to wait, warn or poll on its own; see `SpawnedDrainer.reap`.
    process.returncode = 0
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write(payload)
        process.stdin.flush()
    with contextlib.suppress(BrokenPipeError):
        process.stdin.close()
    return SpawnedDrainer(process.pid)


def child_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The app's environment without what would trace, measure or hook the drainer.

    Proxy, cloud, certificate and `OTEL_EXPORTER_*` variables stay: rotated token files and workload identity work
    through them.
    """
    kept = {
        name: value
        for name, value in environ.items()
        if name not in _LEFT_OUT and not name.startswith(_LEFT_OUT_PREFIXES)
    }
    if "PYTHONPATH" in kept:
        entries = kept["PYTHONPATH"].split(os.pathsep)
        kept["PYTHONPATH"] = os.pathsep.join(
            entry for entry in entries if not os.path.exists(os.path.join(entry, "sitecustomize.py"))
        )
    kept[CHILD_MARKER] = "1"
    # gRPC's core and delta-rs print failures to standard error, past every logger and every mask.
    kept.setdefault("GRPC_VERBOSITY", "NONE")
    kept.setdefault("RUST_LOG", "off")
    return kept


def _open_error_file(folder: SpoolFolder) -> int:
    """A file, never the app's own stderr: who reads that pipe to its end would wait for the drainer."""
    with contextlib.suppress(OSError):
        if folder.drainer_err.stat().st_size:
            folder.drainer_err.rename(previous_errors(folder))
    return os.open(folder.drainer_err, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)


def previous_errors(folder: SpoolFolder) -> Path:
    """What the drainer before the present one wrote to its stderr."""
    return folder.drainer_err.with_name(folder.drainer_err.name + ".1")
