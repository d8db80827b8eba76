"""The apps in `examples/`, run as their README says."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx

from infertap.tables.query import query, rows
from infertap.targets import TableTarget

EXAMPLES = Path(__file__).parents[2] / "examples"
DEADLINE_S = 180.0


def test_the_fastapi_example_records_row_tags_and_span(tmp_path: Path, free_port: Callable[[], int]) -> None:
    """One request gives one row with the app's own facts, and the app's span as a child of the request's."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith(("INFERTAP_", "OTEL_"))}
    port = free_port()
    command = ["uvicorn", "--app-dir", str(EXAMPLES), "--port", str(port), "fastapi_app:app"]
    url = f"http://127.0.0.1:{port}/classify"
    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, "-B", "-P", "-m", *command], cwd=tmp_path, env=variables, stdout=log, stderr=log
        )
    try:
        answer = post_when_up(url, {"text": "HELlo"}, server, tmp_path / "log")
    finally:
        server.terminate()
        server.wait(DEADLINE_S)
    assert answer.json() == {"loudness": 0.6}
    target = TableTarget(str(tmp_path / "inference_tables"))
    [row] = rows(query(target, "SELECT path, status_code, request, response, tags, span_id FROM inference"))
    assert row["tags"] == {"experiment": "capitals-1"}
    assert (row["path"], row["status_code"], row["request"]) == ("/classify", 200, '{"text":"HELlo"}')
    sql = "SELECT name, parent_span_id FROM spans WHERE name = 'count capitals'"
    assert rows(query(target, sql)) == [{"name": "count capitals", "parent_span_id": row["span_id"]}]


def post_when_up(url: str, document: object, server: subprocess.Popen[bytes], log: Path) -> httpx.Response:
    """The answer to one request, sent as soon as the server accepts connections."""
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        assert server.poll() is None, log.read_text()
        try:
            return httpx.post(url, json=document, trust_env=False, timeout=DEADLINE_S)
        except httpx.ConnectError:
            time.sleep(0.05)
    raise TimeoutError(log.read_text())
