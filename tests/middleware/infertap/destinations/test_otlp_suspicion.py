"""A span that a real receiver fails on, among others that it takes: found, held apart, and given up in the end."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from infertap.destinations.otlp import OtlpDestination
from infertap.destinations.otlp_batches import Item, Progress
from infertap.destinations.otlp_suspicion import Suspicion
from infertap.destinations.protocol import Receipt
from infertap.errors import RetryableError
from infertap.record import InferenceRecord, ServerSpanFacts, SpanRecord
from infertap.spool.reader import Segment
from infertap.targets import OtlpTarget
from infertap.testing import ManualClock

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
PROTOCOLS = ["grpc", "http/protobuf"]
FAILING = {"http_status": 500, "grpc_code": "INTERNAL"}


class Spool:
    """What a drainer does for one destination: brings what is not delivered, and what is kept without its frames."""

    def __init__(self, destination: OtlpDestination, clock: ManualClock) -> None:
        self._destination = destination
        self.clock = clock
        self._segments: dict[tuple[str, int], Segment] = {}
        self.counts: dict[str, int] = {}
        self.parked: list[Segment] = []
        self.errors: list[str] = []

    def restart(self, memory: Path | None) -> None:
        """Another drainer takes over, at another time of its monotonic clock."""
        self.close()
        self.clock.now_s -= 700.0
        self._destination = OtlpDestination(self._destination._target, clock=self.clock, memory=memory)
        self._destination.open()

    def close(self) -> None:
        self._destination.close(deadline_s=1)

    def add(self, number: int, requests: Sequence[dict[str, Any]] = (), spans: Sequence[dict[str, Any]] = ()) -> None:
        self._segments["slot", number] = Segment("slot", number, {}, tuple(requests), tuple(spans), (), 1, 0, ())

    @property
    def waiting(self) -> list[int]:
        return sorted(number for _, number in self._segments)

    def deliver(self, times: int = 1, *, step_s: float = 60.0) -> None:
        for _ in range(times):
            kept = self._destination.keeps
            brought = [_emptied(each) if key in kept else each for key, each in sorted(self._segments.items())]
            self.clock.now_s += step_s
            try:
                self._settle(self._destination.deliver(brought, {}))
            except RetryableError as error:
                self.errors.append(str(error))

    def _settle(self, receipt: Receipt) -> None:
        self.parked += receipt.parked
        for number in list(self.waiting):
            if number <= receipt.delivered.get("slot", 0):
                del self._segments["slot", number]
        for (_, _, outcome, cause), count in receipt.outcomes.get("slot", {}).items():
            name = f"{outcome}/{cause}".rstrip("/")
            self.counts[name] = self.counts.get(name, 0) + count


def _emptied(segment: Segment) -> Segment:
    return Segment(segment.spool_id, segment.segment_no, {}, (), (), (), 1, 0, ())


def request_payload(number: int, name: str | None = None) -> dict[str, Any]:
    """REQUEST payload number `number`."""
    span_id = f"{number + 1:016x}"
    facts = ServerSpanFacts(
        kind="SERVER", span_id=span_id, parent_span_id=None, trace_state="", trace_flags=1, http_version="1.1",
        scheme="http", root_path="", server=None, client=None, headers=[], response_headers=[], name=name,
    )  # fmt: skip
    return InferenceRecord(
        f"id-{number}", 1_700_000_000_000_000, status_code=200, trace_id=TRACE_ID, span_id=span_id, method="POST",
        path="/p", duration_ns=1, span=facts,
    ).to_payload()  # fmt: skip


def span_payload(number: int, name: str) -> dict[str, Any]:
    """SPAN payload number `number`."""
    return SpanRecord(
        trace_id=TRACE_ID, span_id=f"{number + 1:016x}", parent_span_id=f"{1:016x}", name=name, kind="INTERNAL",
        start_ns=1_700_000_000_000_000_001, end_ns=1_700_000_000_000_000_009,
    ).to_payload()  # fmt: skip


@pytest.fixture(params=PROTOCOLS)
def spool(otlp_receiver: Any, request: pytest.FixtureRequest) -> Iterator[Spool]:
    """A spool in front of the receiver, over each protocol."""
    is_grpc = request.param == "grpc"
    endpoint = f"http://127.0.0.1:{otlp_receiver.grpc_port}"
    if not is_grpc:
        endpoint = f"http://127.0.0.1:{otlp_receiver.http_port}/v1/traces"
    clock = ManualClock()
    destination = OtlpDestination(OtlpTarget(endpoint, request.param, timeout_s=20.0), clock=clock)
    destination.open()
    spool = Spool(destination, clock)
    yield spool
    spool.close()


def ids_of(receiver: Any) -> list[int]:
    """The numbers of the accepted spans."""
    return sorted(int(span["span_id"], 16) - 1 for span in receiver.spans)


def test_one_bad_span_among_five_hundred_holds_nobody_up(otlp_receiver: Any, spool: Spool) -> None:
    """Three failures later all good spans have arrived, each once; what is behind them goes on at once."""
    otlp_receiver.behave(**FAILING, only_for_span="poison")
    spool.add(1, [request_payload(n, "poison" if n == 137 else None) for n in range(501)])
    spool.deliver(2)
    assert otlp_receiver.spans == []
    spool.deliver()
    assert ids_of(otlp_receiver) == [n for n in range(501) if n != 137]
    spool.add(2, [request_payload(501)])
    spool.deliver()
    assert ids_of(otlp_receiver)[-1] == 501
    assert spool.waiting == [1, 2]
    assert spool.counts == {}


def test_what_fails_alone_among_others_is_parked_after_minutes(
    otlp_receiver: Any, spool: Spool, caplog: pytest.LogCaptureFixture
) -> None:
    """Given up after five failures between acceptances over five minutes: parked, counted, said once."""
    otlp_receiver.behave(**FAILING, only_for_span="poison")
    spool.add(1, [request_payload(0), request_payload(1, "poison")], [span_payload(2, "poison")])
    for number in range(2, 8):
        spool.add(number, [request_payload(10 + number)])
        spool.deliver()
        assert spool.waiting[0] == 1, "five minutes have not passed"
    for number in range(8, 14):
        spool.add(number, [request_payload(10 + number)])
        spool.deliver()
    assert spool.waiting == []
    assert spool.counts == {"written": 13, "lost/parked": 1}
    (parked,) = spool.parked
    assert parked.segment_no == 1
    assert [row["request_id"] for row in parked.requests] == ["id-1"]
    assert [row["name"] for row in parked.spans] == ["poison"]
    assert caplog.text.count("given up, and kept in the spool's folder") == 1
    assert ids_of(otlp_receiver) == [0, *range(12, 24)]


@pytest.mark.parametrize("with_spans_only", [False, True], ids=["everything", "all but empty requests"])
def test_a_receiver_that_is_down_never_makes_a_span_lost(
    otlp_receiver: Any, spool: Spool, with_spans_only: bool
) -> None:
    """An hour of 500s, also from one that takes empty requests (a Collector with a full queue): all arrive after it."""
    otlp_receiver.behave(**FAILING, only_with_spans=with_spans_only)
    for number in range(1, 61):
        spool.add(number, [request_payload(number)])
        spool.deliver()
    assert spool.waiting == list(range(1, 61))
    otlp_receiver.behave()
    spool.deliver()
    assert spool.waiting == []
    assert spool.counts == {"written": 60}
    assert ids_of(otlp_receiver) == list(range(1, 61))
    assert spool.parked == []


def test_a_receiver_that_is_down_is_not_pestered(otlp_receiver: Any, spool: Spool) -> None:
    """However much waits, a receiver that refuses even an empty request gets two requests each time."""
    otlp_receiver.behave(**FAILING)
    for number in range(1, 11):
        spool.add(number, [request_payload(number)])
    spool.deliver(3)
    before = len(otlp_receiver.requests)
    spool.deliver(5)
    assert len(otlp_receiver.requests) - before == 10


def test_many_bad_spans_are_all_found(otlp_receiver: Any, spool: Spool) -> None:
    """A tenth of all spans may be bad: the others arrive once each, and the bad ones are parked."""
    otlp_receiver.behave(**FAILING, only_for_span="poison")
    spool.add(1, [request_payload(n, "poison" if n % 10 == 3 else None) for n in range(200)])
    spool.deliver(10)
    assert ids_of(otlp_receiver) == [n for n in range(200) if n % 10 != 3]
    for number in range(2, 9):
        spool.add(number, [request_payload(1000 + number)])
        spool.deliver()
    assert spool.waiting == []
    assert spool.counts == {"written": 187, "lost/parked": 20}


def test_without_neighbours_nothing_is_given_up(otlp_receiver: Any, spool: Spool) -> None:
    """A single span that fails for an hour stays in the spool: an empty request is no witness."""
    otlp_receiver.behave(**FAILING, only_for_span="poison")
    spool.add(1, [request_payload(1, "poison")])
    spool.deliver(60)
    assert spool.waiting == [1]
    assert spool.parked == []
    assert len(spool.errors) == 60
    otlp_receiver.behave()
    spool.deliver()
    assert spool.counts == {"written": 1}


def test_throttling_accuses_nobody(otlp_receiver: Any, spool: Spool) -> None:
    """A receiver that throttles one span for ever is obeyed: nothing is sent past it, nothing is given up."""
    behaviour = {"http_status": 429, "grpc_code": "RESOURCE_EXHAUSTED", "details": "slow down"}
    otlp_receiver.behave(**behaviour, only_for_span="large")
    spool.add(1, [request_payload(0, "large")])
    for number in range(1, 31):
        spool.add(number + 1, [], [span_payload(number, "small")])
        spool.deliver()
    assert spool.parked == []
    assert otlp_receiver.spans == []


def test_drainers_that_live_for_one_delivery_find_and_park_it_all_the_same(
    otlp_receiver: Any, spool: Spool, tmp_path: Path
) -> None:
    """Each goes on where the last one was: no good span comes twice, and the bad one is parked; no file is left."""
    memory = tmp_path / "otlp.json"
    otlp_receiver.behave(**FAILING, only_for_span="poison")
    spool.add(1, [request_payload(n, "poison" if n == 137 else None) for n in range(501)], [span_payload(600, "good")])
    for number in range(2, 16):
        spool.restart(memory)
        spool.deliver()
        spool.add(number, [request_payload(1000 + number)])
        assert number < 5 or not memory.exists() or b"poison" not in memory.read_bytes()
    spool.restart(memory)
    spool.deliver()
    assert spool.waiting == []
    assert spool.counts == {"written": 514, "lost/parked": 1}
    assert [row["request_id"] for segment in spool.parked for row in segment.requests] == ["id-137"]
    assert ids_of(otlp_receiver) == sorted([*(n for n in range(501) if n != 137), 600, *range(1002, 1016)])
    spool.deliver()
    spool.add(20, [request_payload(2000)])
    spool.deliver()
    assert not memory.exists()


@pytest.mark.parametrize("content", [b"", b"[]", b'{"segments": [{}], "suspects": [[1]]}', b'{"segments": 1}'])
def test_a_damaged_memory_says_nothing(otlp_receiver: Any, spool: Spool, tmp_path: Path, content: bytes) -> None:
    """Whatever is in the file, delivery begins, and everything arrives."""
    memory = tmp_path / "otlp.json"
    memory.write_bytes(content)
    spool.add(1, [request_payload(n) for n in range(3)])
    spool.restart(memory)
    spool.deliver()
    assert spool.counts == {"written": 3}


def test_without_its_memory_a_successor_begins_anew_and_loses_nothing(otlp_receiver: Any, spool: Spool) -> None:
    """Where the file is gone, the next drainer sends again what was not delivered, and finds the same."""
    otlp_receiver.behave(**FAILING, only_for_span="poison")
    spool.add(1, [request_payload(n, "poison" if n == 3 else None) for n in range(8)])
    spool.add(2, [request_payload(8)])
    spool.deliver(4)
    spool.restart(None)
    for number in range(3, 14):
        spool.add(number, [request_payload(6 + number)])
        spool.deliver()
    assert spool.waiting == []
    assert spool.counts == {"written": 19, "lost/parked": 1}
    assert set(ids_of(otlp_receiver)) == set(range(20)) - {3}


def test_company_is_halved_by_failures_and_grows_again(make_item: Callable[[int], Item]) -> None:
    """Halved with each failure, down to one; an accepted suspect frees its neighbours, but not who has failed alone."""
    suspicion = Suspicion(ManualClock())
    first, second, third, _ = items = [make_item(n) for n in range(4)]
    assert [suspicion.failed(items) for _ in range(3)] == [False, False, True]
    assert not suspicion.suspects(first.key)
    suspicion.separate(items)
    assert suspicion.company_max(first.key) == 2
    suspicion.failed([first, second])
    suspicion.separate([first, second])
    suspicion.failed([first])
    suspicion.separate([first])
    assert [suspicion.company_max(item.key) for item in items] == [1, 1, 2, 2]
    suspicion.accepted([third])
    assert [suspicion.company_max(item.key) for item in items] == [1, 2, 0, 4]
    assert suspicion.lonely_bytes(first.key) == 7
    suspicion.keep_only({("other slot", 1)})
    assert not any(suspicion.suspects(item.key) for item in items)


@pytest.fixture
def make_item() -> Callable[[int], Item]:
    """Items of one segment, seven bytes each."""
    progress = Progress.of(Segment("slot", 1, {}, (), (), (), 1, 0, ()))
    return lambda number: Item(progress, True, number, 0, None, 7)
