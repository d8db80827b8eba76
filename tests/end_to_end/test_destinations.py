"""The destination rule in real processes: one destination, said aloud; OTLP received by a real receiver."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

Rows = Callable[..., list[dict[str, Any]]]
Start = Callable[..., Any]


def wait_for_spans(receiver: Any, least: int) -> list[Any]:
    deadline = time.monotonic() + 90
    while True:
        spans: list[Any] = receiver.spans
        if len(spans) >= least or time.monotonic() > deadline:
            return spans
        time.sleep(0.1)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 90
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def endpoint(receiver: Any, protocol: str) -> dict[str, str]:
    port = receiver.grpc_port if protocol == "grpc" else receiver.http_port
    return {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}",
        "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
        "OTEL_SERVICE_NAME": "zoo",
        # A receiver that answers late would get the same spans a second time.
        "OTEL_EXPORTER_OTLP_TIMEOUT": "60",
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


def test_both_writes_the_row_and_sends_the_span(start: Start, rows: Rows, otlp_receiver: Any) -> None:
    """`both`, asked for by name: the bodies in the table, references to them on the span."""
    env = {**endpoint(otlp_receiver, "http/protobuf"), "INFERTAP_DESTINATION": "both"}
    server = start("uvicorn", "zoo:recorded", env=env)
    for _ in range(10):
        httpx.post(f"{server.url}/echo", json={"q": 1})
    server.stop()
    spans = wait_for_spans(otlp_receiver, 10)
    assert sorted(span["attributes"]["infertap.request_id"] for span in spans) == sorted(
        row["request_id"] for row in rows("inference", 10)
    )
    for span in spans:
        reference = f"/inference_tables/inference?request_id={span['attributes']['infertap.request_id']}"
        assert span["attributes"]["gen_ai.input.messages_ref"].endswith(reference)
        assert not {"input.value", "output.value"} & set(span["attributes"])


@pytest.mark.parametrize("dead", ["otlp", "table"])
def test_with_both_a_dead_destination_harms_the_other_one_nothing(
    start: Start, rows: Rows, otlp_receiver: Any, tmp_path: Any, dead: str
) -> None:
    """While one is away the other gets everything; once it is back it gets the same, each request once."""
    env = {**endpoint(otlp_receiver, "grpc"), "INFERTAP_DESTINATION": "both", "INFERTAP_SPOOL_DIR": "spool"}
    tables = tmp_path / "inference_tables"
    if dead == "otlp":
        otlp_receiver.behave(grpc_code="UNAVAILABLE")
    else:
        tables.write_text("no folder")
    server = start("uvicorn", "zoo:recorded", env={**env, "INFERTAP_DRAIN_S": "2"})
    for number in range(5):
        assert httpx.post(f"{server.url}/echo", json={"q": number}).status_code == 200
    alive = rows("inference", 5) if dead == "otlp" else wait_for_spans(otlp_receiver, 5)
    assert len(alive) == 5
    server.stop()
    if dead == "otlp":
        assert otlp_receiver.spans == []
        otlp_receiver.behave()
    else:
        tables.unlink()
    again = start("uvicorn", "zoo:recorded", env=env)
    assert len(wait_for_spans(otlp_receiver, 5)) == 5
    assert len(rows("inference", 5)) == 5
    again.stop()
    assert (len(otlp_receiver.spans), len(rows("inference", 5))) == (5, 5)


def test_mlflows_third_example_against_a_grpc_port(start: Start, otlp_receiver: Any) -> None:
    """http/protobuf to a Collector's gRPC port: the start names the fix in one line, before any request."""
    url = f"http://127.0.0.1:{otlp_receiver.grpc_port}"
    env = {
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{url}/v1/traces",
        "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf",
    }
    server = start("uvicorn", "zoo:recorded", env=env)
    wait_until(lambda: "speaks gRPC: set OTEL_EXPORTER_OTLP_PROTOCOL=grpc, or use the HTTP port" in server.output)
    server.stop()


def resource(span: Any) -> dict[str, Any]:
    found: dict[str, Any] = span["resource"]
    return found


STANDARD: list[tuple[dict[str, str], Callable[[list[Any]], bool]]] = [
    ({"OTEL_SERVICE_NAME": "mine"}, lambda spans: resource(spans[0])["service.name"] == "mine"),
    ({"OTEL_RESOURCE_ATTRIBUTES": "a=1,service.name=other"}, lambda spans: resource(spans[0])["a"] == "1"),
    ({"OTEL_EXPERIMENTAL_RESOURCE_DETECTORS": "process"}, lambda spans: "process.pid" in resource(spans[0])),
    ({"OTEL_TRACES_SAMPLER": "always_off"}, lambda spans: spans == []),
    ({"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0"}, lambda spans: spans == []),
    ({"OTEL_TRACES_SAMPLER": "always_on"}, lambda spans: len(spans) == 1),
    ({}, lambda spans: spans == []),
    ({"OTEL_PROPAGATORS": "none"}, lambda spans: spans[0]["parent_span_id"] is None),
    ({"OTEL_SDK_DISABLED": "true"}, lambda spans: spans == []),
    ({"OTEL_TRACES_EXPORTER": "none"}, lambda spans: spans == []),
    ({"OTEL_PYTHON_EXCLUDED_URLS": "echo"}, lambda spans: spans == []),
    ({"OTEL_PYTHON_ASGI_EXCLUDED_URLS": "echo"}, lambda spans: spans == []),
]
"""Variables, and what they do with one request whose caller says that the trace is not sampled."""


@pytest.mark.parametrize(("variables", "holds"), STANDARD, ids=lambda of: "+".join(of) if isinstance(of, dict) else "")
def test_standard_variables_have_their_effect(
    start: Start, otlp_receiver: Any, variables: dict[str, str], holds: Callable[[list[Any]], bool]
) -> None:
    """What they say is seen on the spans that a real receiver gets."""
    env = {**endpoint(otlp_receiver, "grpc"), **variables}
    if "OTEL_RESOURCE_ATTRIBUTES" in variables:
        del env["OTEL_SERVICE_NAME"]
    sampled = "SAMPLER" not in str(variables) and variables
    server = start("uvicorn", "zoo:recorded", env=env)
    parent = f"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-{'01' if sampled else '00'}"
    httpx.post(f"{server.url}/echo", json={}, headers={"traceparent": parent})
    server.stop()
    assert holds(otlp_receiver.spans)


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
    assert "for the next start" in server.output
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


@pytest.mark.parametrize("kind", ["otlp", "table"])
def test_what_was_spooled_for_a_wrong_endpoint_is_sent_to_the_right_one(
    start: Start,
    rows: Rows,
    otlp_receiver: Any,
    environment: dict[str, str],
    free_port: Callable[[], int],
    tmp_path: Path,
    kind: str,
) -> None:
    """20 requests while nobody listens; redirected twice, each of them is there once."""
    dead = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{free_port()}", "INFERTAP_DRAIN_S": "0"}
    server = start("uvicorn", "zoo:recorded", env=dead)
    for number in range(20):
        httpx.post(f"{server.url}/echo", json={"number": number})
    server.stop()
    (folder,) = (tmp_path / ".infertap_spool").glob("otlp-*")
    right = endpoint(otlp_receiver, "grpc") if kind == "otlp" else {}
    command = [sys.executable, "-m", "infertap_sidecar", "drain", str(folder), "--redirect"]
    for words in ("20 requests delivered", "nothing to deliver"):
        done = subprocess.run(
            command,
            cwd=tmp_path,
            env={**environment, **right},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert words in done.stdout
    found = [span["span_id"] for span in otlp_receiver.spans] if kind == "otlp" else [r["span_id"] for r in rows()]
    assert len(found) == len(set(found)) == 20


def test_what_waits_for_a_former_destination_is_said_at_start(
    start: Start, free_port: Callable[[], int], tmp_path: Path
) -> None:
    """The variable is gone, its records are not: a start without it names their folder."""
    dead = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{free_port()}", "INFERTAP_DRAINER": "external"}
    server = start("uvicorn", "zoo:recorded", env=dead)
    httpx.post(f"{server.url}/echo", json={})
    server.stop()
    assert "records of an earlier run" not in server.output
    (folder,) = (tmp_path / ".infertap_spool").glob("otlp-*")
    # Another user's slot, or what somebody has made of one, stops nobody from recording.
    broken = tmp_path / ".infertap_spool" / "otlp-0123456789ab"
    (broken / "slots").mkdir(parents=True)
    (broken / "destination.json").write_text("{}")
    (broken / "slots" / "0123456789abcdef").symlink_to("0123456789abcdef")
    server = start("uvicorn", "zoo:recorded")
    httpx.post(f"{server.url}/echo", json={})
    server.stop()
    assert "1 request spooled; all delivered" in server.output
    assert f"records of an earlier run wait for another destination; deliver them by `infertap drain {folder}`" in (
        server.output
    )


def test_one_failure_is_one_short_line(start: Start, free_port: Callable[[], int]) -> None:
    """Nobody listens: said once, by the probe or by the delivery, and neither again nor at the stop."""
    port = free_port()
    server = start(
        "uvicorn",
        "zoo:recorded",
        env={"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}", "INFERTAP_DRAIN_S": "8"},
    )
    httpx.post(f"{server.url}/echo", json={})
    wait_until(lambda: "nobody listens" in server.output)
    server.stop()
    lines = [line for line in server.output.splitlines() if "nobody listens" in line]
    assert len(lines) == 1, server.output
    assert f"OTLP http://127.0.0.1:{port}: gRPC UNAVAILABLE: Connection refused; nobody listens at" in lines[0]
    assert server.output.count("cannot be delivered now; trying on until drain_s") == 1
    assert "1 request waits in the spool" in server.output
