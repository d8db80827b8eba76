"""The receiver's process ends when it is told to, whatever its parsers are at."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import grpc
import httpx
import pytest

STUCK = """
import sys, threading
from infertap_sidecar.cli import main
from infertap_sidecar.receiver import http, grpc

def stuck(*_, **__):
    print("stuck", flush=True)
    threading.Event().wait()

http.decompressed = grpc.from_protobuf = stuck
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def start_stuck(tmp_path: Path, free_port: Callable[[], int]) -> Callable[[], tuple["subprocess.Popen[str]", int, int]]:
    """Starts `infertap collect` with parsers that never end: the process, its HTTP port, its gRPC port."""

    def start() -> tuple["subprocess.Popen[str]", int, int]:
        http_port, grpc_port = free_port(), free_port()
        settings = ["--otlp-http", f"127.0.0.1:{http_port}", "--otlp-grpc", f"127.0.0.1:{grpc_port}"]
        settings += ["--admin", "127.0.0.1:0", "--connection-drain-s", "1", "--tables", str(tmp_path / "tables")]
        env = {name: value for name, value in os.environ.items() if not name.startswith(("INFERTAP_", "OTEL_"))}
        process = subprocess.Popen(
            [sys.executable, "-c", STUCK, "collect", *settings], cwd=tmp_path, env=env,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        return process, http_port, grpc_port

    return start


def _post(port: int) -> None:
    url, headers = f"http://127.0.0.1:{port}/v1/traces", {"content-type": "application/x-protobuf"}
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            httpx.post(url, headers=headers, content=b"x", timeout=2)
        except httpx.ReadTimeout:
            return
        except httpx.ConnectError:
            time.sleep(0.05)
    raise AssertionError("it does not listen")


def _call(port: int) -> None:
    # The channel waits longer after each refusal, so a slow start would eat the call's own time: connect first.
    with grpc.insecure_channel(f"127.0.0.1:{port}", options=[("grpc.max_reconnect_backoff_ms", 200)]) as channel:
        grpc.channel_ready_future(channel).result(timeout=60)
        export = channel.unary_unary("/opentelemetry.proto.collector.trace.v1.TraceService/Export")
        with pytest.raises(grpc.RpcError):
            export(b"x", timeout=5)


@pytest.mark.parametrize("transport", ["http", "grpc"])
def test_a_parser_that_never_ends_holds_up_no_stop(
    start_stuck: Callable[[], tuple["subprocess.Popen[str]", int, int]], transport: str
) -> None:
    """After the grace the process ends with code 0, and what it logged is complete."""
    process, http_port, grpc_port = start_stuck()
    try:
        _post(http_port) if transport == "http" else _call(grpc_port)
        process.send_signal(signal.SIGTERM)
        output, errors = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert "stuck" in output
    assert process.returncode == 0, errors
    assert "taking OTLP" in output + errors
