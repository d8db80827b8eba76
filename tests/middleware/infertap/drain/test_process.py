"""What a drainer does to its own process."""

import subprocess
import sys
from pathlib import Path

import pytest

_CODE = """
import os, sys
from pathlib import Path
from infertap.drain.process import step_back
before = os.nice(0)
step_back(*map(Path, sys.argv[1:]))
print(os.nice(0) - before)
"""


def _steps_back(*own: str, own_session: bool = True) -> int:
    command = [sys.executable, "-c", _CODE, *own]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120, check=True, start_new_session=own_session
    )
    return int(done.stdout)


def test_it_gives_way_inside_its_session_and_to_the_memory_killer(tmp_path: Path) -> None:
    """Niceness, the session's autogroup and the score, each where the kernel keeps it."""
    for name in ("autogroup", "oom_score_adj"):
        (tmp_path / name).write_text("")
    assert _steps_back(str(tmp_path)) == 10
    assert (tmp_path / "autogroup").read_text() == "10"
    assert (tmp_path / "oom_score_adj").read_text() == "500"


def test_the_session_of_a_terminal_is_left_alone(tmp_path: Path) -> None:
    """`infertap drain` gives way, and not all that the user starts from there."""
    (tmp_path / "autogroup").write_text("")
    assert _steps_back(str(tmp_path), own_session=False) == 10
    assert (tmp_path / "autogroup").read_text() == ""


def test_what_the_kernel_does_not_have_is_left_out(tmp_path: Path) -> None:
    """Without autogroups, and on macOS."""
    assert _steps_back(str(tmp_path / "absent")) == 10


@pytest.mark.skipif(not Path("/proc/self/oom_score_adj").exists(), reason="needs Linux")
def test_the_real_files_take_it() -> None:
    """In the kernel's own folder nothing raises."""
    assert _steps_back() == 10
