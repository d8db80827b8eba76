"""`infertap collect` as a process: real exporters in, tables out."""

import contextlib
import json
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, TraceState, set_span_in_context

Rows = Callable[..., list[dict[str, Any]]]
Start = Callable[..., Any]


def trace(exporter: SpanExporter, *, remote_parent: int = 0, state: str = "") -> int:
    """Sends a root with content and a child of it; the trace id."""
    provider = TracerProvider(resource=Resource({"service.name": "scorer"}), shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer("test")
    context = None
    if remote_parent:
        trace_state = TraceState.from_header([state])
        parent = SpanContext(remote_parent, remote_parent, True, TraceFlags(1), trace_state)
        context = set_span_in_context(NonRecordingSpan(parent))
    with tracer.start_as_current_span("root", context) as root:
        root.set_attribute("mlflow.spanInputs", json.dumps({"a": 1, "password": "hunter2"}))
        root.set_attribute("mlflow.spanOutputs", json.dumps({"b": 2}))
        with tracer.start_as_current_span("child"):
            pass
    provider.shutdown()
    return root.get_span_context().trace_id


def test_mlflows_kind_of_traces_get_their_inference_table(
    start: Start, rows: Rows, free_port: Callable[[], int]
) -> None:
    """Over HTTP and gRPC, one redacted row a trace, with every span; the ledger balances."""
    grpc_port = free_port()
    process = start("collect", "--otlp-grpc", f"127.0.0.1:{grpc_port}", "--admin", "127.0.0.1:0")
    ids = {
        f"{trace(HttpExporter(f'{process.url}/v1/traces', timeout=60)):032x}",
        f"{trace(GrpcExporter(f'http://127.0.0.1:{grpc_port}', insecure=True, timeout=60)):032x}",
    }
    process.stop()
    found = rows("inference", 2)
    assert {row["trace_id"] for row in found} == ids
    assert {row["request"] for row in found} == {'{"a":1,"password":"[REDACTED]"}'}
    assert {(row["protocol"], row["service_name"], row["status_code"]) for row in found} == {("mlflow", "scorer", 200)}
    spans = rows("spans", 4)
    assert sorted(span["name"] for span in spans) == ["child", "child", "root", "root"]
    roots = {span["span_id"]: span["request_id"] for span in spans if span["name"] == "root"}
    assert roots == {row["span_id"]: row["request_id"] for row in found}
    ledger: dict[str, int] = {}
    for entry in rows("ledger"):
        ledger[entry["outcome"]] = ledger.get(entry["outcome"], 0) + entry["count"]
    assert (ledger["seen"], ledger["written"]) == (2, 2)
    assert "hunter2" not in process.output


def test_remote_parents_make_rows_and_marked_ones_do_not(start: Start, rows: Rows) -> None:
    """A root under a caller's span is a request; one inside a recorded request is not."""
    process = start("collect", "--admin", "127.0.0.1:0")
    trace(HttpExporter(f"{process.url}/v1/traces", timeout=60), remote_parent=7)
    trace(HttpExporter(f"{process.url}/v1/traces", timeout=60), remote_parent=8, state="infertap=0000000000000008")
    process.stop()
    (row,) = rows("inference", 1)
    assert row["parent_span_id"] == f"{7:016x}"
    assert len(rows("spans", 4)) == 4


def test_what_was_accepted_survives_a_kill(start: Start, rows: Rows) -> None:
    """Accepted means spooled: after kill -9 the next start delivers it, once."""
    process = start("collect", "--admin", "127.0.0.1:0", env={"INFERTAP_DRAINER": "external"})
    trace(HttpExporter(f"{process.url}/v1/traces", timeout=60))
    process.process.send_signal(signal.SIGKILL)
    process.process.wait(120)
    start("collect", "--admin", "127.0.0.1:0")
    assert len(rows("spans", 2)) == 2
    assert len(rows("inference", 1)) == 1


def test_with_an_otlp_destination_spans_go_on_and_there_are_no_rows(
    start: Start, otlp_receiver: Any, rows: Rows, tmp_path: Any
) -> None:
    """The same ids, kinds and attributes reach the Collector behind, redacted."""
    endpoint = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{otlp_receiver.grpc_port}"}
    process = start("collect", "--admin", "127.0.0.1:0", env=endpoint)
    trace_id = trace(HttpExporter(f"{process.url}/v1/traces", timeout=60))
    process.stop()
    assert sorted(span["name"] for span in otlp_receiver.spans) == ["child", "root"]
    assert {span["trace_id"] for span in otlp_receiver.spans} == {f"{trace_id:032x}"}
    assert "hunter2" not in json.dumps(otlp_receiver.requests)
    assert not (tmp_path / "inference_tables").exists()


@pytest.mark.parametrize("same", [True, False], ids=["same-tables", "other-tables"])
def test_spans_that_come_back_to_their_own_tables_are_not_doubled(
    start: Start, rows: Rows, tmp_path: Path, same: bool
) -> None:
    """An app that writes the tables and sends to a collect of the same ones: each span and row once; of others: both
    have the spans, and the row stays where the bodies are."""
    (tmp_path / "other").mkdir()
    where = tmp_path if same else tmp_path / "other"
    collect = start("collect", "--admin", "127.0.0.1:0", folder=where)
    env = {
        "INFERTAP_DESTINATION": "both",
        "OTEL_EXPORTER_OTLP_ENDPOINT": collect.url,
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
    }
    app = start("uvicorn", "hostile:recorded", env=env)
    assert httpx.post(f"{app.url}/ask", json={"prompt": "p"}, timeout=60).status_code == 200
    app.stop()
    collect.stop()
    (state,) = (tmp_path / "inference_tables" / ".spool").glob("table-otlp-*/drainer.json")
    delivered = json.loads(state.read_text())["destinations"]
    assert {name: delivered[name]["records"] for name in delivered} == {"table": 1, "otlp": 1}
    assert len(rows("inference", 1)) == 1
    assert sorted(span["name"] for span in rows("spans", 2)) == ["POST /ask", "retrieve"]
    if not same:
        assert sorted(span["name"] for span in rows("spans", 2, where)) == ["POST /ask", "retrieve"]
        assert rows("inference", 0, where) == []


def test_the_operators_port_answers(start: Start, free_port: Callable[[], int]) -> None:
    """Health and metrics, as for serve."""
    admin = free_port()
    start("collect", "--admin", f"127.0.0.1:{admin}")
    assert httpx.get(f"http://127.0.0.1:{admin}/readyz").json() == {"ready": True}
    assert "infertap_spool_bytes" in httpx.get(f"http://127.0.0.1:{admin}/metrics").text


SMALL = {"INFERTAP_QUEUE_BYTES_MAX": "16MiB", "INFERTAP_CAPTURE_BYTES_MAX": "1MiB"}
EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
PROTOBUF = {"content-type": "application/x-protobuf"}


def grpc_status(channel: grpc.Channel) -> grpc.StatusCode:
    """What a sender of an empty request hears."""
    try:
        channel.unary_unary(EXPORT)(b"", timeout=60)
    except grpc.RpcError as error:
        return error.code()  # type: ignore[no-any-return]
    return grpc.StatusCode.OK


def test_idle_grpc_calls_shut_nobody_out(start: Start, free_port: Callable[[], int]) -> None:
    """Three calls that never send: HTTP is taken all the time, and gRPC as soon as those have lost their turns."""
    grpc_port = free_port()
    process = start("collect", "--otlp-grpc", f"127.0.0.1:{grpc_port}", "--admin", "127.0.0.1:0", env=SMALL)
    done = threading.Event()

    def nothing() -> Iterator[bytes]:
        done.wait()
        yield from ()

    with grpc.insecure_channel(f"127.0.0.1:{grpc_port}") as channel, ThreadPoolExecutor(1) as other:
        idle = [channel.stream_unary(EXPORT).future(nothing()) for _ in range(3)]
        try:
            statuses: set[int] = set()
            deadline_s = time.monotonic() + 60
            answer = other.submit(grpc_status, channel)
            while not (answer.done() and answer.result() is grpc.StatusCode.OK):
                assert time.monotonic() < deadline_s
                if answer.done():
                    # What an exporter does, too.
                    assert answer.result() in (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.CANCELLED)
                    answer = other.submit(grpc_status, channel)
                posted = httpx.post(f"{process.url}/v1/traces", content=bytes(0), headers=PROTOBUF, timeout=60)
                large = httpx.post(
                    f"{process.url}/v1/traces", content=b"\x7a" * 4_000_000, headers=PROTOBUF, timeout=60
                )
                statuses |= {posted.status_code, large.status_code}
        finally:
            done.set()
    assert statuses == {200, 400}
    # One lost its turn to the call above; whether the others had lost theirs by then is the machine's matter.
    assert any(call.code() is not grpc.StatusCode.OK for call in idle)


def test_http_senders_that_never_finish_leave_grpc_its_room(start: Start, free_port: Callable[[], int]) -> None:
    """As much as HTTP may hold waits for its end; the first gRPC call is taken."""
    grpc_port = free_port()
    process = start("collect", "--otlp-grpc", f"127.0.0.1:{grpc_port}", "--admin", "127.0.0.1:0", env=SMALL)
    with contextlib.ExitStack() as stack:
        for _ in range(2):
            sender = stack.enter_context(socket.create_connection(("127.0.0.1", int(process.url.rpartition(":")[2]))))
            size = 8 << 20
            sender.sendall(
                b"POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-protobuf\r\n"
                b"content-length: %d\r\n\r\n" % size + bytes(size - 1)
            )
        with grpc.insecure_channel(f"127.0.0.1:{grpc_port}") as channel:
            assert grpc_status(channel) is grpc.StatusCode.OK


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"INFERTAP_DESTINATION": "none"}, "nothing to collect for"),
        ({"INFERTAP_DESTINATION": "otlp"}, "the receiver itself"),
        ({"INFERTAP_OTLP_GRPC": "nonsense"}, "is no address"),
    ],
)
def test_a_start_that_makes_no_sense_is_refused(
    start: Start, environment: dict[str, str], variables: dict[str, str], said: str
) -> None:
    """Exit code 2, and the reason; otlp without an endpoint means the port of the receiver itself."""
    arguments = ("--admin", "127.0.0.1:0", "--otlp-grpc", "127.0.0.1:4317")
    if "INFERTAP_OTLP_GRPC" in variables:
        arguments = arguments[:2]
    process = start("collect", *arguments, env=variables, probe=None)
    assert process.process.wait(120) == 2
    assert said in process.output
