"""A spool in a temporary folder, a clock that tests turn, and children that die where a test says."""

import os
import resource
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from infertap.spool.folder import SpoolFolder
from infertap.spool.segment import SegmentWriter
from infertap.spool.writer import SpoolWriter
from infertap.testing import ManualClock


class MinuteClock(ManualClock):
    """Tells the epoch minute, too: what the ledger counts by."""

    @property
    def minute(self) -> int:
        return int(self.now_s // 60)


@pytest.fixture
def clock() -> MinuteClock:
    """A clock that stands still until it is moved."""
    return MinuteClock()


@pytest.fixture
def folder(tmp_path: Path) -> SpoolFolder:
    """A prepared folder."""
    folder = SpoolFolder(tmp_path / "spool" / "table-0123456789ab")
    folder.prepare({"table": {"uri": "../tables"}})
    return folder


@pytest.fixture
def make_writer(folder: SpoolFolder, clock: ManualClock) -> Iterator[Callable[..., SpoolWriter]]:
    """Makes opened writers, closed at the end."""
    writers: list[SpoolWriter] = []

    def make(**settings: Any) -> SpoolWriter:
        writer = SpoolWriter(
            settings.pop("folder", folder),
            {"service_name": "svc", "instance": "i-1", "resource": {"host.name": "h"}},
            identity={"table": {"uri": "../tables"}},
            clock=clock,
            **{"spool_bytes_max": 1 << 30, **settings},
        )
        writers.append(writer)
        writer.open()
        return writer

    yield make
    for writer in writers:
        writer.close()


class KillPoint:
    """A profile function that ends the process with SIGKILL at the n-th entry or exit of a system call."""

    def __init__(self, number: int) -> None:
        self.left = number
        self.passed = 0

    def __call__(self, frame: FrameType, event: str, arg: Any) -> None:
        if event not in ("c_call", "c_return") or getattr(arg, "__module__", None) not in ("posix", "fcntl", "mmap"):
            return
        self.passed += 1
        if self.passed == self.left:
            os.kill(os.getpid(), signal.SIGKILL)


@contextmanager
def forked(work: Callable[[], None]) -> Iterator[int]:
    """Runs `work` in a forked child; gives its pid; kills it at the end if it still runs."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            sys.setprofile(None)
            os._exit(code)
    try:
        yield pid
    finally:
        try:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        except (ProcessLookupError, ChildProcessError):
            pass


@pytest.fixture
def run_child() -> Callable[[Callable[[], None]], int]:
    """Runs a function in a forked child to its end; gives the exit code, negative for a signal."""

    def run(work: Callable[[], None]) -> int:
        with forked(work) as pid:
            _, status = os.waitpid(pid, 0)
        return os.waitstatus_to_exitcode(status)

    return run


@pytest.fixture
def start_child() -> Iterator[Callable[[Callable[[], None]], int]]:
    """Starts a function in a forked child; gives its pid. What still runs at the end of the test is killed."""
    started: list[Any] = []

    def start(work: Callable[[], None]) -> int:
        child = forked(work)
        started.append(child)
        return child.__enter__()

    yield start
    for child in started:
        child.__exit__(None, None, None)


@pytest.fixture
def run_until_killed(run_child: Callable[[Callable[[], None]], int]) -> Callable[[int, Callable[[], None]], bool]:
    """Runs a function in a child that is killed at the given system call; false where it ended before that."""

    def run(number: int, work: Callable[[], None]) -> bool:
        def killed_work() -> None:
            sys.setprofile(KillPoint(number))
            work()

        code = run_child(killed_work)
        assert code in (0, -signal.SIGKILL)
        return code != 0

    return run


@pytest.fixture
def file_bytes_max() -> Callable[[int], AbstractContextManager[None]]:
    """Lets every file of this process end at a size: writes over it are cut short, then refused, as on a full disk."""

    @contextmanager
    def limit(size_bytes: int) -> Iterator[None]:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    return limit


@pytest.fixture
def break_sync() -> Iterator[Callable[[SegmentWriter], None]]:
    """Makes the kernel refuse to sync a segment, by putting a pipe in the place of its file."""

    def break_it(segment: SegmentWriter) -> None:
        reader, writer = os.pipe()
        os.dup2(writer, segment.fileno(), inheritable=False)
        os.close(writer)
        os.set_blocking(reader, False)
        # Left open until the test ends: with no reader, a write would fail before the sync does.
        segment_readers.append(reader)

    segment_readers: list[int] = []
    yield break_it
    for reader in segment_readers:
        os.close(reader)
