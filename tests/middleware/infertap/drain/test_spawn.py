"""Starting the drainer's process: its environment, its inheritance, and what it does when the start is cut short."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from infertap.drain.spawn import CHILD_MARKER, Interpreter, child_environment, spawn_drainer
from infertap.spool.lock import FileLock

MODULE = (sys.executable, "-P", "-m", "infertap.drain")


def test_the_environment_keeps_clouds_and_drops_hooks(tmp_path: Path) -> None:
    """Credentials' variables stay; what would trace or measure the drainer does not."""
    hooked = tmp_path / "hooked"
    hooked.mkdir()
    (hooked / "sitecustomize.py").write_text("")
    environ = {
        "AWS_PROFILE": "prod",
        "HTTPS_PROXY": "http://proxy",
        "OTEL_EXPORTER_OTLP_CERTIFICATE": "ca.pem",
        "PYTHONPATH": os.pathsep.join(["/libs", str(hooked)]),
        "PYTHONINSPECT": "1",
        "PYTHONSTARTUP": "x.py",
        "COV_CORE_SOURCE": "x",
        "COVERAGE_PROCESS_START": "x",
    }
    assert child_environment(environ) == {
        "AWS_PROFILE": "prod",
        "HTTPS_PROXY": "http://proxy",
        "OTEL_EXPORTER_OTLP_CERTIFICATE": "ca.pem",
        "PYTHONPATH": "/libs",
        CHILD_MARKER: "1",
        "GRPC_VERBOSITY": "NONE",
        "RUST_LOG": "off",
    }


def test_the_running_interpreter_is_used() -> None:
    """Nothing is guessed where Python runs us."""
    interpreter = Interpreter.find()
    assert interpreter is not None
    assert interpreter.command == MODULE
    assert not interpreter.guessed


def test_an_embedded_python_finds_the_one_it_came_from(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under uwsgi `sys.executable` is the server, which must not be started again as a drainer."""
    monkeypatch.setattr(sys, "executable", "/usr/bin/uwsgi")
    interpreter = Interpreter.find()
    assert interpreter is not None
    assert interpreter.guessed
    assert Path(interpreter.executable).name.startswith("python")


def test_a_frozen_app_has_no_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Starting `sys.executable` would start the app itself."""
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    assert Interpreter.find() is None


@pytest.mark.parametrize("order", ["", '{"lock_fd": 3', '{"lock_fd": 0, "nonce": "x"}', "[1]"])
def test_a_start_that_was_cut_short_ends_quietly(bench: Any, order: str) -> None:
    """The spawner died while it wrote: no drainer, no lock, no traceback, and exit code 0."""
    ended = subprocess.run(
        [*MODULE, str(bench.folder.path)], input=order.encode(), capture_output=True, timeout=120, check=False
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, b"", b"")
    assert bench.is_drained_by_nobody()


def test_a_module_in_the_working_directory_shadows_nothing(bench: Any, tmp_path: Path) -> None:
    """An app beside a file called `queue.py` still gets a drainer."""
    (tmp_path / "queue.py").write_text("raise RuntimeError('the app has its own queue')")
    ended = subprocess.run([*MODULE, str(bench.folder.path)], cwd=tmp_path, input=b"", capture_output=True, timeout=120)
    assert (ended.returncode, ended.stderr) == (0, b"")


def test_an_unexpected_error_exits_with_0(bench: Any, wait_for: Callable[..., Any]) -> None:
    """Old servers stop on other codes; what happened is in the log and in `drainer.json`."""
    bench.folder.drainer_state.write_text(json.dumps({"state": "starting", "nonce": "n"}))
    lock = FileLock.try_acquire(bench.folder.drainer_lock)
    assert lock is not None
    broken = bench.settings()
    command = (sys.executable, "-P", "-c", f"{_BROKEN}\nmain(sys.argv[1:], build=build)")
    child = spawn_drainer(command, bench.folder, broken, lock=lock, nonce="n")
    lock.close()
    _, status = os.waitpid(child.pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert bench.state().pid == child.pid
    assert "the destination cannot be built" in bench.folder.drainer_log.read_text()
    assert bench.is_drained_by_nobody()


_BROKEN = """
import sys
from infertap.drain.__main__ import main
def build(settings):
    raise BaseException("the destination cannot be built")
"""


def test_it_gives_way_to_the_app(bench: Any, wait_for: Callable[..., Any]) -> None:
    """Low priority, first to go when memory runs out, its own session, and of the app's descriptors only the lock."""
    owner = bench.owner()
    pid = wait_for(lambda: bench.state().phase == "running" and bench.state().pid)
    proc = Path(f"/proc/{pid}")
    fields = (proc / "stat").read_text().rpartition(")")[2].split()
    assert int(fields[16]) == min(19, os.nice(0) + 10)
    assert int(fields[3]) == pid
    # A pod that asked for no memory begins at 1000, below which only root may go.
    assert int((proc / "oom_score_adj").read_text()) >= 500
    assert owner.slot not in {target.name for target in _open_files(proc)}
    assert bench.folder.drainer_lock in _open_files(proc)
    assert (proc / "cmdline").read_bytes().split(b"\0")[-2] == str(bench.folder.path).encode()


def test_the_owners_side_is_light() -> None:
    """Importing the election loads no Arrow, Delta, gRPC or exporter: those stay out of the app's process."""
    script = (
        "import sys, infertap.drain.election, infertap.drain.thread\n"
        "heavy = ('deltalake', 'arro3', 'grpc', 'google.protobuf', 'opentelemetry.exporter')\n"
        "sys.exit(str([name for name in sys.modules if name.startswith(heavy)] or ''))"
    )
    ended = subprocess.run([sys.executable, "-P", "-c", script], capture_output=True, text=True, timeout=120)
    assert ended.stderr.strip() == ""


def _open_files(proc: Path) -> set[Path]:
    targets = set()
    for link in (proc / "fd").iterdir():
        try:
            targets.add(link.readlink())
        except FileNotFoundError:
            continue
    return targets
