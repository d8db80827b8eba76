"""The receiver's process ends when it is told to, whatever its parsers are at."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

DEADLINE_S = 120.0
STUCK = """
import sys, threading
from infertap_sidecar.cli import main
from infertap_sidecar.receiver import http, grpc

def stuck(*_, **__):
    print("stuck", flush=True)
    threading.Event().wait()

http.decompressed = grpc.spans_of_protobuf = stuck
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def stuck_receiver(
    tmp_path: Path, free_port: Callable[[], int]
) -> Iterator[tuple["subprocess.Popen[bytes]", int, int]]:
    """`infertap collect` with parsers that never end: the process, its HTTP port, its gRPC port."""
    http_port, grpc_port = free_port(), free_port()
    settings = ["--otlp-http", f"127.0.0.1:{http_port}", "--otlp-grpc", f"127.0.0.1:{grpc_port}"]
    settings += ["--admin", "127.0.0.1:0", "--connection-drain-s", "1", "--tables", str(tmp_path / "tables")]
    env = {name: value for name, value in os.environ.items() if not name.startswith(("INFERTAP_", "OTEL_"))}
    with (tmp_path / "output").open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", STUCK, "collect", *settings], cwd=tmp_path, env=env, stdout=output, stderr=output
        )
        yield process, http_port, grpc_port
        process.kill()
        process.wait()


def _post(port: int) -> None:
    url, headers = f"http://127.0.0.1:{port}/v1/traces", {"content-type": "application/x-protobuf"}
    # Which of both the sender sees is not what is tested here.
    with contextlib.suppress(httpx.TransportError):
        assert httpx.post(url, headers=headers, content=b"x", timeout=DEADLINE_S).status_code >= 500


def _call(port: int) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        export = channel.unary_unary("/opentelemetry.proto.collector.trace.v1.TraceService/Export")
        with pytest.raises(grpc.RpcError):
            export(b"x", timeout=DEADLINE_S)


@pytest.mark.parametrize("transport", ["http", "grpc"])
def test_a_parser_that_never_ends_holds_up_no_stop(
    stuck_receiver: tuple["subprocess.Popen[bytes]", int, int], receivers: Any, tmp_path: Path, transport: str
) -> None:
    """After the grace the process ends with code 0, and what it logged is complete."""
    process, http_port, grpc_port = stuck_receiver
    said = (tmp_path / "output").read_text
    receivers.wait_for(lambda: "taking OTLP" in said() or process.poll() is not None, DEADLINE_S)
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(_post, http_port) if transport == "http" else pool.submit(_call, grpc_port)
        try:
            receivers.wait_for(lambda: "stuck" in said(), DEADLINE_S)
            process.send_signal(signal.SIGTERM)
            assert process.wait(DEADLINE_S) == 0, said()
        finally:
            process.kill()
        asked.result(DEADLINE_S)
    assert "taking OTLP" in said()


def test_otlp_bytes_max_bounds_both_transports(tmp_path: Path, free_port: Callable[[], int]) -> None:
    """A request over it is refused over HTTP and gRPC; the default would take it."""
    http_port, grpc_port = free_port(), free_port()
    settings = ["--otlp-http", f"127.0.0.1:{http_port}", "--otlp-grpc", f"127.0.0.1:{grpc_port}"]
    settings += ["--admin", "127.0.0.1:0", "--tables", str(tmp_path / "tables"), "--otlp-bytes-max", "1000"]
    env = {name: value for name, value in os.environ.items() if not name.startswith(("INFERTAP_", "OTEL_"))}
    command = [
        sys.executable,
        "-m",
        "infertap_sidecar",
        "collect",
        *settings,
        "--drainer",
        "external",
        "--drain-s",
        "0",
    ]
    with subprocess.Popen(command, cwd=tmp_path, env=env, stderr=subprocess.DEVNULL) as process:
        try:
            with grpc.insecure_channel(f"127.0.0.1:{grpc_port}") as channel:
                grpc.channel_ready_future(channel).result(DEADLINE_S)
                with pytest.raises(grpc.RpcError) as refused:
                    channel.unary_unary(_EXPORT)(b"x" * 1_001, timeout=DEADLINE_S)
            assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            url, headers = f"http://127.0.0.1:{http_port}/v1/traces", {"content-type": "application/x-protobuf"}
            assert httpx.post(url, headers=headers, content=b"x" * 1_001, timeout=DEADLINE_S).status_code == 413
        finally:
            process.kill()


_EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
