"""What the worker costs per record: assemble, redact, pack, append, fsync by group; thread CPU time."""

import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import orjson
from measure import pinned, show

from infertap import Config
from infertap.build import build_pipeline
from infertap.capture import Capture, CaptureLimits, Sealed, snapshot
from infertap.choice import choose
from infertap.errors import SpoolError
from infertap.events import EventLog
from infertap.otel_env import OtelEnvironment
from infertap.pipeline import Pipeline
from infertap.trace import ServerSpan
from infertap.trace_context import random_bits

RECORDS = 2000
ROUNDS = 7


def chat_body(size: int) -> bytes:
    """A chat request of about `size` bytes, as a client sends it."""
    messages = []
    while len(orjson.dumps({"messages": messages})) < size - 150:
        messages.append({"role": "user", "content": "What is the weather like in Lisbon today? " * 10})
    return orjson.dumps({"model": "m", "messages": messages, "max_tokens": 100, "temperature": 0.7})


def exchange(pipeline: Pipeline, body: bytes) -> Sealed:
    scope: dict[str, Any] = {
        "method": "POST", "path": "/v1/chat/completions", "raw_path": b"", "query_string": b"a=1", "scheme": "http",
        "http_version": "1.1", "root_path": "", "client": ("127.0.0.1", 5), "server": ("127.0.0.1", 8000),
        "headers": [
            (b"host", b"localhost"), (b"user-agent", b"x"), (b"content-type", b"application/json"),
            (b"authorization", b"Bearer abcdefghijk"), (b"accept", b"*/*"), (b"content-length", b"1000"),
        ],
    }  # fmt: skip
    bits = random_bits(256)
    span = ServerSpan(pipeline, None, None, bits, pipeline.trace.pure, time.time_ns())
    limits = CaptureLimits(pipeline.budget, 1 << 24)
    capture = Capture(snapshot(scope), tuple(scope["headers"]), limits, span, time.perf_counter_ns(), 150)
    capture.received({"type": "http.request", "body": body})
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    capture.sent({"type": "http.response.start", "status": 200, "headers": headers}, time.perf_counter_ns)
    capture.sent({"type": "http.response.body", "body": body}, time.perf_counter_ns)
    return capture.close(duration_ns=1_000_000, route=None)


def measure(size: int) -> float:
    """Microseconds of thread CPU per record."""
    figures = []
    with tempfile.TemporaryDirectory() as folder:
        config = Config(tables=folder, queue_bytes_max="8GiB", drainer="external")
        choice = choose(config, OtelEnvironment.read({}), cwd=Path(folder))
        pipeline = build_pipeline(config, choice, EventLog())
        body = chat_body(size)
        for _ in range(ROUNDS):
            for _ in range(RECORDS):
                pipeline.submit(exchange(pipeline, body))
            began = time.thread_time_ns()
            try:
                pipeline.worker.spool_queue()
            except SpoolError as error:
                raise SystemExit(f"the spool took nothing: {error}") from error
            figures.append((time.thread_time_ns() - began) / RECORDS / 1000)
        pipeline.worker.writer.close()
    return statistics.median(figures)


def main() -> None:
    rows = [(f"2 x {size:,} B", f"{measure(size):.1f}") for size in (1024, 2048, 16384)]
    show("Worker: thread CPU per record (assemble, redact, pack, spool with fsync)", ("bodies", "us/record"), rows)


if __name__ == "__main__":
    with pinned():
        os.environ.pop("OTEL_EXPORTER_OTLP_ENDPOINT", None)
        main()
