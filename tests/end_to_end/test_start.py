"""Starts that cannot work, and starts that must work all the same."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

Rows = Callable[..., list[dict[str, Any]]]
Start = Callable[..., Any]
WRONG = {"INFERTAP_QUEUE_BYTES_MAX": "soon", "INFERTAP_DESTINATION": "somewhere"}


@pytest.mark.parametrize("lifespan", ["auto", "on"])
def test_wrong_settings_stop_a_server_with_lifespan(start: Start, lifespan: str) -> None:
    """All problems are in the output, and nothing listens."""
    server = start("uvicorn", "zoo:recorded", "--lifespan", lifespan, env=WRONG, probe=None)
    assert server.process.wait(120) != 0
    assert "INFERTAP_QUEUE_BYTES_MAX" in server.output
    assert "INFERTAP_DESTINATION" in server.output


def test_wrong_settings_without_lifespan_pass_traffic_unrecorded(start: Start, rows: Rows) -> None:
    """One ERROR names the problems; requests are answered; no row appears."""
    server = start("uvicorn", "zoo:recorded", "--lifespan", "off", env=WRONG)
    for _ in range(3):
        assert httpx.post(f"{server.url}/echo", json={"a": 1}).json() == {"a": 1}
    server.stop()
    assert server.output.count("INFERTAP_QUEUE_BYTES_MAX") == 1
    assert rows("inference") == []


def test_mistakes_in_otel_variables_never_stop_an_app(start: Start, rows: Rows) -> None:
    """A protocol that does not exist is one ERROR, and nothing goes to another destination instead."""
    env = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4317", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"}
    server = start("uvicorn", "zoo:recorded", env=env)
    assert httpx.post(f"{server.url}/echo", json={}).status_code == 200
    server.stop()
    assert "http/json" in server.output
    assert rows("inference") == []


def test_kubernetes_service_variables_are_no_settings(start: Start, rows: Rows) -> None:
    """A Service named infertap puts INFERTAP_PORT into every pod; nobody is warned, everything is recorded."""
    server = start("uvicorn", "zoo:recorded", env={"INFERTAP_PORT": "tcp://10.0.0.1:80", "INFERTAP_TABEL": "x"})
    httpx.post(f"{server.url}/echo", json={})
    server.stop()
    assert "INFERTAP_PORT" not in server.output
    assert "INFERTAP_TABEL is no setting" in server.output
    assert len(rows("inference", 1)) == 1


def test_an_unwritable_place_harms_no_traffic(start: Start, tmp_path: Path) -> None:
    """Where neither spool nor table can be written, requests are answered and a warning says what is lost."""
    (tmp_path / "file").write_text("not a folder")
    server = start("uvicorn", "zoo:recorded", env={"INFERTAP_TABLES": str(tmp_path / "file" / "tables")})
    assert httpx.post(f"{server.url}/echo", json={"a": 1}).json() == {"a": 1}
    assert server.stop() in (0, -15, 143)
    assert "records are being lost" in server.output


def test_the_apps_process_stays_light(tmp_path: Path) -> None:
    """After a recorded request no Delta, Arrow, gRPC or protobuf module is in the app's process."""
    script = """
import asyncio, sys
import httpx
from infertap import Config, InferenceMiddleware
sys.path.insert(0, sys.argv[1])
import zoo

async def main():
    app = InferenceMiddleware(zoo.app, config=Config(tables="./inference_tables", drain_s=120))
    inbox, outbox = asyncio.Queue(), asyncio.Queue()
    life = asyncio.create_task(app({"type": "lifespan", "asgi": {}}, inbox.get, outbox.put))
    await inbox.put({"type": "lifespan.startup"})
    assert (await outbox.get())["type"] == "lifespan.startup.complete"
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app)) as client:
        assert (await client.post("http://x/echo", json={"a": 1})).status_code == 200
    await inbox.put({"type": "lifespan.shutdown"})
    assert (await outbox.get())["type"] == "lifespan.shutdown.complete"
    await life

asyncio.run(main())
heavy = ("arro3", "deltalake", "grpc", "google.protobuf", "opentelemetry.exporter", "opentelemetry.proto", "pyarrow")
print(sorted(name for name in sys.modules if name.startswith(heavy)))
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(Path(__file__).parent / "apps")],
        cwd=tmp_path, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"
    assert (tmp_path / "inference_tables" / "inference" / "_delta_log").is_dir()


def test_an_independent_engine_reads_the_same_rows(start: Start, rows: Rows, tmp_path: Path) -> None:
    """chDB reads what deltalake reads."""
    server = start("uvicorn", "zoo:recorded")
    for number in range(5):
        httpx.post(f"{server.url}/echo", json={"n": number})
    server.stop()
    expected = sorted(row["request"] for row in rows("inference", 5))
    path = tmp_path / "inference_tables" / "inference"
    query = f"select request from deltaLakeLocal('{path}') order by request"
    # chDB opens files below its working directory only.
    done = subprocess.run(
        [sys.executable, "-c", "import chdb, sys; print(chdb.query(sys.argv[1], 'TSVRaw'))", query],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.stdout.strip().split("\n") == expected, done.stderr
