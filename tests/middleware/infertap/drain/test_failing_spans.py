"""A drainer in front of a real OTLP receiver that fails on one span: nothing behind it waits, and it is parked."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from infertap.clock import Clock, SystemClock
from infertap.destinations.otlp import OtlpDestination
from infertap.drain.end import End
from infertap.drain.loop import Drainer, Stop
from infertap.drain.reading import Reading
from infertap.drain.settings import DrainerSettings
from infertap.drain.slots import SegmentFile
from infertap.drain.state import DestinationStatus, DrainerState
from infertap.record import InferenceRecord, ServerSpanFacts
from infertap.spool.folder import list_segments
from infertap.spool.frames import Kind, pack
from infertap.spool.lock import FileLock
from infertap.spool.writer import SpoolWriter
from infertap.targets import OtlpTarget, Targets

WaitFor = Callable[..., Any]
FAILING = {"http_status": 500, "only_for_span": "poison"}


class FastClock:
    """Two minutes a second: back-off and patience are minutes, tests are not."""

    def wall_ns(self) -> int:
        return time.time_ns()

    def monotonic_s(self) -> float:
        return 120 * time.monotonic()


class OneSlot:
    """One owner's slot, the receiver it is meant for, and the drainers in between."""

    def __init__(self, bench: Any, receiver: Any) -> None:
        self.folder = bench.folder
        endpoint = f"http://127.0.0.1:{receiver.http_port}/v1/traces"
        self._target = OtlpTarget(endpoint, "http/protobuf", timeout_s=20.0)
        self.settings = DrainerSettings(
            folder=self.folder.path, targets=Targets(table=None, otlp=self._target), commit_interval_s=5.0,
            linger_s=0.1, drain_s=100_000.0,
        )  # fmt: skip
        self.writer = SpoolWriter(
            self.folder, {"service_name": "svc"}, identity={}, spool_bytes_max=1 << 40, clock=SystemClock()
        )
        self.writer.open()
        self._count = 0
        self.ends: list[End] = []

    def add(self, *names: str | None) -> None:
        """One sealed segment, one request for each name of a span."""
        frames = [(Kind.REQUEST, pack(_request(self._count + n, name))) for n, name in enumerate(names)]
        self._count += len(names)
        self.writer.append(frames, minutes=[0] * len(frames))
        self.writer.flush()
        self.writer.seal()
        self.folder.ring()

    def drain(self, *, clock: Clock | None = None, batch_bytes_max: int | None = None) -> tuple[threading.Thread, Stop]:
        """A drainer in a thread of this process, with nothing learned."""
        clock = clock or FastClock()
        lock = FileLock.try_acquire(self.folder.drainer_lock)
        assert lock is not None
        stop = Stop(self.folder)
        destination = OtlpDestination(self._target, clock=clock, batch_bytes_max=batch_bytes_max)
        destination.open()
        state = DrainerState.load(self.folder.drainer_state)
        drainer = Drainer(self.settings, [destination], clock, lock=lock, state=state, stop=stop)
        thread = threading.Thread(target=lambda: self.ends.append(drainer.run()), daemon=True)
        thread.start()
        return thread, stop

    @property
    def status(self) -> DestinationStatus:
        """What `drainer.json` says of the destination."""
        state = DrainerState.load(self.folder.drainer_state)
        return state.destinations.get("otlp", DestinationStatus())

    @property
    def counts(self) -> dict[str, int]:
        """What the drainers have counted so far."""
        return dict(self.status.counts)


def _request(number: int, name: str | None) -> dict[str, Any]:
    span_id = f"{number + 1:016x}"
    facts = ServerSpanFacts(
        kind="SERVER", span_id=span_id, parent_span_id=None, trace_state="", trace_flags=1, http_version="1.1",
        scheme="http", root_path="", server=None, client=None, headers=[], response_headers=[], name=name,
    )  # fmt: skip
    return InferenceRecord(
        f"id-{number}", 0, status_code=200, trace_id="4bf92f3577b34da6a3ce929d0e0e4736", span_id=span_id,
        method="POST", path="/p", duration_ns=1, span=facts,
    ).to_payload()  # fmt: skip


@pytest.fixture
def slot(bench: Any, otlp_receiver: Any) -> Iterator[OneSlot]:
    slot = OneSlot(bench, otlp_receiver)
    yield slot
    slot.writer.close()


def _numbers(receiver: Any) -> list[int]:
    return sorted(int(span["span_id"], 16) - 1 for span in receiver.spans)


def test_the_others_arrive_and_the_bad_one_is_parked(slot: OneSlot, otlp_receiver: Any, wait_for: WaitFor) -> None:
    """One bad span among 500: the others arrive once, what comes later does not wait, the bad one ends in `parked/`."""
    otlp_receiver.behave(**FAILING)
    slot.add(*("poison" if number == 250 else None for number in range(501)))
    thread, _ = slot.drain()
    wait_for(lambda: len(_numbers(otlp_receiver)) == 500, 60.0)
    deadline_s = time.monotonic() + 60
    while not list(slot.folder.parked_dir.glob("otlp-receiver-*.jsonl")):
        assert time.monotonic() < deadline_s
        before = len(_numbers(otlp_receiver))
        slot.add(None)
        wait_for(lambda before=before: len(_numbers(otlp_receiver)) == before + 1, 60.0)
    slot.writer.close()
    thread.join(60)
    assert slot.ends == [End.IDLE]
    (parked,) = slot.folder.parked_dir.glob("*.jsonl")
    (line,) = [json.loads(line) for line in parked.read_text().splitlines()]
    assert (line["destination"], line["row"]["request_id"]) == ("otlp", "id-250")
    numbers = _numbers(otlp_receiver)
    assert numbers == [number for number in range(numbers[-1] + 1) if number != 250], "each once"
    assert slot.counts == {"written": len(numbers), "lost/parked": 1}
    assert DrainerState.load(slot.folder.drainer_state).destinations["otlp"].records == len(numbers) + 1


def test_a_receiver_that_was_down_gets_everything(slot: OneSlot, otlp_receiver: Any, wait_for: WaitFor) -> None:
    """500 to everything, empty requests included, for many tries: then all arrive, once, and nothing is parked."""
    otlp_receiver.behave(http_status=500)
    slot.add(*[None] * 30)
    slot.add(*[None] * 30)
    thread, _ = slot.drain()
    wait_for(lambda: len(otlp_receiver.requests) >= 12, 60.0)
    otlp_receiver.behave()
    slot.writer.close()
    thread.join(60)
    assert slot.ends == [End.IDLE]
    assert _numbers(otlp_receiver) == list(range(60))
    assert slot.counts == {"written": 60}
    assert list(slot.folder.parked_dir.glob("*.jsonl")) == []


def test_a_receiver_that_asks_for_patience_gets_it_and_everybody_can_see_it(
    slot: OneSlot, otlp_receiver: Any, wait_for: WaitFor, caplog: pytest.LogCaptureFixture
) -> None:
    """429 for an hour behind an accepted segment: no third request, the cap is said once, and when it goes on."""
    otlp_receiver.behave(http_status=429, headers={"retry-after": "3600"}, after=1)
    for _ in range(3):
        slot.add(*[None] * 100)
    thread, stop = slot.drain(clock=SystemClock(), batch_bytes_max=60_000)
    wait_for(lambda: slot.status.last_error)
    status = slot.status
    assert status.records == 100
    assert "asks for 3600 s, more than 300 s is never waited" in status.last_error
    assert status.retry_at_ns - status.last_error_ns == 300 * 10**9
    slot.add(None)
    wait_for(lambda: slot.status.waiting_segments == 3)
    assert len(otlp_receiver.requests) == 2
    stop.request()
    stop.request()
    thread.join(60)
    assert sum("never waited" in record.message for record in caplog.records) == 1


def test_a_drainer_that_is_replaced_in_the_middle(slot: OneSlot, otlp_receiver: Any, wait_for: WaitFor) -> None:
    """The next drainer finds the bad span again: nothing is lost, nothing is stuck."""
    otlp_receiver.behave(**FAILING)
    slot.add(None, "poison", None)
    slot.add(None)
    thread, stop = slot.drain()
    wait_for(lambda: set(_numbers(otlp_receiver)) == {0, 2, 3}, 60.0)
    stop.request()
    stop.request()
    thread.join(60)
    assert slot.counts == {}
    thread, _ = slot.drain()
    deadline_s = time.monotonic() + 60
    while not list(slot.folder.parked_dir.glob("*.jsonl")):
        assert time.monotonic() < deadline_s
        before = len(set(_numbers(otlp_receiver)))
        slot.add(None)
        wait_for(lambda before=before: len(set(_numbers(otlp_receiver))) == before + 1, 60.0)
    slot.writer.close()
    thread.join(60)
    assert slot.ends == [End.STOPPED, End.IDLE]
    numbers = set(_numbers(otlp_receiver))
    assert numbers == set(range(max(numbers) + 1)) - {1}
    assert slot.counts == {"written": len(numbers), "lost/parked": 1}


def test_what_is_kept_is_not_read_again_and_leaves_no_gap(bench: Any) -> None:
    """A kept segment comes without frames and counts no bytes; behind one that does not fit none of its slot comes."""
    writer = bench.spool(["a"], ["b", "c"], ["d"], body="x" * 1000)
    (spool_id,) = bench.folder.slot_ids()
    paths = list_segments(bench.folder.slot_dir(spool_id))
    files = [SegmentFile(spool_id, n, path, path.stat().st_size, 0) for n, path in enumerate(paths, start=1)]
    reading = Reading()
    first = reading.read(files, keeps=frozenset(), bytes_max=1 << 20)
    assert [len(segment.requests) for segment in first.segments] == [1, 2, 1]
    again = reading.read(files, keeps={(spool_id, 2)}, bytes_max=files[0].size_bytes + files[2].size_bytes)
    assert [len(segment.requests) for segment in again.segments] == [1, 0, 1]
    assert [reading.frames_of(segment) for segment in again.segments] == [(1, 0), (2, 0), (1, 0)]
    short = reading.read(files, keeps={(spool_id, 3)}, bytes_max=files[0].size_bytes)
    assert [segment.segment_no for segment in short.segments] == [1]
    writer.close()
