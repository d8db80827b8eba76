"""MLflow's tracking server and Arize Phoenix, the real ones: what we send is what their own interfaces give back.

TEST_MLFLOW and TEST_PHOENIX name their command lines (`.../bin/mlflow`, `.../bin/phoenix`); each is about
850 MB, so they belong to an environment of their own.
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

pytestmark = pytest.mark.heavy

_START_S_MAX = 600.0
"""These products load for a minute alone, and for many on a busy machine."""

QUESTION = {"messages": [{"role": "user", "content": "why is the sky blue?"}]}
READ_BACK = """
import json, sys, mlflow
mlflow.set_tracking_uri(sys.argv[1])
spans = [span for trace in mlflow.search_traces(locations=["0"], return_type="list") for span in trace.data.spans]
print(json.dumps([[span.name, span.span_type, span.inputs, span.outputs, span.parent_id] for span in spans]))
"""


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., str]]:
    """Runs a server until its URL answers: `serve("TEST_MLFLOW", ["server", ...], port, env)` gives the URL."""
    with ExitStack() as stack:

        def run(variable: str, arguments: list[str], port: int, env: dict[str, str]) -> str:
            program = os.environ.get(variable)
            if not program:
                pytest.skip(f"needs {variable}")
            log = stack.enter_context((tmp_path / "product.log").open("wb"))
            kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
            environ = {**kept, "PATH": f"{Path(program).parent}{os.pathsep}{os.environ['PATH']}", **env}
            process = subprocess.Popen(
                [program, *arguments], cwd=tmp_path, env=environ, stdout=log, stderr=log, start_new_session=True
            )
            stack.callback(process.wait)
            stack.callback(lambda: os.killpg(process.pid, 9))
            url = f"http://127.0.0.1:{port}"
            wait_until(lambda: answers(url), _START_S_MAX)
            return url

        yield run


def answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5).status_code < 500
    except httpx.TransportError:
        return False


def wait_until(condition: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.3)


def record(start: Any, env: dict[str, str]) -> None:
    # These products may take long for their first spans; one that was sent in vain would be in the log below.
    patient = {"OTEL_SERVICE_NAME": "ranker", "OTEL_EXPORTER_OTLP_TIMEOUT": "60"}
    server = start("uvicorn", "hostile:recorded", env={**patient, **env})
    httpx.post(f"{server.url}/ask", json=QUESTION)
    server.stop()
    assert "1 request spooled; all delivered" in server.output, server.output
    assert "OTLP http" not in server.output, server.output


def test_mlflows_tracking_server(start: Any, serve: Any, free_port: Callable[[], int]) -> None:
    """Looked up through MLflow's own client, the request has its inputs, outputs and type, and its child."""
    port = free_port()
    store = ["--backend-store-uri", "sqlite:///m.db", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    url = serve("TEST_MLFLOW", ["server", *store], port, {"MLFLOW_DISABLE_TELEMETRY": "true"})
    record(start, {"INFERTAP_PLATFORM": "mlflow", "MLFLOW_TRACKING_URI": url})
    python = Path(os.environ["TEST_MLFLOW"]).with_name("python")
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [str(python), "-c", READ_BACK, url]
    done = subprocess.run(command, env=kept, capture_output=True, text=True, timeout=_START_S_MAX, check=True)
    spans = {name: rest for name, *rest in json.loads(done.stdout.splitlines()[-1])}
    kind, inputs, outputs, parent_id = spans["POST /ask"]
    assert (kind, inputs, parent_id) == ("CHAIN", QUESTION, None)
    assert outputs["answer"] == "a" * 3000
    assert spans["retrieve"][-1] is not None


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_phoenix(start: Any, serve: Any, free_port: Callable[[], int], tmp_path: Path, protocol: str) -> None:
    """Read back by its REST interface: inputs and outputs once each, in the project that was named."""
    ports = {"http/protobuf": free_port(), "grpc": free_port()}
    env = {
        "PHOENIX_WORKING_DIR": str(tmp_path / "phoenix"), "PHOENIX_HOST": "127.0.0.1",
        "PHOENIX_PORT": str(ports["http/protobuf"]), "PHOENIX_GRPC_PORT": str(ports["grpc"]),
        "PHOENIX_TELEMETRY_ENABLED": "false",
    }  # fmt: skip
    url = serve("TEST_PHOENIX", ["serve"], ports["http/protobuf"], env)
    record(
        start,
        {
            "INFERTAP_PLATFORM": "phoenix",
            "PHOENIX_COLLECTOR_ENDPOINT": f"http://127.0.0.1:{ports[protocol]}",
            "PHOENIX_PROJECT_NAME": "tapped",
            "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
        },
    )
    wait_until(lambda: len(spans_of_phoenix(url)) == 2)
    spans = {span["name"]: span for span in spans_of_phoenix(url)}
    server = spans["POST /ask"]
    assert json.loads(server["attributes"]["input.value"]) == QUESTION
    assert json.loads(server["attributes"]["output.value"])["answer"] == "a" * 3000
    assert spans["retrieve"]["parent_id"] == server["context"]["span_id"]


def spans_of_phoenix(url: str) -> list[dict[str, Any]]:
    answer = httpx.get(f"{url}/v1/projects/tapped/spans", params={"limit": 10}, timeout=20)
    found: list[dict[str, Any]] = answer.json()["data"] if answer.status_code == 200 else []
    return found
