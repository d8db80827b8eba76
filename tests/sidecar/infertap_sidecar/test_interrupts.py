"""Ctrl-C: no traceback whenever it comes, and at once also while the engine works."""

import os
import signal
import subprocess
import sys
from pathlib import Path

ENDLESS = "SELECT count(*) FROM generate_series(1, 100000000000)"


def interrupted(command: list[str], folder: Path, *, once_it_says: str) -> subprocess.CompletedProcess[str]:
    """Runs the command, and sends SIGINT as soon as its standard output says so."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("INFERTAP_", "OTEL_"))}
    process = subprocess.Popen(
        command, cwd=folder, env=clean, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )  # fmt: skip
    assert process.stdout is not None
    for line in process.stdout:
        if once_it_says in line:
            break
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    return subprocess.CompletedProcess(command, process.returncode, output, errors)


def test_during_the_imports_it_is_one_line_and_130(tmp_path: Path) -> None:
    """The first import that takes time is under `main`'s guard."""
    code = (
        "import os, signal, sys\n"
        "class Interrupting:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'infertap': os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Interrupting())\n"
        "from infertap_sidecar.cli import main\n"
        "sys.exit(main(['doctor']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stderr) == (130, "infertap doctor: interrupted\n")


def test_a_query_under_way_ends_at_once(tmp_path: Path) -> None:
    """The engine would go on for hours; a shell shows a death by SIGINT as 130."""
    code = (
        "import sys\n"
        "from infertap.tables import query as module\n"
        "execute = module._execute\n"
        "def announced(*arguments): print('asking', flush=True); return execute(*arguments)\n"
        "module._execute = announced\n"
        "from infertap_sidecar.cli import main\n"
        f"sys.exit(main(['query', {ENDLESS!r}]))"
    )
    done = interrupted([sys.executable, "-c", code], tmp_path, once_it_says="asking")
    assert done.returncode in (-signal.SIGINT, 130)
    assert done.stderr in ("", "infertap query: interrupted\n")


def test_a_shell_sees_130(tmp_path: Path) -> None:
    """A death by SIGINT is what shells call 130."""
    code = (
        "import os, signal, sys; from infertap_sidecar.interrupts import ctrl_c_ends_the_process\n"
        "with ctrl_c_ends_the_process(): os.kill(os.getpid(), signal.SIGINT)"
    )
    done = subprocess.run(
        ["sh", "-c", f'"{sys.executable}" -c "$0"; exit $?', code], cwd=tmp_path, capture_output=True, check=False
    )
    assert done.returncode == 130
