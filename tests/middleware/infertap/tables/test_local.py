"""Local tables are closed to others, and files that must survive are written whole."""

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from infertap.tables.delta import DeltaWriter
from infertap.tables.local import VersionStamp, prepare_folder, settle_newest, write_private
from infertap.targets import TableTarget


def _modes(root: Path) -> dict[str, int]:
    return {str(path.relative_to(root)): stat.S_IMODE(path.stat().st_mode) for path in (root, *root.rglob("*"))}


def test_everything_that_a_commit_makes_is_private(writer: DeltaWriter, target: TableTarget, make_rows) -> None:
    """Folders have mode 0700 and files 0600, whatever the umask is: it is not ours to set in an app's process."""
    old = os.umask(0)
    try:
        writer.commit(writer.encoder.encode(make_rows(3)), {"a1": 1})
    finally:
        os.umask(old)

    root = target.local_path
    assert root is not None
    modes = _modes(root)
    assert any(name.endswith(".parquet") for name in modes)
    assert {name: mode for name, mode in modes.items() if mode != (0o700 if (root / name).is_dir() else 0o600)} == {}


def test_a_root_keeps_itself_out_of_repositories(tmp_path: Path) -> None:
    """The root gets a `.gitignore` for all of it, and one that is there already is left alone."""
    prepare_folder(tmp_path / "new", "inference")
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / ".gitignore").write_text("mine\n")
    prepare_folder(tmp_path / "old", "inference")

    assert (tmp_path / "new" / ".gitignore").read_text() == "*\n"
    assert (tmp_path / "old" / ".gitignore").read_text() == "mine\n"


def test_modes_of_a_root_that_the_user_made_are_not_changed(tmp_path: Path) -> None:
    """A folder that was there keeps its mode; only what is made in it is closed."""
    (tmp_path / "shared").mkdir()
    # Said again: the umask of whoever runs the tests takes from what `mkdir` is told.
    (tmp_path / "shared").chmod(0o755)

    folder = prepare_folder(tmp_path / "shared", "inference")

    assert stat.S_IMODE((tmp_path / "shared").stat().st_mode) == 0o755
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_private_file_replaces_an_old_one_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    """Content is put in place whole: there is no temporary file afterwards."""
    write_private(tmp_path / "f", b"old")
    write_private(tmp_path / "f", b"new")

    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"f": b"new"}
    assert stat.S_IMODE((tmp_path / "f").stat().st_mode) == 0o600


def test_settling_stands_files_that_were_cleaned_up(writer: DeltaWriter, target: TableTarget, make_rows) -> None:
    """Log files behind a checkpoint and compacted data files may be gone."""
    for number in (1, 2):
        writer.commit(writer.encoder.encode(make_rows(1, segment_no=number)), {"a1": number})
    assert target.local_path is not None
    folder = target.local_path / "inference"
    for data_file in folder.rglob("*.parquet"):
        data_file.unlink()
    (folder / "_delta_log" / f"{1:020}.json").unlink()

    settle_newest(folder, 2)


def _traces() -> bool:
    """Whether there is a strace, and it may trace: in many containers it may not."""
    return shutil.which("strace") is not None and not subprocess.run(["strace", "true"], capture_output=True).returncode


@pytest.mark.skipif(not _traces(), reason="strace shows the system calls")
def test_a_commit_is_on_the_disk_before_it_is_reported(tmp_path: Path) -> None:
    """Data file, log file and their folders are fsynced by the commit."""
    program = (
        "import sys\n"
        "from infertap.clock import SystemClock\n"
        "from infertap.tables.delta import DeltaWriter\n"
        "from infertap.tables.schema import LEDGER\n"
        "from infertap.targets import TableTarget\n"
        "writer = DeltaWriter(LEDGER, TableTarget(sys.argv[1]), SystemClock())\n"
        "writer.refresh()\n"
        "writer.commit(writer.encoder.encode([{'date': 1, 'count': 1}]), {'a1': 1})\n"
    )
    trace = tmp_path / "trace"
    command = ["strace", "-f", "-y", "-e", "trace=fsync", "-o", str(trace), sys.executable, "-c", program]

    subprocess.run([*command, str(tmp_path / "root")], check=True, capture_output=True)

    synced = trace.read_text()
    ledger = tmp_path / "root" / "ledger"
    for path in (*ledger.rglob("*.parquet"), ledger / "_delta_log" / f"{1:020}.json", *ledger.glob("date=*"), ledger):
        assert f"<{path}>" in synced


def test_a_folder_that_cannot_be_looked_into_is_no_error_yet(tmp_path: Path) -> None:
    """Whether a later version is there cannot be told: the log is read, and that says what is wrong."""
    log = tmp_path / "_delta_log"
    log.mkdir()
    (log / f"{0:020}.json").write_text("{}")
    stamp = VersionStamp.of(tmp_path, 0)
    assert stamp is not None
    assert stamp.is_newest()
    # A name that no file system takes stands for a share that is away.
    assert not stamp._replace(successor=log / ("x" * 300)).is_newest()
