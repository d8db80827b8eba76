"""OtlpDestination against a real receiver in another process: what counts as delivered, and what never gets lost."""

import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from infertap.clock import SystemClock
from infertap.destinations.otlp import OtlpDestination
from infertap.destinations.otlp_exporters import Answer, Verdict
from infertap.destinations.protocol import Receipt
from infertap.errors import RetryableError
from infertap.record import InferenceRecord, ServerSpanFacts, SpanRecord
from infertap.spool.reader import Segment
from infertap.targets import OtlpLimits, OtlpTarget, TableTarget

HEADER = {
    "infertap_version": "1.2.3",
    "service_name": "ranker",
    "resource": {"service.name": "ranker", "host.name": "h1", "tags": ["a", "b"], "n": 3},
}
TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
MINUTE = 28_333_333
PROTOCOLS = ["grpc", "http/protobuf"]


def request_payload(number: int, *, span: bool = True, name: str | None = None, **columns: Any) -> dict[str, Any]:
    """REQUEST payload number `number`, arrived in `MINUTE` plus `number // 1000`."""
    facts = ServerSpanFacts(
        kind="SERVER",
        span_id=f"{number + 1:016x}",
        parent_span_id="00f067aa0ba902b7",
        trace_state="a=1",
        trace_flags=1,
        http_version="1.1",
        scheme="http",
        root_path="",
        server=["127.0.0.1", 8000],
        client=["10.0.0.1", 999],
        headers=[],
        response_headers=[],
        name=name,
    )
    record = InferenceRecord(
        request_id=f"id-{number}",
        request_time=(MINUTE + number // 1000) * 60_000_000 + number,
        status_code=200,
        trace_id=TRACE_ID,
        span_id=f"{number + 1:016x}",
        method="POST",
        path="/v1/predict",
        duration_ns=1_000,
        request=columns.pop("request", f"question {number}"),
        response=columns.pop("response", f"answer {number}"),
        request_content_type="text/plain",
        response_content_type="application/json",
        span=facts if span else None,
    )
    return {**record.to_payload(), **columns}


def span_payload(number: int, **fields: Any) -> dict[str, Any]:
    """SPAN payload number `number`."""
    base: dict[str, Any] = {
        "trace_id": TRACE_ID,
        "span_id": f"{number + 1:016x}",
        "parent_span_id": f"{1:016x}",
        "name": f"step {number}",
        "kind": "INTERNAL",
        "start_ns": 1_700_000_000_000_000_001,
        "end_ns": 1_700_000_000_000_000_009,
    }
    return SpanRecord(**{**base, **fields}).to_payload()


def segment(
    number: int = 1,
    *,
    spool_id: str = "slot-a",
    requests: tuple[dict[str, Any], ...] = (),
    spans: tuple[dict[str, Any], ...] = (),
    header: Mapping[str, Any] = HEADER,
) -> Segment:
    """A sealed segment as the reader gives it."""
    return Segment(spool_id, number, header, requests, spans, (), 1000, 0, ())


def target_of(receiver: Any, protocol: str, **changes: Any) -> OtlpTarget:
    """The receiver as a target."""
    if protocol == "grpc":
        endpoint = f"http://127.0.0.1:{receiver.grpc_port}"
    else:
        endpoint = f"http://127.0.0.1:{receiver.http_port}/v1/traces"
    return OtlpTarget(**{"endpoint": endpoint, "protocol": protocol, "timeout_s": 60.0, **changes})


@pytest.fixture
def destination(otlp_receiver: Any) -> Iterator[Callable[..., OtlpDestination]]:
    """Makes opened destinations of the receiver; the arguments are the protocol, target fields and own options."""
    made: list[OtlpDestination] = []

    def make(protocol: str, options: Mapping[str, Any] | None = None, **changes: Any) -> OtlpDestination:
        target = target_of(otlp_receiver, protocol, **changes)
        new = OtlpDestination(target, clock=SystemClock(), **(options or {}))
        new.open()
        made.append(new)
        return new

    yield make
    for each in made:
        each.close(deadline_s=1)


def outcomes_of(receipt: Receipt) -> Counter[tuple[str, str]]:
    """The receipt's counts by outcome and cause, over slots and minutes."""
    counts: Counter[tuple[str, str]] = Counter()
    for of_slot in receipt.outcomes.values():
        for (_, name, outcome, cause), count in of_slot.items():
            assert name == "otlp"
            counts[outcome, cause] += count
    return counts


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_everything_of_a_request_arrives(otlp_receiver: Any, destination: Any, protocol: str) -> None:
    """Server span with bodies, child span, links, events, types, drop counts and resource arrive as spooled."""
    child = span_payload(
        1,
        attributes={"s": "ä", "i": 7, "f": 0.5, "b": True, "list": ["x", "y"], "big": 2**63},
        events=[["e", 5, {"k": 1}]],
        links=[["0" * 31 + "1", "0" * 15 + "2", 1, {"l": "v"}]],
        status=["ERROR", "broken"],
        dropped_attributes_count=1,
        dropped_events_count=2,
        dropped_links_count=3,
        scope_name="lib",
        scope_version="9",
        resource={"service.name": "other"},
    )
    receipt = destination(protocol).deliver([segment(requests=(request_payload(0),), spans=(child,))], {})

    assert receipt.delivered == {"slot-a": 1}
    assert receipt.outcomes == {"slot-a": {(MINUTE, "otlp", "written", ""): 1}}
    server, step = otlp_receiver.spans
    assert (server["kind"], server["name"], server["scope"]) == ("SERVER", "POST /v1/predict", ["infertap", "1.2.3"])
    assert (server["trace_id"], server["span_id"], server["parent_span_id"]) == (
        TRACE_ID,
        f"{1:016x}",
        "00f067aa0ba902b7",
    )
    assert server["trace_state"] == "a=1"
    assert server["flags"] & 0x300 == 0x300, "the parent is remote, and that is said"
    assert server["end_ns"] - server["start_ns"] == 1_000
    assert server["attributes"]["input.value"] == "question 0"
    assert server["attributes"]["input.mime_type"] == "text/plain"
    assert server["attributes"]["output.value"] == "answer 0"
    assert server["attributes"]["output.mime_type"] == "application/json"
    assert server["attributes"]["http.response.status_code"] == 200
    assert server["resource"] == HEADER["resource"]
    assert step["attributes"] == {"s": "ä", "i": 7, "f": 0.5, "b": True, "list": ["x", "y"], "big": str(2**63)}
    assert step["events"] == [["e", 5, {"k": 1}]]
    assert step["links"] == [["0" * 31 + "1", "0" * 15 + "2", {"l": "v"}]]
    assert (step["status"], step["dropped"], step["scope"]) == (["ERROR", "broken"], [1, 2, 3], ["lib", "9"])
    assert step["resource"] == {"service.name": "other"}
    assert (step["start_ns"], step["end_ns"]) == (1_700_000_000_000_000_001, 1_700_000_000_000_000_009)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_request_without_a_span_is_sampled(otlp_receiver: Any, destination: Any, protocol: str) -> None:
    """A request whose trace is not sampled counts as `sampled`, and nothing of it leaves."""
    receipt = destination(protocol).deliver([segment(requests=(request_payload(0, span=False),))], {})
    assert receipt.delivered == {"slot-a": 1}
    assert outcomes_of(receipt) == {("sampled", ""): 1}
    assert otlp_receiver.requests == []


def test_outcomes_are_counted_per_minute_and_slot(destination: Any) -> None:
    """Counts are by minute of arrival and belong to the slot of the segment."""
    segments = [
        segment(requests=(request_payload(0), request_payload(1000))),
        segment(4, spool_id="slot-b", requests=(request_payload(1001), request_payload(1002, span=False))),
    ]
    receipt = destination("http/protobuf").deliver(segments, {})
    assert receipt.delivered == {"slot-a": 1, "slot-b": 4}
    assert receipt.outcomes == {
        "slot-a": {(MINUTE, "otlp", "written", ""): 1, (MINUTE + 1, "otlp", "written", ""): 1},
        "slot-b": {(MINUTE + 1, "otlp", "written", ""): 1, (MINUTE + 1, "otlp", "sampled", ""): 1},
    }


def test_nothing_to_deliver_delivers_nothing(otlp_receiver: Any, destination: Any) -> None:
    """An empty call, and a segment without frames, send no request."""
    one = destination("grpc")
    assert one.deliver([], {}).delivered == {}
    assert one.deliver([segment()], {}).delivered == {"slot-a": 1}
    assert otlp_receiver.requests == []


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    ("behaviour", "words"),
    [
        ({"http_status": 503, "grpc_code": "UNAVAILABLE"}, "503|UNAVAILABLE"),
        ({"http_status": 500, "grpc_code": "INTERNAL"}, "500|INTERNAL"),
        ({"http_status": 401, "grpc_code": "UNAUTHENTICATED"}, "OTEL_EXPORTER_OTLP_HEADERS"),
        ({"http_status": 403, "grpc_code": "PERMISSION_DENIED"}, "OTEL_EXPORTER_OTLP_HEADERS"),
        ({"http_status": 404, "grpc_code": "UNIMPLEMENTED"}, "404|UNIMPLEMENTED"),
        ({"http_status": 400, "grpc_code": "INVALID_ARGUMENT"}, "every span is refused"),
    ],
)
def test_refused_stays_in_the_spool(
    otlp_receiver: Any, destination: Any, protocol: str, behaviour: dict[str, Any], words: str
) -> None:
    """Whatever may be different later raises RetryableError with the reason, and is delivered once it is."""
    otlp_receiver.behave(**behaviour)
    one, segments = destination(protocol), [segment(requests=(request_payload(0), request_payload(1)))]
    with pytest.raises(RetryableError, match=words):
        one.deliver(segments, {})
    assert otlp_receiver.spans == []
    otlp_receiver.behave()
    assert outcomes_of(one.deliver(segments, {})) == {("written", ""): 2}
    assert [span["span_id"] for span in otlp_receiver.spans] == [f"{1:016x}", f"{2:016x}"]


@pytest.mark.parametrize(
    ("behaviour", "words"),
    [
        (
            {"http_status": 301, "headers": {"location": "https://elsewhere/v1/traces?token=secret"}},
            "https://elsewhere",
        ),
        ({"http_status": 308, "headers": {"location": "/v1/traces/"}}, "308"),
        ({"http_status": 200, "content_type": "text/html; charset=utf-8", "body": "<p>log in"}, "HTML"),
        ({"http_status": 200, "content_type": "text/plain", "body": "<!DOCTYPE html><p>log in"}, "HTML"),
    ],
)
def test_false_successes_are_failures(
    otlp_receiver: Any, destination: Any, behaviour: dict[str, Any], words: str
) -> None:
    """Redirects are not followed and, like a 200 with an HTML page, are no success."""
    otlp_receiver.behave(**behaviour)
    with pytest.raises(RetryableError, match=words) as raised:
        destination("http/protobuf").deliver([segment(requests=(request_payload(0),))], {})
    assert "secret" not in str(raised.value)
    assert [request.get("method") for request in otlp_receiver.requests] == [None]


@pytest.mark.parametrize(
    "behaviour",
    [
        {"http_status": 202, "content_type": "application/json", "body": "{}"},
        {"http_status": 200, "content_type": "text/plain", "body": ""},
        {"http_status": 202, "content_type": "text/plain", "body": "Accepted"},
    ],
)
def test_other_successes_of_real_intakes(otlp_receiver: Any, destination: Any, behaviour: dict[str, Any]) -> None:
    """202, an empty body and a body that is no protobuf are success."""
    otlp_receiver.behave(**behaviour)
    receipt = destination("http/protobuf").deliver([segment(requests=(request_payload(0),))], {})
    assert outcomes_of(receipt) == {("written", ""): 1}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_partial_success_is_lost_and_not_resent(otlp_receiver: Any, destination: Any, protocol: str) -> None:
    """Rejected spans count as lost; other spans travel apart, so that the count of requests is exact."""
    otlp_receiver.behave(rejected=2)
    frames = segment(requests=tuple(map(request_payload, range(5))), spans=(span_payload(9), span_payload(10)))
    receipt = destination(protocol).deliver([frames], {})
    assert outcomes_of(receipt) == {("written", ""): 3, ("lost", "rejected"): 2}
    assert len(otlp_receiver.requests) == 2


def test_partial_success_in_json(otlp_receiver: Any, destination: Any) -> None:
    """A JSON answer to a protobuf request is read, too."""
    body = '{"partialSuccess":{"rejectedSpans":"1","errorMessage":"quota"}}'
    otlp_receiver.behave(content_type="application/json", body=body)
    receipt = destination("http/protobuf").deliver([segment(requests=(request_payload(0), request_payload(1)))], {})
    assert outcomes_of(receipt) == {("written", ""): 1, ("lost", "rejected"): 1}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_one_bad_span_is_found_and_lost(otlp_receiver: Any, destination: Any, protocol: str) -> None:
    """A span that the receiver refuses is found by halving; all others are delivered once."""
    otlp_receiver.behave(http_status=400, grpc_code="INVALID_ARGUMENT", only_for_span="poison")
    requests = tuple(request_payload(n, name="poison" if n == 5 else None) for n in range(12))
    receipt = destination(protocol).deliver([segment(requests=requests)], {})
    assert outcomes_of(receipt) == {("written", ""): 11, ("lost", "rejected"): 1}
    assert sorted(span["span_id"] for span in otlp_receiver.spans) == [f"{n + 1:016x}" for n in range(12) if n != 5]


def test_lonely_bad_span_is_lost_only_if_the_receiver_is_well(otlp_receiver: Any, destination: Any) -> None:
    """With a single span at hand, an empty request tells a bad span from a receiver that refuses everything."""
    one, segments = destination("http/protobuf"), [segment(requests=(request_payload(0, name="poison"),))]
    otlp_receiver.behave(http_status=400)
    with pytest.raises(RetryableError):
        one.deliver(segments, {})
    otlp_receiver.behave(http_status=400, only_for_span="poison")
    assert outcomes_of(one.deliver(segments, {})) == {("lost", "rejected"): 1}


def test_bad_span_of_an_app_is_no_lost_request(otlp_receiver: Any, destination: Any) -> None:
    """The ledger counts requests: a refused span of the app changes no count, and holds nothing up."""
    otlp_receiver.behave(http_status=400, only_for_span="step 7")
    frames = segment(requests=(request_payload(0),), spans=(span_payload(7), span_payload(8)))
    receipt = destination("http/protobuf").deliver([frames], {})
    assert receipt.delivered == {"slot-a": 1}
    assert outcomes_of(receipt) == {("written", ""): 1}
    assert [span["name"] for span in otlp_receiver.spans] == ["POST /v1/predict", "step 8"]


def test_unreadable_frames_are_lost_and_hold_nothing_up(otlp_receiver: Any, destination: Any) -> None:
    """A frame that is no span is counted as rejected; its neighbours go out."""
    broken = request_payload(1)
    broken["span"]["span_id"] = "no hex"
    frames = segment(requests=(request_payload(0), broken), spans=({"name": "half a span"},))
    receipt = destination("grpc").deliver([frames], {})
    assert receipt.delivered == {"slot-a": 1}
    assert outcomes_of(receipt) == {("written", ""): 1, ("lost", "rejected"): 1}


def test_span_that_cannot_be_encoded_is_lost(otlp_receiver: Any, destination: Any) -> None:
    """A time that protobuf refuses is found by halving, without the receiver's help."""
    requests = (request_payload(0), request_payload(1, request_time=-1), request_payload(2))
    for protocol in PROTOCOLS:
        receipt = destination(protocol).deliver([segment(requests=requests)], {})
        assert outcomes_of(receipt) == {("written", ""): 2, ("lost", "rejected"): 1}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_batches_are_cut_by_bytes(otlp_receiver: Any, destination: Any, protocol: str) -> None:
    """No request is larger than the limit, and all spans arrive."""
    requests = tuple(request_payload(n, response="é" * 10_000) for n in range(40))
    receipt = destination(protocol, {"batch_bytes_max": 100_000}).deliver([segment(requests=requests)], {})
    assert outcomes_of(receipt) == {("written", ""): 40}
    sizes = [request["bytes"] for request in otlp_receiver.requests]
    assert max(sizes) <= 100_000
    assert len(sizes) == 10


def test_default_batches_pass_a_grpc_server(otlp_receiver: Any, destination: Any) -> None:
    """12 MB of spans reach a server with gRPC's default limit of 4 MiB without a single refusal."""
    requests = tuple(request_payload(n, response="x" * 100_000) for n in range(120))
    receipt = destination("grpc").deliver([segment(requests=requests)], {})
    assert outcomes_of(receipt) == {("written", ""): 120}
    assert all(request["accepted"] for request in otlp_receiver.requests)


def test_too_large_for_grpc_is_split(otlp_receiver: Any, destination: Any) -> None:
    """A request over the server's limit is halved, and the size is remembered."""
    one = destination("grpc", {"batch_bytes_max": 20_000_000})
    requests = tuple(request_payload(n, response="x" * 500_000) for n in range(16))
    assert outcomes_of(one.deliver([segment(requests=requests)], {})) == {("written", ""): 16}
    assert max(request["bytes"] for request in otlp_receiver.requests) < 4 << 20
    before = len(otlp_receiver.requests)
    assert outcomes_of(one.deliver([segment(2, requests=requests)], {})) == {("written", ""): 16}
    assert len(otlp_receiver.requests) - before >= 3


def test_413_is_split_and_remembered(otlp_receiver: Any, destination: Any) -> None:
    """After 413 the batches are small enough; later deliveries begin with the smaller size."""
    otlp_receiver.behave(request_bytes_max=50_000)
    one = destination("http/protobuf")
    requests = tuple(request_payload(n, response="x" * 5_000) for n in range(32))
    assert outcomes_of(one.deliver([segment(requests=requests)], {})) == {("written", ""): 32}
    before = len(otlp_receiver.requests)
    assert outcomes_of(one.deliver([segment(2, requests=requests)], {})) == {("written", ""): 32}
    assert all(request["accepted"] for request in otlp_receiver.requests[before:])


def test_span_too_large_alone_goes_without_its_bodies(otlp_receiver: Any, destination: Any) -> None:
    """A single span over the receiver's limit is sent once more, marked, and counts as written."""
    otlp_receiver.behave(request_bytes_max=50_000)
    requests = (request_payload(0, response="x" * 60_000), request_payload(1))
    receipt = destination("http/protobuf").deliver([segment(requests=requests)], {})
    assert outcomes_of(receipt) == {("written", ""): 2}
    large, small = otlp_receiver.spans
    assert large["attributes"]["infertap.withheld"] == "platform_limit"
    assert "output.value" not in large["attributes"]
    assert small["attributes"]["output.value"] == "answer 1"


def test_span_too_large_without_bodies_gives_up_its_largest_attributes(otlp_receiver: Any, destination: Any) -> None:
    """A span is not lost for its size: it goes again, half as large, and says what it lacks."""
    otlp_receiver.behave(request_bytes_max=5_000)
    requests = (request_payload(0, path="/" + "x" * 6_000), request_payload(1))
    spans = (span_payload(7, attributes={"huge": "y" * 9_000, "small": 1}),)
    receipt = destination("http/protobuf").deliver([segment(requests=requests, spans=spans)], {})
    assert outcomes_of(receipt) == {("written", ""): 2}
    by_id = {span["span_id"]: span["attributes"] for span in otlp_receiver.spans}
    assert by_id[f"{1:016x}"]["infertap.request_id"] == "id-0"
    assert "url.path" in by_id[f"{1:016x}"]["infertap.withheld_attributes"]
    assert by_id[f"{8:016x}"] == {
        "small": 1, "infertap.withheld": "platform_limit", "infertap.withheld_attributes": ["huge"],
    }  # fmt: skip


def test_receiver_that_takes_no_span_of_any_size_loses_it_counted(otlp_receiver: Any, destination: Any) -> None:
    """Halving ends: a span that is refused at its smallest is counted as rejected, and nothing is held up."""
    otlp_receiver.behave(request_bytes_max=100)
    receipt = destination("http/protobuf").deliver([segment(requests=(request_payload(0),))], {})
    assert outcomes_of(receipt) == {("lost", "rejected"): 1}
    assert len(otlp_receiver.requests) < 12


@pytest.mark.parametrize(
    ("protocol", "behaviour"),
    [
        ("http/protobuf", {"http_status": 429, "headers": {"retry-after": "17"}}),
        ("http/protobuf", {"http_status": 503, "headers": {"retry-after": "17"}}),
        ("grpc", {"grpc_code": "RESOURCE_EXHAUSTED", "details": "slow down", "retry_delay_s": 17}),
        ("grpc", {"grpc_code": "UNAVAILABLE", "retry_delay_s": 17}),
    ],
)
def test_throttling_says_for_how_long(
    otlp_receiver: Any, destination: Any, protocol: str, behaviour: dict[str, Any]
) -> None:
    """Retry-After and RetryInfo are handed on, nothing is lost, and one attempt is one request."""
    otlp_receiver.behave(**behaviour)
    with pytest.raises(RetryableError) as raised:
        destination(protocol).deliver([segment(requests=(request_payload(0), request_payload(1)))], {})
    assert raised.value.retry_after_s == 17
    assert len(otlp_receiver.requests) == 1


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_progress_survives_throttling(otlp_receiver: Any, destination: Any, protocol: str) -> None:
    """A receiver that takes two batches and then refuses gets each span once: accepted ones are not sent again."""
    otlp_receiver.behave(http_status=429, grpc_code="UNAVAILABLE", after=2, times=1)
    one = destination(protocol, {"batch_bytes_max": 30_000})
    segments = [segment(requests=tuple(request_payload(n, response="x" * 9_000) for n in range(12)))]
    with pytest.raises(RetryableError):
        one.deliver(segments, {})
    assert 0 < len(otlp_receiver.spans) < 12
    receipt = one.deliver(segments, {})
    assert outcomes_of(receipt) == {("written", ""): 12}
    assert len({span["span_id"] for span in otlp_receiver.spans}) == len(otlp_receiver.spans) == 12


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_throttling_behind_delivered_segments_is_handed_on(otlp_receiver: Any, destination: Any, protocol: str) -> None:
    """The first segment is delivered; the second was told to wait, and the receipt says for how long."""
    code = {"grpc_code": "UNAVAILABLE", "retry_delay_s": 17}
    otlp_receiver.behave(http_status=429, headers={"retry-after": "17"}, after=1, **code)
    segments = [segment(n, requests=(request_payload(n, response="x" * 9_000),)) for n in (1, 2)]
    receipt = destination(protocol, {"batch_bytes_max": 10_000}).deliver(segments, {})
    assert receipt.delivered == {"slot-a": 1}
    assert receipt.setback is not None
    assert receipt.setback.retry_after_s == 17
    assert len(otlp_receiver.requests) == 2


class _Deaf:
    """An exporter whose receiver never answers; remembers how long each would have waited."""

    def __init__(self) -> None:
        self.timeouts_s: list[float] = []

    def connect(self, target: OtlpTarget) -> "_Connection":
        return _Connection(self, target.timeout_s)


class _Connection:
    def __init__(self, deaf: _Deaf, timeout_s: float) -> None:
        self._deaf, self._timeout_s = deaf, timeout_s

    def export(self, _spans: Any) -> Answer:
        self._deaf.timeouts_s.append(self._timeout_s)
        return Answer(Verdict.UNAVAILABLE, "no answer in time")

    def close(self) -> None:
        pass


def test_a_dead_receiver_costs_one_timeout_a_try() -> None:
    """The look whether it lives at all, from the third failure on, may take two seconds, and no whole timeout."""
    deaf = _Deaf()
    target = OtlpTarget("http://127.0.0.1:9/v1/traces", "http/protobuf", timeout_s=30.0)
    one = OtlpDestination(target, clock=SystemClock(), connect=deaf.connect)
    for _ in range(3):
        with pytest.raises(RetryableError):
            one.deliver([segment(requests=(request_payload(0),))], {})
    assert deaf.timeouts_s == [30.0, 30.0, 30.0, 2.0]


def test_complete_segments_before_a_failure_are_delivered(otlp_receiver: Any, destination: Any) -> None:
    """A failure in the third segment delivers the first two, with their counts and no others."""
    otlp_receiver.behave(http_status=503, only_for_span="third")
    segments = [segment(n, requests=(request_payload(n, response="x" * 9_000),)) for n in (1, 2)]
    segments.append(segment(3, requests=(request_payload(3, name="third", response="x" * 9_000),)))
    one = destination("http/protobuf", {"batch_bytes_max": 10_000})
    receipt = one.deliver(segments, {})
    assert receipt.delivered == {"slot-a": 2}
    assert outcomes_of(receipt) == {("written", ""): 2}
    assert "HTTP 503" in str(receipt.setback)
    with pytest.raises(RetryableError):
        one.deliver(segments[2:], {})


def test_later_segment_of_a_blocked_slot_is_not_delivered(otlp_receiver: Any, destination: Any) -> None:
    """Delivery is a prefix per slot; another slot is not held up by it."""
    otlp_receiver.behave(http_status=503, only_for_span="step 1")
    segments = [
        segment(1, spans=(span_payload(1),)),
        segment(2, requests=(request_payload(2),)),
        segment(1, spool_id="slot-b", requests=(request_payload(3),)),
    ]
    receipt = destination("http/protobuf").deliver(segments, {})
    assert receipt.delivered == {"slot-b": 1}
    assert outcomes_of(receipt) == {("written", ""): 1}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_silent_receiver_is_bounded_by_the_timeout(otlp_receiver: Any, destination: Any, protocol: str) -> None:
    """A receiver that accepts and never answers ends in RetryableError after one request, without retries."""
    otlp_receiver.behave(hang=True)
    one = destination(protocol, timeout_s=1.0)
    with pytest.raises(RetryableError):
        one.deliver([segment(requests=(request_payload(0),))], {})
    # None where a busy machine took longer to connect than the timeout.
    assert len(otlp_receiver.requests) <= 1


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_nobody_there(free_port: Callable[[], int], protocol: str) -> None:
    """A refused connection raises RetryableError that says so; opening and closing never raise."""
    path = "" if protocol == "grpc" else "/v1/traces"
    target = OtlpTarget(f"http://127.0.0.1:{free_port()}{path}", protocol, timeout_s=60)
    one = OtlpDestination(target, clock=SystemClock())
    one.close(deadline_s=1)
    one.open()
    with pytest.raises(RetryableError, match="nobody listens"):
        one.deliver([segment(requests=(request_payload(0),))], {})
    one.close(deadline_s=1)
    one.close(deadline_s=1)


def test_receiver_that_comes_back_gets_everything(otlp_receiver: Any, free_port: Callable[[], int]) -> None:
    """The same destination object delivers once somebody listens: no dead channel stays behind."""
    port = free_port()
    one = OtlpDestination(OtlpTarget(f"http://127.0.0.1:{port}", "grpc", timeout_s=60), clock=SystemClock())
    one.open()
    segments = [segment(requests=(request_payload(0),))]
    with pytest.raises(RetryableError):
        one.deliver(segments, {})

    def pump(source: socket.socket, sink: socket.socket) -> None:
        with source, sink:
            while data := source.recv(65536):
                sink.sendall(data)

    with socket.create_server(("127.0.0.1", port)) as listener:

        def relay() -> None:
            near, _ = listener.accept()
            far = socket.create_connection(("127.0.0.1", otlp_receiver.grpc_port))
            threading.Thread(target=pump, args=(near.dup(), far.dup()), daemon=True).start()
            pump(far, near)

        threading.Thread(target=relay, daemon=True).start()
        assert one.deliver(segments, {}).delivered == {"slot-a": 1}
        one.close(deadline_s=1)


def test_references_instead_of_bodies_where_the_tables_are_written(otlp_receiver: Any, destination: Any) -> None:
    """With `both`, the span holds where the bodies are, and no body."""
    one = destination("http/protobuf", {"tables": TableTarget("s3://user:pw@lake/t?sig=secret")})
    one.deliver([segment(requests=(request_payload(0, response=""),))], {})
    (span,) = otlp_receiver.spans
    assert span["attributes"]["gen_ai.input.messages_ref"] == "s3://lake/t/inference?request_id=id-0"
    assert span["attributes"]["infertap.request_id"] == "id-0"
    assert not {"input.value", "output.value", "gen_ai.output.messages_ref"} & set(span["attributes"])


def test_metadata_sends_no_bodies(otlp_receiver: Any, destination: Any) -> None:
    """With content = metadata no body leaves, even if the spool still holds some from before."""
    destination("grpc", {"content": "metadata"}).deliver([segment(requests=(request_payload(0),))], {})
    assert "question" not in repr(otlp_receiver.spans)


def test_value_limit_withholds_and_never_cuts(otlp_receiver: Any, destination: Any) -> None:
    """OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT: bodies and the app's own texts over it are withheld and named."""
    frames = segment(
        requests=(request_payload(0, request="x" * 101, response="y" * 100),),
        spans=(span_payload(1, attributes={"long": "z" * 101, "short": "z", "list": ["a", "b" * 101]}),),
    )
    destination("grpc", value_length_max=100).deliver([frames], {})
    server, step = otlp_receiver.spans
    assert server["attributes"]["infertap.request.withheld"] == "value_length_limit"
    assert server["attributes"]["infertap.request.preview"] == "x" * 100
    assert server["attributes"]["output.value"] == "y" * 100
    assert step["attributes"] == {
        "short": "z",
        "infertap.withheld_attributes": ["long", "list"],
        "infertap.withheld": "value_length_limit",
    }


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_platforms_limits_are_kept_before_anything_is_refused(
    otlp_receiver: Any, destination: Any, protocol: str
) -> None:
    """The larger body gives way first, then the other one; requests and spans stay below their limits."""
    limits = OtlpLimits(request_bytes_max=50_000, span_bytes_max=20_000)
    frames = segment(
        requests=(
            request_payload(0, request="q" * 30_000, response="r" * 9_000),
            request_payload(1, request="q" * 30_000, response="r" * 40_000),
            *(request_payload(number, request="q" * 9_000) for number in range(2, 12)),
        ),
        spans=(span_payload(20, attributes={"large": "x" * 30_000, "kept": "y" * 15_000}),),
    )
    receipt = destination(protocol, limits=limits).deliver([frames], {})
    assert outcomes_of(receipt) == {("written", ""): 12}
    assert max(request["bytes"] for request in otlp_receiver.requests) <= 50_000
    assert all(request["accepted"] for request in otlp_receiver.requests)
    by_id = {int(span["span_id"], 16): span["attributes"] for span in otlp_receiver.spans}
    assert by_id[1]["infertap.request.withheld"] == "platform_limit"
    assert by_id[1]["output.value"] == "r" * 9_000
    assert not {"input.value", "output.value"} & set(by_id[2])
    assert by_id[2]["infertap.response.preview"] == "r" * 1_000
    assert by_id[21]["infertap.withheld_attributes"] == ["large"]
    assert by_id[21]["kept"] == "y" * 15_000


def test_resource_attributes_of_the_platform_fill_gaps_only(otlp_receiver: Any, destination: Any) -> None:
    """What the process says about itself stays; a service without a name gets the platform's."""
    named = segment(requests=(request_payload(0),))
    nameless = segment(2, requests=(request_payload(1),), header={"resource": {"service.name": "unknown_service:x"}})
    resource = {"service.name": "theirs", "deployment.environment": "prod", "host.name": "h2"}
    destination("grpc", resource=resource).deliver([named, nameless], {})
    first, second = sorted((span["span_id"], span["resource"]) for span in otlp_receiver.spans)
    assert first[1] == {**HEADER["resource"], "deployment.environment": "prod"}
    assert second[1] == resource


def test_a_collectors_400_for_its_size_is_taken_for_what_it_is(otlp_receiver: Any, destination: Any) -> None:
    """The Collector does not say 413: the span goes again without its bodies instead of being lost."""
    words = "rpc error: request body too large"
    otlp_receiver.behave(http_status=400, content_type="text/plain", body=words, times=1)
    receipt = destination("http/protobuf").deliver([segment(requests=(request_payload(0, request="x" * 9_000),))], {})
    assert outcomes_of(receipt) == {("written", ""): 1}
    (span,) = otlp_receiver.spans
    assert span["attributes"]["infertap.request.withheld"] == "platform_limit"


def test_open_says_what_is_wrong_before_anything_waits(
    otlp_receiver: Any, receivers: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """http/protobuf to a gRPC port: one warning with the fix, without a span."""
    endpoint = f"http://127.0.0.1:{otlp_receiver.grpc_port}/v1/traces"
    one = OtlpDestination(OtlpTarget(endpoint, "http/protobuf"), clock=SystemClock(), probes=True)
    one.open()
    receivers.wait_for(lambda: "set OTEL_EXPORTER_OTLP_PROTOCOL=grpc" in caplog.text)
    one.close(deadline_s=1)


def test_what_one_limit_has_taken_does_not_count_for_the_next(otlp_receiver: Any, destination: Any) -> None:
    """An attribute over its own limit is gone already when the span as a whole is made to fit."""
    limits = OtlpLimits(span_bytes_max=10_000, attribute_bytes_max=2_000)
    attributes = {"huge": "x" * 50_000, **{f"part {number}": "y" * 1_500 for number in range(20)}}
    frames = segment(spans=(span_payload(1, attributes=attributes, events=[["e", 5, {"huge": "x" * 9_000}]]),))
    destination("grpc", limits=limits).deliver([frames], {})
    (request,) = otlp_receiver.requests
    assert request["bytes"] < 10_600
    assert "huge" in request["spans"][0]["attributes"]["infertap.withheld_attributes"]
    assert request["spans"][0]["events"][0][2]["infertap.withheld_attributes"] == ["huge"]
    assert sum(name.startswith("part") for name in request["spans"][0]["attributes"]) >= 5


def test_what_was_taken_of_a_segment_is_not_lost_with_the_rest(otlp_receiver: Any, destination: Any) -> None:
    """The cap skips a segment in the middle: written stays written, what has no span is sampled, the rest is lost."""
    otlp_receiver.behave(http_status=429, after=2)
    one = destination("http/protobuf", {"batch_bytes_max": 30_000})
    requests = [request_payload(n, response="x" * 9_000) for n in range(12)]
    begun = segment(requests=(*requests, request_payload(12, span=False)))
    with pytest.raises(RetryableError):
        one.deliver([begun], {})
    counts = one.forfeit(begun, {})
    written = len(otlp_receiver.spans)
    assert 0 < written < 12
    by_outcome = {(outcome, cause): count for (_, _, outcome, cause), count in counts.items()}
    assert by_outcome == {("written", ""): written, ("lost", "spool_full"): 12 - written, ("sampled", ""): 1}
    assert one.keeps == frozenset()
