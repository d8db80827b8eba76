"""OTLP over HTTP on a real socket: what is taken, what is refused and how, in the sender's own format."""

import gzip
import json
import socket
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from google.protobuf.internal.encoder import _VarintBytes
from google.rpc.status_pb2 import Status
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SpanExportResult

from infertap.pipeline import Pipeline
from infertap_sidecar.receiver.http import HttpReceiver
from infertap_sidecar.receiver.intake import Intake
from infertap_sidecar.receiver.room import Room

LIMIT = 1 << 20
START_NS = 1_764_000_000_000_000_000
PROTOBUF, JSON = "application/x-protobuf", "application/json"
GOOD = Span(
    trace_id=b"t" * 16, span_id=b"s" * 8, name="good", start_time_unix_nano=START_NS, end_time_unix_nano=START_NS + 1
)
BAD = Span(
    trace_id=b"t" * 16, span_id=bytes(8), name="bad", start_time_unix_nano=START_NS, end_time_unix_nano=START_NS + 1
)


def body(*spans: Span) -> bytes:
    scope_spans = ScopeSpans(spans=spans)
    return ExportTraceServiceRequest(resource_spans=[ResourceSpans(scope_spans=[scope_spans])]).SerializeToString()


def wrapped(span: bytes) -> bytes:
    """A request of one span that is serialised already: as a message, a hostile one would fill the test's memory."""
    for _ in range(3):  # spans and scope_spans are field 2, resource_spans is field 1
        span = b"\x12" + _VarintBytes(len(span)) + span
    return b"\x0a" + span[1:]


def json_body(**fields: Any) -> bytes:
    span = {"traceId": "ab" * 16, "spanId": "cd" * 8, "name": "j", "startTimeUnixNano": str(START_NS), **fields}
    return json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}).encode()


@pytest.fixture
def port(servers: Any, intake: Intake) -> int:
    """The receiver behind a real server."""
    return int(servers.app(HttpReceiver(intake, Room(4 * LIMIT), bytes_max=LIMIT), lifespan="on"))


@pytest.fixture
def post(port: int) -> Callable[..., httpx.Response]:
    """Posts a body to the receiver."""

    def send(content: Any, content_type: str = PROTOBUF, path: str = "/v1/traces", **headers: str) -> httpx.Response:
        named = {"content-type": content_type, **{name.replace("_", "-"): text for name, text in headers.items()}}
        return httpx.post(f"http://127.0.0.1:{port}{path}", content=content, headers=named, timeout=120)

    return send


@pytest.mark.parametrize("compression", ["none", "gzip", "deflate"])
def test_the_real_exporter_is_satisfied(
    port: int, pipeline: Pipeline, spooled: Any, compression: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenTelemetry's own exporter succeeds, and the span is on the disk."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", compression)
    exporter = OTLPSpanExporter(f"http://127.0.0.1:{port}/v1/traces", timeout=60)
    span = TracerProvider(shutdown_on_exit=False).get_tracer("t").start_span("exported")
    span.end()
    assert exporter.export([span]) is SpanExportResult.SUCCESS  # type: ignore[list-item]
    exporter.shutdown()
    assert [found["name"] for found in spooled(pipeline)[1]] == ["exported"]


@pytest.mark.parametrize("content_type", [PROTOBUF, "Application/X-Protobuf; v=1"])
def test_protobuf_is_answered_in_protobuf(post: Any, content_type: str) -> None:
    """An empty message means that all was taken."""
    reply = post(body(GOOD), content_type)
    assert (reply.status_code, reply.headers["content-type"]) == (200, PROTOBUF)
    assert ExportTraceServiceResponse.FromString(reply.content) == ExportTraceServiceResponse()
    assert not ExportTraceServiceResponse.FromString(reply.content).HasField("partial_success")


def test_json_is_answered_in_json(post: Any, pipeline: Pipeline, spooled: Any) -> None:
    """With a charset and gzip, as some senders do."""
    reply = post(gzip.compress(json_body()), f"{JSON}; charset=utf-8", content_encoding="gzip")
    assert (reply.status_code, reply.headers["content-type"], reply.json()) == (200, JSON, {})
    assert [found["trace_id"] for found in spooled(pipeline)[1]] == ["ab" * 16]


def test_partial_success_says_what_was_rejected(post: Any) -> None:
    """Number and reason, in both formats; the good span is taken."""
    partial = ExportTraceServiceResponse.FromString(post(body(GOOD, BAD)).content).partial_success
    assert (partial.rejected_spans, partial.error_message) == (1, "rejected 1 spans: 1 invalid span_id")
    reply = post(json_body(spanId="00" * 8), JSON)
    assert reply.json() == {
        "partialSuccess": {"rejectedSpans": "1", "errorMessage": "rejected 1 spans: 1 invalid span_id"}
    }


def test_half_a_character_and_an_unreadable_resource_cost_no_neighbour(
    post: Any, pipeline: Pipeline, spooled: Any
) -> None:
    """The whole way: one request, one span repaired, one refused with its reason, one as it was."""
    deep: dict[str, Any] = {"stringValue": "x"}
    for _ in range(200):
        deep = {"arrayValue": {"values": [deep]}}
    good, half, bad = (json.loads(json_body(spanId=f"{number:016x}"))["resourceSpans"][0] for number in (1, 2, 3))
    half["scopeSpans"][0]["spans"][0]["name"] = "half \ud83d"
    bad["resource"] = {"attributes": [{"key": "k", "value": deep}]}
    reply = post(json.dumps({"resourceSpans": [good, half, bad]}).encode(), JSON)
    words = "rejected 1 spans: 1 with an unreadable resource"
    assert reply.json() == {"partialSuccess": {"rejectedSpans": "1", "errorMessage": words}}
    names = {found["span_id"]: found["name"] for found in spooled(pipeline)[1]}
    assert names[f"{2:016x}"] == "half \ufffd"
    assert set(names) == {f"{1:016x}", f"{2:016x}"}


def test_one_text_that_is_no_utf8_costs_one_span(post: Any, pipeline: Pipeline, spooled: Any) -> None:
    """In protobuf, which reads all or nothing: the sender hears how many were rejected, and the others are spooled."""
    bad = Span.FromString(GOOD.SerializeToString())
    bad.name, bad.span_id = "~~", b"z" * 8
    reply = post(body(bad, GOOD).replace(b"~~", b"\xff\xfe"))
    partial = ExportTraceServiceResponse.FromString(reply.content).partial_success
    assert (reply.status_code, partial.rejected_spans, partial.error_message) == (
        200, 1, "rejected 1 spans: 1 unreadable"
    )  # fmt: skip
    assert [found["name"] for found in spooled(pipeline)[1]] == ["good"]


def test_an_empty_request_is_fine(post: Any) -> None:
    """Probes send one."""
    assert post(b"").status_code == 200
    assert post(b"{}", JSON).json() == {}


@pytest.mark.parametrize(
    ("content", "content_type", "headers", "status"),
    [
        (b"\xff" * 40, PROTOBUF, {}, 400),
        (body(GOOD)[:-3], PROTOBUF, {}, 400),
        (b"<html>", JSON, {}, 400),
        (json_body(), PROTOBUF, {}, 400),
        (b"no gzip", PROTOBUF, {"content_encoding": "gzip"}, 400),
        (gzip.compress(body(GOOD))[:-9], PROTOBUF, {"content_encoding": "gzip"}, 400),
        (body(GOOD), "text/plain", {}, 415),
        (body(GOOD), "", {}, 415),
        (body(GOOD), PROTOBUF, {"content_encoding": "br"}, 415),
        (bytes(LIMIT + 1), PROTOBUF, {}, 413),
        (gzip.compress(bytes(100_000_000)), PROTOBUF, {"content_encoding": "gzip"}, 413),
    ],
    ids=[
        "random", "truncated", "html", "json as protobuf", "no gzip", "cut gzip", "text", "no type", "brotli",
        "too large", "bomb",
    ],
)  # fmt: skip
def test_bad_bodies_get_a_clear_refusal_and_nothing_is_spooled(
    post: Any, pipeline: Pipeline, spooled: Any, content: bytes, content_type: str, headers: Any, status: int
) -> None:
    """The status that OTLP names, with a reason in the sender's format and without a word of the body."""
    reply = post(content, content_type, **headers)
    assert reply.status_code == status
    message = reply.json()["message"] if content_type == JSON else Status.FromString(reply.content).message
    assert message
    assert "html" not in message
    assert spooled(pipeline) == ([], [])


def test_small_bodies_that_would_become_gigabytes_are_refused(servers: Any, intake: Intake) -> None:
    """Millions of empty events in 20 KB of gzip: 413, in protobuf and in JSON, and the next request is taken."""
    port = servers.app(HttpReceiver(intake, Room(64 << 20), bytes_max=20 << 20), lifespan="on")
    events = b'{"resourceSpans":[{"scopeSpans":[{"spans":[{"events":[' + b"{}," * 6_000_000 + b"{}]}]}]}]}"
    for content, content_type in ((wrapped(b"\x5a\x00" * 9_000_000), PROTOBUF), (events, JSON)):
        content = gzip.compress(content)
        assert len(content) < 30_000
        headers = {"content-type": content_type, "content-encoding": "gzip"}
        reply = httpx.post(f"http://127.0.0.1:{port}/v1/traces", content=content, headers=headers, timeout=120)
        assert reply.status_code == 413
    reply = httpx.post(f"http://127.0.0.1:{port}/v1/traces", content=body(GOOD), headers={"content-type": PROTOBUF})
    assert reply.status_code == 200


def test_a_hundred_megabytes_are_read_and_dropped(post: Any) -> None:
    """The sender gets its answer, not a broken pipe."""
    reply = post(chunk for _ in range(100) for chunk in [bytes(1_000_000)])
    assert reply.status_code == 413
    assert str(LIMIT) in Status.FromString(reply.content).message


@pytest.mark.parametrize("path", ["/", "/v1/metrics", "/v1/logs", "/v1/traces/", "/v1/traces/v1/traces"])
def test_other_paths_are_not_found(post: Any, path: str) -> None:
    """Only traces are taken, and the answer says where."""
    reply = post(body(GOOD), path=path)
    assert reply.status_code == 404
    assert "/v1/traces" in Status.FromString(reply.content).message


def test_other_methods_are_not_allowed(port: int) -> None:
    """The answer names the one that is."""
    reply = httpx.get(f"http://127.0.0.1:{port}/v1/traces")
    assert (reply.status_code, reply.headers["allow"]) == (405, "POST")


def test_a_full_receiver_says_when_to_come_again(post: Any, pipeline: Pipeline, spooled: Any) -> None:
    """503 with Retry-After; afterwards the same request is taken."""
    pipeline.inbox._from_others = pipeline.inbox.span_bytes_max
    reply = post(body(GOOD))
    assert (reply.status_code, reply.headers["retry-after"]) == (503, "1")
    pipeline.inbox._from_others = 0
    assert post(body(GOOD)).status_code == 200
    assert len(spooled(pipeline)[1]) == 1


def test_a_sender_that_leaves_in_the_middle_harms_nobody(port: int, post: Any, intake: Intake) -> None:
    """What it had sent is let go of."""
    with socket.create_connection(("127.0.0.1", port)) as sender:
        sender.sendall(
            b"POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-protobuf\r\n"
            b"content-length: 1000\r\n\r\n" + bytes(500)
        )
    assert post(body(GOOD)).status_code == 200
