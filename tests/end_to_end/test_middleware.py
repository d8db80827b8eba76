"""The middleware in real servers: every answer becomes one row, and the answer itself does not change."""

import json
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from infertap.spool.page import PageView

Rows = Callable[..., list[dict[str, Any]]]
Start = Callable[..., Any]


def by_path(found: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    assert len({row["path"] for row in found}) == len(found), "one row per request"
    return {row["path"]: row for row in found}


def test_a_request_becomes_a_row_with_its_bodies(start: Start, rows: Rows) -> None:
    """What went in and out, when, how long and under which trace stands in one row."""
    server = start("uvicorn", "zoo:recorded")
    sent = {"messages": [{"role": "user", "content": "hi"}], "api_key": "sk-not-for-the-disk"}
    parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    headers = {"traceparent": parent, "authorization": "Bearer secretsecret", "x-request-id": "mine-1"}
    reply = httpx.post(f"{server.url}/echo?token=abc&model=m", json=sent, headers=headers)
    assert reply.json() == sent
    server.stop()
    (row,) = rows("inference", 1)
    assert row["status_code"] == 200
    assert row["request"] == row["response"]
    assert "sk-not-for-the-disk" not in str(row)
    assert "secretsecret" not in str(row)
    assert row["query"] == "token=[REDACTED]&model=m"
    assert row["client_request_id"] == "mine-1"
    assert row["trace_id"] == "4bf92f3577b34da6a3ce929d0e0e4736"
    assert row["parent_span_id"] == "00f067aa0ba902b7"
    assert (row["method"], row["path"], row["end_reason"]) == ("POST", "/echo", "complete")
    assert row["duration_ns"] > 0
    assert row["request_date"] == row["request_time"].date()


@pytest.mark.parametrize("position", ["middleware", "sidecar"])
def test_pipelined_requests_are_traces_of_their_own(start: Start, rows: Rows, position: str) -> None:
    """uvicorn begins each in the context of the one before; their rows and spans have nothing of it."""
    if position == "middleware":
        server = start("uvicorn", "zoo:recorded")
    else:
        model = start("uvicorn", "zoo:app")
        server = start("serve", "--upstream", model.url, "--admin", "127.0.0.1:0")
    paths = [f"/status/{status}" for status in (200, 500, 201)]
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as sock:
        sock.sendall(b"".join(b"GET %s HTTP/1.1\r\nHost: a\r\n\r\n" % path.encode() for path in paths))
        answers = b""
        while answers.count(b'"status"') < len(paths):
            answers += sock.recv(65536)
    server.stop()
    found = by_path(rows("inference", len(paths)))
    assert set(found) == set(paths)
    assert len({row["trace_id"] for row in found.values()}) == len(paths)
    assert {row["parent_span_id"] for row in found.values()} == {None}
    spans = rows("spans", len(paths))
    assert {span["kind"] for span in spans} == {"SPAN_KIND_SERVER"}
    servers = {span["span_id"]: span["request_id"] for span in spans}
    assert servers == {row["span_id"]: row["request_id"] for row in found.values()}


@pytest.mark.parametrize("server_name", ["uvicorn", "hypercorn", "granian"])
def test_every_status_is_recorded(start: Start, rows: Rows, server_name: str) -> None:
    """2xx, 204, 206, 3xx, 4xx and 5xx answers are all rows, with their bodies."""
    server = start(server_name, "zoo:recorded")
    statuses = (200, 201, 204, 206, 301, 304, 400, 404, 422, 429, 500, 503)
    for status in statuses:
        assert httpx.post(f"{server.url}/status/{status}", json={}).status_code == status
    assert httpx.head(f"{server.url}/status/299").status_code == 299
    server.stop()
    found = by_path(rows("inference", len(statuses) + 1))
    for status in statuses:
        row = found[f"/status/{status}"]
        assert (row["status_code"], row["end_reason"]) == (status, "complete")
        assert row["response"] == ("" if status in (204, 304) else f'{{"status": {status}}}')
    assert found["/status/299"]["method"] == "HEAD"


def test_streams_are_rows_with_their_chunks_counted(start: Start, rows: Rows) -> None:
    """A stream of 10,000 chunks is one row."""
    server = start("uvicorn", "zoo:recorded")
    with httpx.stream("POST", f"{server.url}/stream/10000", json={}, timeout=120) as reply:
        assert sum(1 for line in reply.iter_lines() if line) == 10_000
    server.stop()
    (row,) = rows("inference", 1)
    assert (row["is_stream"], row["chunk_count"], row["end_reason"]) == (True, 10_000, "complete")
    assert row["response"].count("data: ") == 10_000
    assert 0 < row["time_to_first_chunk_ns"] <= row["duration_ns"]


def test_errors_of_the_app_are_recorded_with_their_class(start: Start, rows: Rows) -> None:
    """Raising before, after and instead of an answer each leaves one row that says so, without secrets."""
    server = start("uvicorn", "zoo:recorded")
    assert httpx.get(f"{server.url}/raise-before").status_code == 500
    with pytest.raises(httpx.RemoteProtocolError):
        httpx.get(f"{server.url}/raise-after")
    assert httpx.get(f"{server.url}/nothing").status_code == 500
    assert httpx.get(f"{server.url}/after-the-end").json() == {}
    server.stop()
    found = by_path(rows("inference", 4))
    before = found["/raise-before"]
    assert (before["status_code"], before["end_reason"], before["error_type"]) == (500, "app_error", "RuntimeError")
    assert before["response"] is None
    assert "secretsecret" not in before["error_message"]
    after = found["/raise-after"]
    assert (after["status_code"], after["end_reason"]) == (200, "app_error")
    assert "RESPONSE_INCOMPLETE" in after["logging_error_codes"]
    assert found["/nothing"]["end_reason"] == "app_error"
    assert found["/after-the-end"]["response"] == "{}"


def test_a_client_that_hangs_up_is_recorded(start: Start, rows: Rows) -> None:
    """Leaving half way keeps what had been sent, and says why it ended."""
    server = start("uvicorn", "zoo:recorded")
    with httpx.stream("POST", f"{server.url}/slow-stream", json={"q": 1}) as reply:
        next(reply.iter_bytes())
    assert len(rows("inference", 1)) == 1
    server.stop()
    (row,) = rows("inference", 1)
    assert row["end_reason"] == "client_disconnect"
    assert json.loads(row["request"]) == {"q": 1}
    assert row["response"].startswith("data: tick")
    assert row["chunk_count"] < 2_000


def test_what_cannot_be_kept_is_withheld_with_a_reason(start: Start, rows: Rows) -> None:
    """Binary, undecodable and oversize bodies leave a code, their size, and nothing else."""
    server = start("uvicorn", "zoo:recorded")
    assert httpx.get(f"{server.url}/binary").content == bytes(range(256))
    httpx.get(f"{server.url}/not-utf8")
    httpx.get(f"{server.url}/not-json")
    httpx.get(f"{server.url}/latin")
    assert len(httpx.get(f"{server.url}/large/4194304").content) == 4194304
    httpx.get(f"{server.url}/twice")
    server.stop()
    found = by_path(rows("inference", 6))
    for path, code in (
        ("/binary", "RESPONSE_BINARY_WITHHELD"),
        ("/not-utf8", "RESPONSE_UNDECODABLE"),
        ("/large/4194304", "RESPONSE_OVER_INLINE_LIMIT"),
    ):
        assert found[path]["response"] is None
        assert found[path]["response_sha256"] is None
        assert found[path]["logging_error_codes"] == [code]
    assert found["/large/4194304"]["response_bytes"] == 4194304
    assert found["/not-json"]["response"] == '{"password": "[REDACTED]", oops'
    assert found["/latin"]["response"] == "café"
    assert dict(found["/twice"]["response_headers"])["vary"] == "accept, origin"


def test_a_hundred_megabytes_pass_and_memory_stays_bounded(start: Start, rows: Rows) -> None:
    """A body over the capture limit passes unharmed; the row keeps its size and the reason."""
    server = start("uvicorn", "zoo:recorded")
    size = 100 << 20
    reply = httpx.post(
        f"{server.url}/status/200",
        content=(b"x" * 65536 for _ in range(size // 65536)),
        headers={"content-type": "text/plain", "content-length": str(size)},
        timeout=120,
    )
    assert reply.status_code == 200
    server.stop()
    (row,) = rows("inference", 1)
    assert row["request_bytes"] == size
    assert row["request"] is None
    assert row["logging_error_codes"] == ["REQUEST_OVER_CAPTURE_LIMIT"]


@pytest.mark.parametrize("workers", [1, 4])
def test_sigterm_loses_nothing(start: Start, rows: Rows, workers: int) -> None:
    """Everything that was answered before SIGTERM is in the table when the server has gone."""
    # uvicorn ends workers that say nothing for 5 s: a busy machine's.
    options = ["--workers", str(workers), "--timeout-worker-healthcheck", "300"]
    # On a busy machine the delivery takes longer than a stop usually waits for it.
    waits = {"INFERTAP_COMMIT_INTERVAL_S": "30", "INFERTAP_DRAIN_S": "60"}
    server = start("uvicorn", "zoo:recorded", *options, env=waits)
    pids: list[int] = []
    deadline = time.monotonic() + 90
    # The first worker answers while the last one still starts.
    while len(pids) < 200 or len(set(pids)) < workers:
        assert time.monotonic() < deadline, f"only {len(set(pids))} workers have answered"
        pids.append(httpx.get(f"{server.url}/pid").json()["pid"])
    server.stop(signal.SIGTERM)
    found = rows("inference")
    assert len(found) == len(pids)
    assert len({row["request_id"] for row in found}) == len(pids)
    assert len({row["spool_id"] for row in found}) == workers


@pytest.mark.parametrize("preload", [False, True])
def test_gunicorn_workers_have_a_pipeline_each(start: Start, rows: Rows, preload: bool) -> None:
    """Forked workers, also of a preloaded app, make their own pipelines after the fork."""
    options = ["--workers", "3", *(["--preload"] if preload else [])]
    server = start("gunicorn", *options, "zoo:recorded")
    pids = {httpx.get(f"{server.url}/pid").json()["pid"] for _ in range(90)}
    server.stop()
    found = rows("inference", 90)
    assert len(found) == 90
    assert len({row["spool_id"] for row in found}) == len(pids)
    for spool_id in {row["spool_id"] for row in found}:
        numbers = sorted(row["sequence_no"] for row in found if row["spool_id"] == spool_id)
        assert numbers == list(range(1, len(numbers) + 1))


def test_without_lifespan_a_kill_loses_nothing_that_was_spooled(start: Start, rows: Rows, tmp_path: Path) -> None:
    """With lifespan off the first request starts the pipeline, and the drainer outlives the server and delivers."""
    # An hour between commits: what comes after the first was delivered because the server had gone.
    server = start("uvicorn", "zoo:recorded", "--lifespan", "off", env={"INFERTAP_COMMIT_INTERVAL_S": "3600"})
    httpx.get(f"{server.url}/echo")
    assert len(rows("inference", 1)) == 1
    for _ in range(20):
        httpx.get(f"{server.url}/echo")
    deadline = time.monotonic() + 90
    while sum(PageView.read(page).kept for page in tmp_path.glob("inference_tables/.spool/*/slots/*/page")) < 21:
        assert time.monotonic() < deadline, server.output
        time.sleep(0.05)
    assert len(rows("inference")) == 1
    server.stop(signal.SIGKILL)
    assert len(rows("inference", 21)) == 21
