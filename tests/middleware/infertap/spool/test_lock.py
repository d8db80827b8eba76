"""Locks: one holder, handed down but never shared, and gone with its process."""

import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from infertap.spool.lock import FileLock


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the lock lies."""
    return tmp_path / "lock"


def _take(path: Path) -> FileLock:
    lock = FileLock.try_acquire(path)
    assert lock is not None
    return lock


def test_a_second_lock_of_the_same_process_is_refused(path: Path) -> None:
    """Two middlewares in one process do not share a slot."""
    lock = _take(path)
    assert FileLock.try_acquire(path) is None
    lock.close()
    lock.close()
    _take(path).close()


def test_the_file_is_private_and_keeps_its_content(path: Path) -> None:
    """Taking a lock makes the file with mode 0600, and never truncates it."""
    _take(path).close()
    assert path.stat().st_mode & 0o777 == 0o600
    path.write_text("kept")
    _take(path).close()
    assert path.read_text() == "kept"


def test_a_missing_file_or_folder_is_not_taken(tmp_path: Path) -> None:
    """Where the folder has vanished there is nothing to lock, and nothing is made."""
    assert FileLock.try_acquire(tmp_path / "gone" / "lock") is None
    assert FileLock.try_acquire(tmp_path / "lock", create=False) is None
    assert list(tmp_path.iterdir()) == []


def test_a_lock_on_a_replaced_file_protects_nothing(path: Path) -> None:
    """The holder of a deleted file notices, and somebody else can take the new one."""
    lock = _take(path)
    assert lock.still_there()
    path.unlink()
    assert not lock.still_there()
    other = _take(path)
    assert not lock.still_there()
    lock.close()
    other.close()
    assert not other.still_there()


def test_a_symbolic_link_is_not_followed(tmp_path: Path) -> None:
    """Nobody can point our lock at another file."""
    (tmp_path / "lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError):
        FileLock.try_acquire(tmp_path / "lock")
    assert not (tmp_path / "elsewhere").exists()


def test_a_forked_child_does_not_keep_its_parents_lock(path: Path, start_child: Callable[..., int]) -> None:
    """The parent's close frees the lock although a forked child lives on; and the child's end does not free it."""
    ready, started = os.pipe()
    lock = _take(path)

    def live_on() -> None:
        os.write(started, b"%d" % lock.fileno())
        signal.pause()

    start_child(live_on)
    assert os.read(ready, 9) == b"-1"
    assert FileLock.try_acquire(path) is None
    lock.close()
    _take(path).close()
    os.close(ready)
    os.close(started)


def test_the_lock_of_a_killed_process_is_free(
    path: Path, start_child: Callable[..., int], capfd: pytest.CaptureFixture[str]
) -> None:
    """Kill -9 frees the lock at once."""
    ready, started = os.pipe()

    def hold() -> None:
        _held = _take(path)
        os.write(started, b"!")
        signal.pause()

    pid = start_child(hold)
    assert os.read(ready, 1) == b"!"
    assert FileLock.try_acquire(path) is None
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    _take(path).close()
    os.close(ready)
    os.close(started)


_CHILD = """
import sys
from pathlib import Path
from infertap.spool.lock import FileLock
lock = FileLock.adopt_fd(int(sys.argv[1]), Path(sys.argv[2]))
print(lock is not None, flush=True)
sys.stdin.read()
"""


def test_a_lock_handed_down_stays_held_until_the_child_ends(path: Path) -> None:
    """The lock never becomes free between spawner and child, and no grandchild inherits it."""
    lock = _take(path)
    command = [sys.executable, "-c", _CHILD, str(lock.fileno()), str(path)]
    with subprocess.Popen(
        command, pass_fds=[lock.fileno()], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        lock.close()
        assert FileLock.try_acquire(path) is None
        assert child.stdout is not None
        assert child.stdout.readline() == "True\n"
        assert FileLock.try_acquire(path) is None
    _take(path).close()


def test_a_descriptor_of_another_file_is_not_adopted(path: Path, tmp_path: Path) -> None:
    """A handed-down descriptor counts only if the path names its file."""
    fd = os.open(tmp_path / "other", os.O_RDWR | os.O_CREAT)
    path.touch()
    assert FileLock.adopt_fd(fd, path) is None
    with pytest.raises(OSError):
        fcntl.fcntl(fd, fcntl.F_GETFD)
