"""A process that is not root: what it makes is its own alone; what is somebody else's it neither reads nor judges."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from infertap.clock import SystemClock
from infertap.spool.folder import SpoolFolder
from infertap.spool.slot import Slot

# It becomes another user only after its imports: that user may not be able to read this checkout.
_AS_NOBODY = """
import json, os, sys
from pathlib import Path
from infertap.clock import SystemClock
from infertap.errors import SpoolError
from infertap.spool.folder import SpoolFolder
from infertap.spool.frames import Kind, pack
from infertap.spool.lock import is_locked
from infertap.spool.writer import SpoolWriter

os.setgroups([])
os.setgid(65534)
os.setuid(65534)
os.umask(0)
own, other, lock = SpoolFolder(Path(sys.argv[1])), SpoolFolder(Path(sys.argv[2])), Path(sys.argv[3])

def writer(folder):
    return SpoolWriter(folder, {}, identity={}, spool_bytes_max=1 << 30, clock=SystemClock())

mine = writer(own)
mine.open()
mine.append([(Kind.REQUEST, pack({"request_time": 0}))], minutes=[0])
mine.seal()
try:
    writer(other).open()
    refused = ""
except SpoolError as error:
    refused = str(error)
paths = [own.path.parent, *sorted(own.path.parent.rglob("*"))]
folders = {str(path): oct(path.stat().st_mode & 0o777) for path in paths if path.is_dir()}
files = {str(path): oct(path.stat().st_mode & 0o777) for path in paths if not path.is_dir()}
print(json.dumps({"folders": folders, "files": files, "refused": refused, "locked": is_locked(lock)}))
mine.close()
"""


@pytest.fixture(scope="module")
def as_nobody() -> Iterator[dict[str, Any]]:
    """What `_AS_NOBODY` saw of a folder of its own, of root's folder, and of a lock that root holds."""
    if os.geteuid() != 0:
        pytest.skip("only root can become somebody else")
    # pytest's own temporary folders are closed to others, again and again.
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        root.chmod(0o711)
        (root / "own").mkdir()
        (root / "own").chmod(0o777)
        other = SpoolFolder(root / "root" / "spool" / "table-abc")
        other.prepare({})
        slot = Slot.create(other, SystemClock())
        try:
            yield _run(root / "own" / "spool" / "table-abc", other.path, slot.path / "lock")
        finally:
            slot.close()
            slot.page.close()


def _run(*paths: Path) -> dict[str, Any]:
    command = [sys.executable, "-c", _AS_NOBODY, *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_nobody_else_can_read_what_it_spools(as_nobody: dict[str, Any]) -> None:
    """Folders 0700 and files 0600 although its umask is 0."""
    assert set(as_nobody["folders"].values()) == {"0o700"}
    assert set(as_nobody["files"].values()) == {"0o600"}
    assert any(name.endswith(".seg") for name in as_nobody["files"])


def test_somebody_elses_folder_is_refused_in_words(as_nobody: dict[str, Any]) -> None:
    """An error that the pipeline counts as `spool_unwritable`, and no other one."""
    assert "Permission denied" in as_nobody["refused"]


def test_a_lock_that_cannot_be_opened_is_not_taken_for_free(as_nobody: dict[str, Any]) -> None:
    """Whoever can open it may hold it."""
    assert as_nobody["locked"] is True
