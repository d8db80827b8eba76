"""The real OpenTelemetry Collector: its example configurations, what it gets from us, and what it answers.

The binary is named by TEST_OTELCOL, or lies at `~/.cache/infertap/otelcol`. It needs the receiver `otlp`, the
exporters `otlp_grpc`, `otlp_http` and `file`, and the extensions `basicauth` and `bearertokenauth`.
"""

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

EXAMPLES = sorted((Path(__file__).parents[2] / "examples" / "collector").glob("*.yaml"))
KEY = "k3y-of-the-vendor"
VENDORS = {
    "newrelic": {"NEW_RELIC_LICENSE_KEY": f"eu01xx{KEY}"},
    "signoz": {"SIGNOZ_REGION": "eu2", "SIGNOZ_INGESTION_KEY": KEY},
    "splunk": {"SPLUNK_REALM": "us1", "SPLUNK_ACCESS_TOKEN": KEY},
    "grafana": {
        "GRAFANA_CLOUD_ZONE": "prod-eu-west-2", "GRAFANA_CLOUD_INSTANCE_ID": "123456", "GRAFANA_CLOUD_API_KEY": KEY,
    },
    "servicenow": {"LS_ACCESS_TOKEN": KEY},
}  # fmt: skip
OTHERS = {
    "DD_SITE": "datadoghq.eu", "DD_API_KEY": KEY, "MLFLOW_TRACKING_URI": "http://m:5000", "MLFLOW_EXPERIMENT_ID": "1",
    "PHOENIX_COLLECTOR_ENDPOINT": "http://p:6006", "PHOENIX_API_KEY": KEY,
}  # fmt: skip
TOKEN = "t0ken-of-the-collector"
STRICT = """
extensions: {{ bearertokenauth: {{ token: {token} }} }}
receivers:
  otlp:
    protocols:
      grpc: {{ endpoint: 127.0.0.1:4317, auth: {{ authenticator: bearertokenauth }} }}
      http: {{ endpoint: 127.0.0.1:4318, max_request_body_size: 500000, auth: {{ authenticator: bearertokenauth }} }}
exporters: {{ file: {{ path: {out} }} }}
service:
  extensions: [bearertokenauth]
  pipelines: {{ traces: {{ receivers: [otlp], exporters: [file] }} }}
"""

pytestmark = pytest.mark.heavy


@pytest.fixture(scope="session")
def otelcol() -> Path:
    """The Collector's binary."""
    path = Path(os.environ.get("TEST_OTELCOL") or Path.home() / ".cache" / "infertap" / "otelcol")
    if not path.exists():
        pytest.skip("needs an OpenTelemetry Collector: set TEST_OTELCOL")
    return path


@pytest.fixture
def collector(
    otelcol: Path, tmp_path: Path, free_port: Callable[[], int], certificates: Path, vendor_intake: Any
) -> Iterator[Callable[..., dict[str, int]]]:
    """Runs a configuration on free ports: `collector(path, {...})` gives {"grpc": port, "http": port}."""
    with ExitStack() as stack:

        def run(config: Path, env: dict[str, str]) -> dict[str, int]:
            ports = {"grpc": free_port(), "http": free_port()}
            sets = [
                f"--set=receivers::otlp::protocols::{name}::endpoint=127.0.0.1:{port}" for name, port in ports.items()
            ]
            environ = {
                **os.environ, **env, "HTTPS_PROXY": vendor_intake.proxy, "SSL_CERT_FILE": str(certificates / "ca.pem"),
            }  # fmt: skip
            telemetry = "--set=service::telemetry::metrics::level=none"
            log = stack.enter_context((tmp_path / "collector.log").open("wb"))
            command = [str(otelcol), "--config", str(config), *sets, telemetry]
            process = subprocess.Popen(command, env=environ, stdout=log, stderr=log)
            stack.callback(process.wait)
            stack.callback(process.kill)
            wait_until(lambda: answers(ports["http"]) or process.poll() is not None)
            assert process.poll() is None, (tmp_path / "collector.log").read_text()
            return ports

        yield run


def answers(port: int) -> bool:
    try:
        httpx.get(f"http://127.0.0.1:{port}/")
    except httpx.TransportError:
        return False
    return True


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 90
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples_are_valid(otelcol: Path, path: Path) -> None:
    """`validate` finds nothing; parts that this binary lacks are no fault of the file."""
    environ = {**os.environ, **OTHERS, **{name: value for of in VENDORS.values() for name, value in of.items()}}
    command = [str(otelcol), "validate", "--config", str(path)]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=120, check=False)
    if "unknown type" in done.stderr:
        pytest.skip(f"this Collector lacks a part: {done.stderr.splitlines()[2][:100]}")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
@pytest.mark.parametrize("platform", VENDORS)
def test_through_the_example_to_the_platform(
    start: Any, collector: Any, vendor_intake: Any, platform: str, protocol: str
) -> None:
    """Hostile spans and a large prompt pass us, the Collector of the example, and the platform's strict intake."""
    path = next(path for path in EXAMPLES if path.stem == platform)
    ports = collector(path, VENDORS[platform])
    env = {
        "INFERTAP_PLATFORM": platform,
        "INFERTAP_INLINE_BYTES_MAX": "4MiB",
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{ports['grpc' if protocol == 'grpc' else 'http']}",
        "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
    }
    server = start("uvicorn", "hostile:recorded", env=env)
    for size in (10, 2_000_000):
        httpx.post(f"{server.url}/ask", json={"prompt": "q" * size}, timeout=60)
    server.stop()
    wait_until(lambda: sum(len(request["spans"]) for request in vendor_intake.requests) >= 4)
    assert {(request["vendor"], request["reason"]) for request in vendor_intake.requests} == {(platform, None)}


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_true_answers_of_the_collector(start: Any, collector: Any, tmp_path: Path, protocol: str) -> None:
    """A wrong token is named and costs nothing; what is over a limit (400, RESOURCE_EXHAUSTED) lacks its body only."""
    out = tmp_path / "out.jsonl"
    config = tmp_path / "collector.yaml"
    config.write_text(STRICT.format(token=TOKEN, out=out))
    ports = collector(config, {})
    env = {
        "INFERTAP_OTLP_HEADERS_FILE": "headers",
        "INFERTAP_INLINE_BYTES_MAX": "7MiB",
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{ports['grpc' if protocol == 'grpc' else 'http']}",
        "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
    }
    (tmp_path / "headers").write_text("authorization=Bearer wr0ng-token")
    server = start("uvicorn", "zoo:recorded", env=env)
    for size in (10, 1_000_000, 6_000_000):
        httpx.post(f"{server.url}/echo", json={"prompt": "q" * size}, timeout=60)
    wait_until(lambda: "correct the headers in" in server.output)
    (tmp_path / "headers").write_text(f"authorization=Bearer {TOKEN}")
    wait_until(lambda: len(spans_in(out)) >= 3)
    server.stop()
    small, large, huge = sorted(spans_in(out), key=lambda of: int(of["http.request.body.size"]["intValue"]))
    assert small["input.value"]["stringValue"] == '{"prompt":"qqqqqqqqqq"}'
    assert ("input.value" in large) is (protocol == "grpc")
    assert ("infertap.withheld" in large) is (protocol != "grpc")
    assert "input.value" not in huge
    assert huge["infertap.request.withheld"]["stringValue"] == "platform_limit"
    assert "wr0ng" not in server.output


def spans_in(out: Path) -> list[dict[str, Any]]:
    """Attributes of each span that the `file` exporter wrote, whole lines only."""
    if not out.exists():
        return []
    return [
        {pair["key"]: pair["value"] for pair in span["attributes"]}
        for line in out.read_text().rpartition("\n")[0].splitlines()
        for of_resource in json.loads(line)["resourceSpans"]
        for scope in of_resource["scopeSpans"]
        for span in scope["spans"]
    ]
