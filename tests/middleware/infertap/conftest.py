"""A file system small enough to be filled."""

import contextlib
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from infertap.spool.folder import SpoolFolder


def _run_or_skip(*command: str) -> None:
    try:
        done = subprocess.run(command, capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip(f"there is no {command[0]}")
    if done.returncode != 0:
        pytest.skip(f"{command[0]} failed: {done.stderr.decode().strip()}")


@pytest.fixture(params=["tmpfs", "ext4"])
def small_disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SpoolFolder]:
    """A prepared folder on a file system of its own, 8 or 20 MB; skips where none can be mounted."""
    mount_point, image = tmp_path / "disk", tmp_path / "image"
    mount_point.mkdir()
    if request.param == "tmpfs":
        _run_or_skip("mount", "-t", "tmpfs", "-o", "size=8m", "infertap-test", str(mount_point))
    else:
        with image.open("wb") as file:
            file.truncate(20 << 20)
        _run_or_skip("mkfs.ext4", "-q", "-F", "-m", "0", str(image))
        _run_or_skip("mount", "-o", "loop", str(image), str(mount_point))
    try:
        folder = SpoolFolder(mount_point / "spool" / "table-0123456789ab")
        folder.prepare({"table": {"uri": "../tables"}})
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(mount_point)], check=True)


@pytest.fixture
def fill_disk(small_disk: SpoolFolder) -> Callable[[int], None]:
    """Fills the small disk until about that many bytes are free."""

    def fill(free_bytes: int) -> None:
        filler = small_disk.path.parent / "filler"
        # Written until it is full: a file system keeps blocks for its own maps, so what it says is free is not.
        with filler.open("wb", buffering=0) as file:
            for block_bytes in (1 << 20, 1 << 12, 1 << 12):
                with contextlib.suppress(OSError):
                    while file.write(bytes(block_bytes)):
                        pass
                # What was written by then has found its place, and what was held for it and not used is free again.
                os.sync()
        if free_bytes:
            os.truncate(filler, filler.stat().st_size - free_bytes)
            os.sync()

    return fill


@pytest.fixture
def free_disk(small_disk: SpoolFolder) -> Callable[[], None]:
    """Undoes `fill_disk`."""
    return (small_disk.path.parent / "filler").unlink
