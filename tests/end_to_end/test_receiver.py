"""The receiver beside the proxy: spans of the model's process join the request, and are never rows."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context

Rows = Callable[..., list[dict[str, Any]]]
Start = Callable[..., Any]


def send_child(port: int, traceparent: str) -> None:
    """What an instrumented model server sends about its part of a request: a local root with content."""
    _, trace_id, span_id, _ = traceparent.split("-")
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(f"http://127.0.0.1:{port}/v1/traces", timeout=60)))
    parent = SpanContext(int(trace_id, 16), int(span_id, 16), True, TraceFlags(1))
    with provider.get_tracer("t").start_as_current_span("model", set_span_in_context(NonRecordingSpan(parent))) as span:
        span.set_attributes({"input.value": "in", "output.value": "out"})
    provider.shutdown()


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 90
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def receiver_pid(serve_pid: int) -> int:
    """The child of `infertap serve` that receives."""
    children = Path(f"/proc/{serve_pid}/task/{serve_pid}/children").read_text().split()
    (pid,) = [int(pid) for pid in children if "infertap_sidecar.receiver" in Path(f"/proc/{pid}/cmdline").read_text()]
    return pid


def has_ended(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_spans_of_the_model_process_join_the_request(start: Start, rows: Rows, free_port: Callable[[], int]) -> None:
    """The app's endpoint is not taken for a destination; a receiver that dies is started again, and stops with us."""
    upstream, http_port = start("uvicorn", "traced:app"), free_port()
    sidecar = start(
        "serve", "--upstream", upstream.url, "--admin", "127.0.0.1:0", "--otlp-http", f"127.0.0.1:{http_port}",
        env={"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://localhost:{http_port}", "OTEL_BSP_MAX_QUEUE_SIZE": "9"},
    )  # fmt: skip
    assert "OTEL_EXPORTER_OTLP_ENDPOINT points at this receiver" in sidecar.output
    traceparent = httpx.post(f"{sidecar.url}/predict", json={}).json()["traceparent"]
    send_child(http_port, traceparent)
    os.kill(receiver_pid(sidecar.process.pid), signal.SIGKILL)
    wait_for(lambda: sidecar.output.count("taking OTLP over") == 2)
    send_child(http_port, traceparent)
    second = receiver_pid(sidecar.process.pid)
    assert sidecar.stop() == 0
    # What is true of both processes is said by one of them, and by no second start.
    for words in (
        "recording to ./inference_tables",
        "points at this receiver",
        "OTEL_BSP_MAX_QUEUE_SIZE has no",
        " spooled",
    ):
        assert sidecar.output.count(words) == 1
    assert has_ended(second)

    (row,) = rows("inference", 1)
    spans = rows("spans", 3)
    assert {span["trace_id"] for span in spans} == {row["trace_id"]}
    parents = [span["parent_span_id"] for span in spans if span["name"] == "model"]
    assert parents == [row["span_id"], row["span_id"]]


def test_a_killed_sidecar_leaves_no_receiver(start: Start, free_port: Callable[[], int]) -> None:
    """The receiver notices that its parent has gone."""
    upstream, http_port = start("uvicorn", "traced:app"), free_port()
    sidecar = start(
        "serve", "--upstream", upstream.url, "--admin", "127.0.0.1:0", "--otlp-http", f"127.0.0.1:{http_port}"
    )
    receiver = receiver_pid(sidecar.process.pid)
    sidecar.kill()
    wait_for(lambda: has_ended(receiver))


def test_a_receiver_that_cannot_listen_stops_the_start(start: Start, free_port: Callable[[], int]) -> None:
    """A taken port is found out at the start, and said."""
    upstream = start("uvicorn", "traced:app")
    sidecar = start(
        "serve", "--upstream", upstream.url, "--admin", "127.0.0.1:0", "--otlp-grpc", f"127.0.0.1:{upstream.port}",
        probe=None,
    )  # fmt: skip
    assert sidecar.process.wait(120) == 1
    assert f"cannot listen on 127.0.0.1:{upstream.port}" in sidecar.output
