"""The ledger page: exact across processes, and never a way to kill or to miscount."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from infertap.errors import SpoolError
from infertap.record import LossCause
from infertap.spool.boot import boot_id
from infertap.spool.folder import SpoolFolder
from infertap.spool.page import FINISHED, KEPT, LOST, PAGE_BYTES, SEEN, Page, PageView, mark_adopted


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the page lies."""
    return tmp_path / "page"


def _create(path: Path) -> Page:
    return Page.create(path, started_ns=7, boot_id=boot_id())


def test_another_process_reads_what_was_counted(path: Path, run_child: Callable[..., int]) -> None:
    """A view shows the counters of a living owner, without a flush."""
    page = _create(path)
    page.counters[SEEN] += 3
    page.counters[FINISHED] += 2
    page.counters[LOST[LossCause.QUEUE_FULL]] += 1

    def look() -> None:
        view = PageView.read(path)
        assert (view.seen, view.finished, view.kept, view.started_ns, view.boot_id) == (3, 2, 0, 7, boot_id())
        assert {cause: count for cause, count in view.lost.items() if count} == {LossCause.QUEUE_FULL: 1}

    assert run_child(look) == 0
    assert path.stat().st_mode & 0o777 == 0o600


def test_counts_survive_a_killed_owner(path: Path, start_child: Callable[..., int]) -> None:
    """What was counted before kill -9 is in the file."""
    ready, started = os.pipe()

    def count() -> None:
        page = _create(path)
        for _ in range(1000):
            page.counters[SEEN] += 1
        os.write(started, b"!")
        signal.pause()

    pid = start_child(count)
    assert os.read(ready, 1) == b"!"
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert PageView.read(path).seen == 1000
    os.close(ready)
    os.close(started)


def test_a_forked_child_cannot_count_into_its_parents_page(path: Path, run_child: Callable[..., int]) -> None:
    """Counters that a child inherited raise instead of counting for the parent."""
    page = _create(path)

    def count() -> None:
        with pytest.raises(ValueError, match="released"):
            page.counters[SEEN] += 1

    assert run_child(count) == 0
    page.counters[SEEN] += 1
    assert PageView.read(path).seen == 1


def test_no_store_meets_a_full_disk(
    small_disk: SpoolFolder, fill_disk: Callable[[int], None], run_child: Callable[..., int]
) -> None:
    """A page that has no block is an error at its making; a store into a hole would kill the process by SIGBUS."""
    fill_disk(0)

    def make() -> None:
        with pytest.raises(OSError):
            _create(small_disk.path / "page")

    assert run_child(make) == 0


def test_closing_twice_is_closing_once(path: Path) -> None:
    """Whoever still counts gets ValueError."""
    page = _create(path)
    page.close()
    page.close()
    with pytest.raises(ValueError, match="released"):
        page.counters[SEEN] += 1


@pytest.mark.parametrize("content", [None, b"", b"ITPAGE1\0", bytes(PAGE_BYTES), b"x" * PAGE_BYTES])
def test_what_is_no_page_is_an_error(path: Path, content: bytes | None) -> None:
    """Missing, short and foreign files raise SpoolError and never SIGBUS."""
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SpoolError):
        PageView.read(path)


def test_adoption_is_marked_and_nothing_else_changes(path: Path) -> None:
    """The adopter's mark is its own counter."""
    page = _create(path)
    page.counters[KEPT] = 5
    before = PageView.read(path)
    mark_adopted(path)
    after = PageView.read(path)
    assert (before.adopted, after.adopted, after.kept) == (False, True, 5)


def test_a_page_of_an_older_version_reads_on(path: Path) -> None:
    """Counters that it did not know are 0; those that it knew keep their places."""
    page = _create(path)
    page.counters[SEEN], page.counters[KEPT] = 7, 5
    page.close()
    words = memoryview(bytearray(path.read_bytes())).cast("Q")
    assert [number for number in range(5, len(words)) if words[number]] == [8, 24]
    view = PageView.read(path)
    assert (view.seen, view.kept) == (7, 5)
    assert view.spans_dropped == view.background_failures == view.capture_failures == 0


def test_a_page_in_memory_counts_alike() -> None:
    """Without a slot the counters still work."""
    page = Page.in_memory(started_ns=1, boot_id=boot_id())
    page.counters[SEEN] += 1
    assert page.counters[SEEN] == 1
    page.close()
