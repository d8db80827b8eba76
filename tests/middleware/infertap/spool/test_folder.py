"""The tree on the disk: private, complete, and safe to make at any time."""

import os
import stat
from pathlib import Path
from typing import Any

import pytest

from infertap.spool.folder import OPEN, SEALED, SpoolFolder, list_segments, segment_no_of, segment_path
from infertap.spool.jsonfile import read_json, write_json_atomic
from infertap.spool.slot import Slot


def test_everything_is_private_whatever_the_umask_allows(tmp_path: Path, clock: Any) -> None:
    """Folders that we make are 0700, parents included, and files 0600."""
    old = os.umask(0)
    try:
        folder = SpoolFolder(tmp_path / "a" / "b" / "otlp-1")
        folder.prepare({"otlp": {}})
        Slot.create(folder, clock).close()
    finally:
        os.umask(old)
    for path in tmp_path.rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path
    assert (tmp_path / "a" / "b" / ".gitignore").read_text() == "*\n"


def test_prepare_is_safe_to_repeat_and_repairs(folder: SpoolFolder) -> None:
    """What is missing is made again, what is there stays."""
    inode = folder.destination.stat().st_ino
    folder.prepare({"table": {"uri": "../tables"}})
    assert folder.destination.stat().st_ino == inode
    folder.bell.unlink()
    folder.parked_dir.rmdir()
    folder.prepare({"table": {"uri": "elsewhere"}})
    assert folder.parked_dir.is_dir()
    assert stat.S_ISFIFO(folder.bell.stat().st_mode)
    assert read_json(folder.destination) == {"table": {"uri": "elsewhere"}}


def test_the_bell_is_heard_or_says_so(folder: SpoolFolder) -> None:
    """Ringing never blocks, not even with the pipe full, and tells whether somebody listens."""
    assert not folder.ring()
    listener = os.open(folder.bell, os.O_RDWR | os.O_NONBLOCK)
    assert folder.ring()
    assert os.read(listener, 10) == b"!"
    for _ in range(70_000):
        assert folder.ring()
    os.close(listener)
    assert not folder.ring()


def test_segments_are_listed_by_number_and_counted_by_size(folder: SpoolFolder) -> None:
    """Only segments count, and a folder that is gone holds none."""
    slot_dir = folder.slot_dir("aa")
    slot_dir.mkdir()
    for number, suffix in ((10, SEALED), (9, SEALED), (11, OPEN)):
        segment_path(slot_dir, number, suffix).write_bytes(bytes(number))
    (slot_dir / "reserve").write_bytes(bytes(5000))
    folder.slot_dir(".new-bb").mkdir()
    assert [segment_no_of(path) for path in list_segments(slot_dir)] == [9, 10]
    assert [segment_no_of(path) for path in list_segments(slot_dir, OPEN)] == [11]
    assert folder.slot_ids() == ["aa"]
    assert folder.size_bytes() == 30
    gone = SpoolFolder(folder.path / "gone")
    assert (gone.slot_ids(), gone.size_bytes(), list_segments(gone.slot_dir("x")), gone.ring()) == ([], 0, [], False)


def test_a_state_file_is_whole_or_untouched(tmp_path: Path) -> None:
    """A write that fails leaves the old content and no litter; what is no JSON map reads as nothing."""
    path = tmp_path / "state.json"
    assert read_json(path) is None
    write_json_atomic(path, {"a": 1})
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(TypeError):
        write_json_atomic(path, {"a": object()})
    assert read_json(path) == {"a": 1}
    path.write_text("[1")
    assert read_json(path) is None
    path.write_text("[1]")
    assert read_json(path) is None
    assert [entry.name for entry in tmp_path.iterdir()] == ["state.json"]
