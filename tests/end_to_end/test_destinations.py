"""The destination rule in real processes: one destination, said aloud; OTLP received by a real receiver."""

import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest

Rows = Callable[..., list[dict[str, Any]]]
Start = Callable[..., Any]


def wait_for_spans(receiver: Any, least: int) -> list[Any]:
    deadline = time.monotonic() + 30
    while True:
        spans: list[Any] = receiver.spans
        if len(spans) >= least or time.monotonic() > deadline:
            return spans
        time.sleep(0.1)


def endpoint(receiver: Any, protocol: str) -> dict[str, str]:
    port = receiver.grpc_port if protocol == "grpc" else receiver.http_port
    return {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}",
        "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
        "OTEL_SERVICE_NAME": "zoo",
    }


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_an_endpoint_in_the_environment_means_otlp(start: Start, rows: Rows, otlp_receiver: Any, protocol: str) -> None:
    """The request arrives as one SERVER span with its bodies; no table is made."""
    server = start("uvicorn", "zoo:recorded", env=endpoint(otlp_receiver, protocol))
    httpx.post(f"{server.url}/echo", json={"q": 1, "api_key": "sk-nobody-may-see"})
    server.stop()
    (span,) = wait_for_spans(otlp_receiver, 1)
    assert "because OTEL_EXPORTER_OTLP_ENDPOINT is set; bodies leave this machine" in server.output
    text = str(span)
    assert "sk-nobody-may-see" not in text
    assert "http.response.status_code" in text
    assert "input.value" in text
    assert rows("inference") == []


def test_two_destinations_are_warned_about_and_one_is_used(start: Start, rows: Rows, otlp_receiver: Any) -> None:
    """With tables set beside an endpoint, OTLP wins, and the start says so at WARNING."""
    env = {**endpoint(otlp_receiver, "grpc"), "INFERTAP_TABLES": "./inference_tables"}
    server = start("uvicorn", "zoo:recorded", env=env)
    httpx.post(f"{server.url}/echo", json={})
    server.stop()
    assert len(wait_for_spans(otlp_receiver, 1)) == 1
    assert "TWO DESTINATIONS ARE SET" in server.output
    assert "INFERTAP_TABLES" in server.output
    assert rows("inference") == []


def test_both_is_two_full_copies(start: Start, rows: Rows, otlp_receiver: Any) -> None:
    """`both`, asked for by name, writes the row and sends the span."""
    env = {**endpoint(otlp_receiver, "http/protobuf"), "INFERTAP_DESTINATION": "both"}
    server = start("uvicorn", "zoo:recorded", env=env)
    for _ in range(10):
        httpx.post(f"{server.url}/echo", json={"q": 1})
    server.stop()
    assert len(wait_for_spans(otlp_receiver, 10)) == 10
    assert len(rows("inference", 10)) == 10


def test_a_dead_collector_costs_nothing_but_time(
    start: Start, otlp_receiver: Any, free_port: Callable[[], int], tmp_path: Any
) -> None:
    """Records wait in the spool while nobody listens, and arrive once somebody does."""
    env = endpoint(otlp_receiver, "grpc")
    otlp_receiver.behave(http_status=503, grpc_code="UNAVAILABLE")
    server = start("uvicorn", "zoo:recorded", env={**env, "INFERTAP_DRAIN_S": "1"})
    for _ in range(5):
        assert httpx.post(f"{server.url}/echo", json={"q": 1}).status_code == 200
    server.stop()
    assert "wait in" in server.output
    assert otlp_receiver.spans == []
    otlp_receiver.behave()
    again = start("uvicorn", "zoo:recorded", env=env)
    assert len(wait_for_spans(otlp_receiver, 5)) == 5
    again.stop()


def test_two_apps_share_a_spool_folder_and_mix_nothing(start: Start, rows: Rows, tmp_path: Any) -> None:
    """Different destinations below one spool_dir have folders of their own."""
    env = {"INFERTAP_SPOOL_DIR": str(tmp_path / "spool")}
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    first = start("uvicorn", "zoo:recorded", folder=tmp_path / "a", env=env)
    second = start("uvicorn", "zoo:recorded", folder=tmp_path / "b", env=env)
    for count, server in ((3, first), (4, second)):
        for _ in range(count):
            httpx.post(f"{server.url}/echo", json={"who": count})
    first.stop()
    second.stop()
    assert [row["request"] for row in rows("inference", 3, folder=tmp_path / "a")] == ['{"who":3}'] * 3
    assert [row["request"] for row in rows("inference", 4, folder=tmp_path / "b")] == ['{"who":4}'] * 4
