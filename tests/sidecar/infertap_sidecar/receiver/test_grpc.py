"""OTLP over gRPC on a real socket: status codes, limits and partial success."""

import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SpanExportResult

from infertap.clock import SystemClock
from infertap.pipeline import Pipeline
from infertap_sidecar.address import Address
from infertap_sidecar.receiver.grpc import GrpcReceiver
from infertap_sidecar.receiver.intake import Intake
from infertap_sidecar.receiver.room import Room

LIMIT = 1 << 20
START_NS = 1_764_000_000_000_000_000
EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
METRICS = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export"
Call = Callable[..., ExportTraceServiceResponse]


def body(*spans: Span) -> bytes:
    scope_spans = ScopeSpans(spans=spans)
    return ExportTraceServiceRequest(resource_spans=[ResourceSpans(scope_spans=[scope_spans])]).SerializeToString()


def span(number: int, **fields: object) -> Span:
    ids = {"trace_id": b"t" * 16, "span_id": number.to_bytes(8)}
    return Span(
        **{**ids, "name": f"s{number}", "start_time_unix_nano": START_NS, "end_time_unix_nano": START_NS + 1, **fields}
    )


@pytest.fixture
def room() -> Room:
    """Room for a few of the largest messages."""
    return Room(3 * LIMIT)


@pytest.fixture
def receiver(intake: Intake, room: Room) -> Iterator[GrpcReceiver]:
    """A started server on a free port."""
    server = GrpcReceiver(intake, room, SystemClock(), Address("127.0.0.1", 0), bytes_max=LIMIT)
    server.start()
    yield server
    server.stop(5.0)


@pytest.fixture
def call(receiver: GrpcReceiver) -> Iterator[Call]:
    """Calls Export with raw bytes."""
    with grpc.insecure_channel(str(receiver.address)) as channel:

        def send(
            content: bytes, method: str = EXPORT, compression: grpc.Compression = grpc.Compression.NoCompression
        ) -> ExportTraceServiceResponse:
            export = channel.unary_unary(method, response_deserializer=ExportTraceServiceResponse.FromString)
            response: ExportTraceServiceResponse = export(content, timeout=60, compression=compression)
            return response

        yield send


@pytest.mark.parametrize("compression", [grpc.Compression.NoCompression, grpc.Compression.Gzip])
def test_the_real_exporter_is_satisfied(
    receiver: GrpcReceiver, pipeline: Pipeline, spooled: Callable[..., object], compression: grpc.Compression
) -> None:
    """OpenTelemetry's own exporter succeeds, and the span is on the disk."""
    exporter = OTLPSpanExporter(f"http://{receiver.address}", insecure=True, compression=compression, timeout=60)
    exported = TracerProvider(shutdown_on_exit=False).get_tracer("t").start_span("exported")
    exported.end()
    assert exporter.export([exported]) is SpanExportResult.SUCCESS  # type: ignore[list-item]
    exporter.shutdown()
    _, spans = spooled(pipeline)  # type: ignore[misc]
    assert [found["name"] for found in spans] == ["exported"]


def test_partial_success_says_what_was_rejected(call: Call) -> None:
    """Number and reason; nothing where all was taken."""
    assert not call(body(span(1))).HasField("partial_success")
    partial = call(body(span(2), span(3, trace_id=b"short"))).partial_success
    assert (partial.rejected_spans, partial.error_message) == (1, "rejected 1 spans: 1 invalid trace_id")


@pytest.mark.parametrize(
    "content", [b"\xff" * 40, body(span(1))[:-3], b"GET / HTTP/1.1"], ids=["random", "cut", "http"]
)
def test_what_is_no_request_is_an_invalid_argument(call: Call, content: bytes) -> None:
    """The sender's mistake, not to be sent again."""
    with pytest.raises(grpc.RpcError) as refused:
        call(content)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("compression", [grpc.Compression.NoCompression, grpc.Compression.Gzip])
def test_a_message_over_the_limit_is_refused_compressed_or_not(call: Call, compression: grpc.Compression) -> None:
    """A bomb of a few kilobytes counts by what it unfolds to."""
    with pytest.raises(grpc.RpcError) as refused:
        call(body(span(1, name="x" * 10 * LIMIT)), compression=compression)
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert not call(body(span(2))).HasField("partial_success")


def test_a_full_receiver_says_when_to_come_again(call: Call, pipeline: Pipeline) -> None:
    """RESOURCE_EXHAUSTED with RetryInfo, without which a sender would give up."""
    pipeline.inbox._from_others = pipeline.inbox.span_bytes_max
    with pytest.raises(grpc.RpcError) as refused:
        call(body(span(1)))
    pipeline.inbox._from_others = 0
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    details = Status.FromString(dict(refused.value.trailing_metadata())["grpc-status-details-bin"]).details
    retry = RetryInfo()
    assert details[0].Unpack(retry)
    assert retry.retry_delay.seconds == 1
    assert not call(body(span(1))).HasField("partial_success")


def test_a_message_is_not_read_before_there_is_room_for_the_largest(call: Call, room: Room) -> None:
    """Who finds none hears when to come again, and all of it comes back."""
    assert room.take(room.bytes_max)
    with pytest.raises(grpc.RpcError) as refused:
        call(body(span(1)))
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert refused.value.details() == "too many bytes are being received at once"
    assert "grpc-status-details-bin" in dict(refused.value.trailing_metadata())
    assert room.taken == room.bytes_max
    room.give_back(room.bytes_max)
    assert not call(body(span(1))).HasField("partial_success")
    with pytest.raises(grpc.RpcError):
        call(body(span(1))[:-3])
    assert room.taken == 0


def test_of_many_large_messages_only_as_many_are_held_as_there_is_room_for(intake: Intake) -> None:
    """Sixteen senders at once, room for two: the others wait where they are, or are sent away."""
    room = Room(2 * LIMIT + 1)
    server = GrpcReceiver(intake, room, SystemClock(), Address("127.0.0.1", 0), bytes_max=LIMIT)
    most = 0
    take = room.take

    def watched(size: int, wait_s_max: float = 0.0) -> bool:
        nonlocal most
        taken = take(size, wait_s_max)
        most = max(most, room.taken)
        return taken

    room.take = watched  # type: ignore[method-assign]
    server.start()
    with grpc.insecure_channel(str(server.address)) as channel, ThreadPoolExecutor(16) as senders:
        export = channel.unary_unary(EXPORT)

        def send(number: int) -> grpc.StatusCode:
            try:
                export(body(span(number, name="x" * (LIMIT - 1_000))), timeout=60)
            except grpc.RpcError as error:
                return error.code()  # type: ignore[no-any-return]
            return grpc.StatusCode.OK

        answers = set(senders.map(send, range(1, 17)))
    server.stop(5.0)
    assert most <= 2 * LIMIT + 1
    assert grpc.StatusCode.OK in answers
    # Each of them tells a sender to try again.
    assert answers <= {grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.CANCELLED}
    assert room.taken == 0


def test_other_services_are_unimplemented(call: Call) -> None:
    """Metrics are not taken, and the sender hears so."""
    with pytest.raises(grpc.RpcError) as refused:
        call(b"", method=METRICS)
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_a_taken_port_is_an_error(intake: Intake) -> None:
    """Two receivers must not share a port without a word."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = Address("127.0.0.1", other.getsockname()[1])
        with pytest.raises(OSError, match=f"cannot listen on {address}: address already in use .--otlp-grpc"):
            GrpcReceiver(intake, Room(LIMIT), SystemClock(), address, bytes_max=LIMIT)


def test_http_on_the_grpc_port_does_not_stop_it(receiver: GrpcReceiver, call: Call) -> None:
    """Plain HTTP sent to the gRPC port, as in a well-known sample, is that sender's problem."""
    with socket.create_connection((receiver.address.host, receiver.address.port)) as sender:
        sender.sendall(b"POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n")
        sender.recv(1000)
    assert not call(body(span(1))).HasField("partial_success")


def test_a_message_of_too_many_elements_is_refused(intake: Intake) -> None:
    """INVALID_ARGUMENT: sending it again is no use."""
    server = GrpcReceiver(intake, Room(64 << 20), SystemClock(), Address("127.0.0.1", 0), bytes_max=20 << 20)
    server.start()
    try:
        with grpc.insecure_channel(str(server.address)) as channel:
            export = channel.unary_unary(EXPORT)
            with pytest.raises(grpc.RpcError) as caught:
                export(b"\x0a\x00" * 2_000_000, timeout=60)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "elements" in caught.value.details()
    finally:
        server.stop(5.0)
