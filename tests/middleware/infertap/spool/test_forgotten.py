"""Folders in which records wait for a destination of former times, among those of others."""

from pathlib import Path

from infertap.clock import SystemClock
from infertap.spool.folder import SpoolFolder
from infertap.spool.forgotten import forgotten_folders
from infertap.spool.frames import Kind, pack
from infertap.spool.writer import SpoolWriter


def _left_behind(path: Path) -> Path:
    identity = {"table": {"uri": "../tables"}}
    writer = SpoolWriter(SpoolFolder(path), {}, identity=identity, spool_bytes_max=1 << 30, clock=SystemClock())
    writer.open()
    writer.append([(Kind.REQUEST, pack({"request_time": 1}))], minutes=[0])
    writer.flush()
    writer.close()
    return path


def test_only_what_waits_and_nobody_holds_is_forgotten(tmp_path: Path) -> None:
    """Neither our own folder nor that of a living writer, nor one in which nothing waits."""
    own, former = _left_behind(tmp_path / "table-own"), _left_behind(tmp_path / "otlp-former")
    living = SpoolWriter(
        SpoolFolder(tmp_path / "otlp-living"), {}, identity={}, spool_bytes_max=1 << 30, clock=SystemClock()
    )
    living.open()
    assert list(forgotten_folders([tmp_path, tmp_path / "nowhere"], own=own)) == [former]
    living.close()


def test_a_folder_that_cannot_be_read_hides_no_other_one(tmp_path: Path) -> None:
    """A loop of symbolic links stands for whatever another user has left there."""
    former, broken = _left_behind(tmp_path / "otlp-former"), _left_behind(tmp_path / "otlp-broken")
    (broken / "slots" / "0123456789abcdef").symlink_to("0123456789abcdef")
    assert list(forgotten_folders([tmp_path], own=tmp_path / "own")) == [former]
