"""Windows is refused in one sentence, before anything that is not there can fail."""

import subprocess
import sys

import pytest

from infertap.supported import require_supported

_ON_WINDOWS = """
import os, sys
sys.platform = "win32"
for name in ("fcntl", "pwd", "grp", "resource"):
    sys.modules[name] = None
del os.register_at_fork, os.sched_yield
"""


@pytest.mark.parametrize("platform", ["linux", "darwin", "freebsd14"])
def test_unix_is_let_in(platform: str) -> None:
    """Nothing is said."""
    require_supported(platform)


@pytest.mark.parametrize("platform", ["win32", "cygwin"])
def test_windows_is_refused(platform: str) -> None:
    """The error is an ImportError, so that `try: import infertap` goes on working."""
    with pytest.raises(ImportError, match=r"^infertap runs on Linux and macOS, not on Windows: .*\.$"):
        require_supported(platform)


def test_an_import_where_unix_is_missing_says_that_sentence() -> None:
    """Not what Windows lacks (`fcntl`, `os.register_at_fork`)."""
    done = _python(f"{_ON_WINDOWS}\nimport infertap")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("ImportError: infertap runs on Linux and macOS")


@pytest.mark.parametrize("command", ["serve", "--version"])
def test_the_command_line_says_it_without_a_traceback(command: str) -> None:
    """Exit code 2, one line."""
    done = _python(f"{_ON_WINDOWS}\nfrom infertap_sidecar.cli import main\nsys.exit(main([{command!r}]))")
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("infertap runs on Linux and macOS")


def _python(code: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
