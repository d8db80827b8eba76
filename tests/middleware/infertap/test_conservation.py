"""Every request ends in exactly one count, whatever fails at whichever border: seen = recorded + lost, by cause.

A real pipeline on a real folder; what fails is the operating system, the memory, the app's own hooks, and the folder.
"""

import errno
import os
import random
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ormsgpack
import pytest

from infertap import Config
from infertap.build import build_pipeline
from infertap.capture import Capture, CaptureLimits, snapshot
from infertap.choice import choose
from infertap.events import EventLog
from infertap.handover import Fate, SpanBatch
from infertap.otel_env import OtelEnvironment
from infertap.pipeline import Pipeline
from infertap.record import LossCause, OfferedSpan, SpanRecord
from infertap.spool.folder import SpoolFolder, list_segments
from infertap.spool.page import FINISHED, KEPT, LEDGERED, LOST, SEEN
from infertap.spool.reader import read_segment
from infertap.spool.recovery import adopt
from infertap.trace import ServerSpan
from infertap.trace_context import random_bits

_NOW_NS = 1_700_000_000_000_000_000
_CALLS = (
    "open", "write", "writev", "fdatasync", "fsync", "ftruncate", "truncate", "posix_fallocate",
    "mkdir", "rename", "unlink", "stat", "fstat",
)  # fmt: skip
_FAILURES: tuple[Callable[[], BaseException], ...] = (
    lambda: OSError(errno.ENOSPC, "No space left on device"),
    lambda: OSError(errno.EIO, "Input/output error"),
    lambda: OSError(errno.EACCES, "Permission denied"),
    MemoryError,
)


class Books:
    """A pipeline that a test drives by hand, and what is found of its requests in the end."""

    def __init__(self, tmp_path: Path) -> None:
        config = Config(
            tables=str(tmp_path / "tables"),
            destination="table",
            drainer="external",
            drain_s=0,
            segment_bytes_max="8KiB",
            queue_bytes_max="256KiB",
        )
        choice = choose(config, OtelEnvironment.read({}), cwd=tmp_path)
        self.folder = SpoolFolder(choice.folder)
        self.pipeline = build_pipeline(config, choice, EventLog(), receives=True)
        self.submitted = 0
        self.rows: list[str] = []
        self.counts: Counter[str] = Counter()
        self.fates: list[Fate] = []

    def submit(self, count: int, body: bytes = b"{}") -> None:
        """Requests as the event loop hands them over."""
        for _ in range(count):
            _submit(self.pipeline, body)
            self.submitted += 1

    def hand_over(self, count: int, *, deaf: bool = False) -> None:
        """Requests as a receiver hands them over; a deaf sender cannot be told what became of them."""

        def settled(fates: Any) -> None:
            self.fates += fates
            if deaf:
                raise RuntimeError("the sender has left")

        batch = SpanBatch([OfferedSpan(_Handed(), True) for _ in range(count)], settled)
        if self.pipeline.submit_batch(batch):
            self.submitted += count

    def archive(self) -> None:
        """Take note of all that is sealed, as a drainer does, before the folder goes."""
        for spool_id in self.folder.slot_ids():
            last: dict[tuple[str, str], int] = {}
            for path in list_segments(self.folder.slot_dir(spool_id)):
                segment = read_segment(path)
                assert segment.damaged == 0
                self.rows += [request["request_id"] for request in segment.requests]
                for frame in segment.ledger:
                    for minute, outcomes in frame["minutes"].items():
                        last |= {(minute, outcome): count for outcome, count in outcomes.items()}
            for (_, outcome), count in last.items():
                self.counts[outcome] += count

    def vanish(self) -> None:
        """Somebody removes the whole spool folder."""
        self.archive()
        shutil.rmtree(self.folder.path, ignore_errors=True)

    def end(self) -> Counter[int]:
        """Stop, adopt what is left as a drainer does, and give what the owner says of it all."""
        worker = self.pipeline.worker
        totals: list[Counter[int]] = []
        close = worker.writer.close
        worker.writer.close = lambda: (totals.append(worker.writer.totals()), close())  # type: ignore[func-returns-value]
        worker.stop()
        worker.run()
        for spool_id in self.folder.slot_ids():
            slot = adopt(self.folder, spool_id)
            assert slot is not None
            slot.close()
        self.archive()
        return totals[0]


class _Handed:
    """A finished span of another process, which stands for a request."""

    held_bytes = 100
    start_ns = _NOW_NS

    def raw(self) -> SpanRecord:
        attributes = {"input.value": '{"q": 1}', "output.value": '{"a": 2}'}
        return SpanRecord(
            f"{random_bits(128):032x}", f"{random_bits(64) or 1:016x}", None, "predict", "SERVER",
            _NOW_NS, _NOW_NS + 1, attributes=attributes,
        )  # fmt: skip


def _submit(pipeline: Pipeline, body: bytes) -> None:
    bits = random_bits(256)
    scope = snapshot({"method": "POST", "path": "/x", "headers": []})
    span = ServerSpan(pipeline, None, None, bits, pipeline.trace.pure, _NOW_NS)
    capture = Capture(scope, (), CaptureLimits(pipeline.budget, 1 << 20), span, 0, 0)
    capture.received({"type": "http.request", "body": body})
    pipeline.began()
    pipeline.submit(capture.close(duration_ns=1, route=None))


def _check(books: Books, said: Counter[int]) -> None:
    """Each request is a row or in one count, never both, and the owner knew it without help from an adopter."""
    lost = Counter({outcome: count for outcome, count in books.counts.items() if outcome.startswith("lost/")})
    assert len(set(books.rows)) == len(books.rows)
    assert books.counts["seen"] == books.submitted
    assert books.counts["kept"] == len(books.rows)
    assert len(books.rows) + lost.total() == books.submitted
    assert {f"lost/{cause}": said[index] for cause, index in LOST.items() if said[index]} == dict(lost)
    assert said[KEPT] == len(books.rows)
    assert books.pipeline.budget.held == 0
    assert books.pipeline.inbox.span_bytes == 0


@pytest.fixture
def books(tmp_path: Path) -> Books:
    """A pipeline that nobody has started."""
    books = Books(tmp_path)
    worker = books.pipeline.worker
    worker._open()
    return books


@contextmanager
def _failing(monkeypatch: pytest.MonkeyPatch, rng: random.Random) -> Iterator[None]:
    """The operating system fails at one call, or from one call on, in any of the ways that it has."""
    fail_at, for_good, failure = rng.randrange(30), rng.random() < 0.3, rng.choice(_FAILURES)
    passed = 0

    def wrapped(real: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal passed
            passed += 1
            if passed - 1 == fail_at or (for_good and passed > fail_at):
                raise failure()
            return real(*args, **kwargs)

        return call

    with monkeypatch.context() as patch:
        for name in _CALLS:
            patch.setattr(os, name, wrapped(getattr(os, name)))
        yield


def _no_memory(*_args: Any, **_kwargs: Any) -> Any:
    raise MemoryError


@pytest.mark.parametrize("seed", range(40))
def test_the_books_balance_whatever_fails(books: Books, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """Random requests, and at each border random failures: of the disk, of memory, of senders, of the folder itself."""
    rng = random.Random(seed)
    worker = books.pipeline.worker
    for _ in range(30):
        body = b'{"text": "%s"}' % (b"x" * rng.choice((0, 100, 3_000, 20_000)))
        rng.choice((books.submit, books.submit, books.hand_over))(rng.randrange(1, 6))
        books.submit(rng.randrange(3), body)
        if rng.random() < 0.1:
            books.hand_over(2, deaf=True)
        step = rng.choice((worker.spool_queue, worker.spool_queue, worker._tick))
        match rng.randrange(8):
            case 0 | 1 | 2:
                with _failing(monkeypatch, rng):
                    worker._try(step)
            case 3:
                with monkeypatch.context() as patch:
                    patch.setattr(ormsgpack, "packb", _no_memory)
                    worker._try(step)
            case 4:
                with monkeypatch.context() as patch:
                    patch.setattr(worker.writer, "append", _no_memory)
                    worker._try(step)
            case 5:
                books.vanish()
                worker._try(step)
            case _:
                worker._try(step)
    _check(books, books.end())


@pytest.mark.parametrize("place", ["append", "_journal.write"])
def test_the_last_group_of_a_stop_is_counted_where_no_memory_is_left(
    books: Books, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """Its requests are `worker_error`, not `crash_in_flight` of a process that never crashed.

    How many make up that group is the worker's matter: a slow machine lets it write a first group earlier.
    """
    books.submit(100)
    writer = books.pipeline.worker.writer
    owner, name = (writer, place) if "." not in place else (writer._journal, place.partition(".")[2])
    real = getattr(owner, name)

    def fails_once(*_args: Any, **_kwargs: Any) -> Any:
        monkeypatch.setattr(owner, name, real)
        raise MemoryError

    monkeypatch.setattr(owner, name, fails_once)
    said = books.end()
    assert said[LOST[LossCause.WORKER_ERROR]] == 100 - len(books.rows) > 0
    _check(books, said)


def test_requests_that_end_while_a_stop_waits_are_counted(books: Books) -> None:
    """Nobody spools them any more; they are `stop_deadline`."""
    books.submit(5)
    delivery = books.pipeline.worker.delivery
    wait = delivery.flush_and_wait

    def slow(*args: Any, **kwargs: Any) -> Any:
        books.submit(3)
        return wait(*args, **kwargs)

    delivery.flush_and_wait = slow  # type: ignore[method-assign]
    said = books.end()
    assert (said[KEPT], said[LOST[LossCause.STOP_DEADLINE]]) == (5, 3)
    _check(books, said)


def test_a_folder_that_vanishes_under_load_loses_no_count(tmp_path: Path) -> None:
    """The event loop goes on counting while the worker changes pages: the last page knows all that is in flight."""
    books = Books(tmp_path)
    books.pipeline.start()
    books.pipeline.wait_ready()
    ended = threading.Event()

    def load() -> None:
        while not ended.is_set() and books.submitted < 20_000:
            _submit(books.pipeline, b"{}")
            books.submitted += 1

    thread = threading.Thread(target=load)
    thread.start()
    known: set[str] = set()
    for _ in range(5):
        while not (fresh := set(books.folder.slot_ids()) - known) and thread.is_alive():
            time.sleep(0.001)
        known |= fresh
        for spool_id in fresh:
            shutil.rmtree(books.folder.slot_dir(spool_id), ignore_errors=True)
    ended.set()
    thread.join()
    last = books.pipeline.worker.writer
    books.pipeline.stop()
    assert last.counters[SEEN] == last.counters[FINISHED] == last.counters[LEDGERED]
    assert last.totals().total() == books.submitted
