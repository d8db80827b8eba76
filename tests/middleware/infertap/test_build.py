"""Every setting reaches what it is for: the real build, one request or a few, and what is seen of it afterwards."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from infertap import Config, InferenceMiddleware
from infertap.build import build_pipeline, drainer_settings
from infertap.cgroup import WORKERS_VARIABLE
from infertap.choice import choose
from infertap.events import EventLog
from infertap.otel_env import OtelEnvironment
from infertap.record import LossCause
from infertap.spool.page import LOST
from infertap.spool.reader import Segment, read_segment

_BODY = b'{"q": 1, "patient": "p-17"}'
_HEADERS = [(b"content-type", b"application/json"), (b"x-user", b"u-1"), (b"accept", b"*/*")]
_MIB = 1 << 20
_SPOOL_FULL = LOST[LossCause.SPOOL_FULL]


async def _app(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": b"fine"})


class Recorder:
    """An app behind the middleware, its spool, and what the caller got."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self._folder = folder
        given = {"tables": str(folder / "tables"), "destination": "table", "drainer": "external", "drain_s": 0}
        self.middleware = InferenceMiddleware(_app, config=Config(**{**given, **settings}))
        self.sent: list[Any] = []

    def request(self, path: str = "/x", body: bytes = _BODY) -> None:
        async def receive() -> Any:
            return {"type": "http.request", "body": body}

        async def send(message: Any) -> None:
            self.sent.append(message)

        scope = {"type": "http", "method": "POST", "path": path, "query_string": b"", "headers": list(_HEADERS)}
        asyncio.run(self.middleware(scope, receive, send))

    def files(self, suffix: str) -> list[Path]:
        return sorted(self._folder.glob(f"tables/.spool/*/slots/*/*{suffix}"))

    def stop(self) -> list[Segment]:
        pipeline = self.middleware.pipeline
        if pipeline is not None:
            pipeline.wait_ready()
            pipeline.stop()
        return [read_segment(path) for path in self.files(".seg")]

    def rows(self) -> list[dict[str, Any]]:
        return [row for segment in self.stop() for row in segment.requests]


@pytest.fixture
def record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Recorder]:
    """Makes a `Recorder`; its arguments are settings."""
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith(("INFERTAP_", "OTEL_")):
            monkeypatch.delenv(name)
    return lambda **settings: Recorder(tmp_path, **settings)


@pytest.mark.parametrize(
    ("settings", "seen"),
    [
        ({}, {"requester": None, "request": _BODY.decode()}),
        ({"requester_header": "X-User"}, {"requester": "u-1"}),
        ({"served_entity_id": "churn-7"}, {"served_entity_id": "churn-7"}),
        ({"redact_keys": ["patient"]}, {"request": '{"q":1,"patient":"[REDACTED]"}'}),
        (
            {"redact_keys": ["patient", "q"], "redact_except": ["q"]},
            {"request": '{"q":1,"patient":"[REDACTED]"}'},
        ),
        ({"capture_headers": ["x-user"]}, {"request_headers": {"x-user": "u-1"}}),
        ({"content": "metadata"}, {"request": None, "request_headers": None, "request_bytes": len(_BODY)}),
        ({"inline_bytes_max": 10}, {"request": None, "logging_error_codes": ["REQUEST_OVER_INLINE_LIMIT"]}),
        (
            {"capture_bytes_max": 10, "inline_bytes_max": 10},
            {"request": None, "logging_error_codes": ["REQUEST_OVER_CAPTURE_LIMIT"]},
        ),
    ],
)
def test_a_setting_shows_in_the_row(record: Any, settings: dict[str, Any], seen: dict[str, Any]) -> None:
    """Column by column."""
    it = record(**settings)
    it.request()
    (row,) = it.rows()
    assert {name: row.get(name) for name in seen} == seen


@pytest.mark.parametrize(
    ("settings", "paths"),
    [
        ({}, ["/x", "/v1/y"]),
        ({"include_paths": ["/v1/*"]}, ["/v1/y"]),
        ({"exclude_paths": ["/v1/*"]}, ["/health", "/x"]),
    ],
)
def test_paths_decide_which_requests_are_rows(record: Any, settings: dict[str, Any], paths: list[str]) -> None:
    """Both lists."""
    it = record(**settings)
    for path in ("/health", "/x", "/v1/y"):
        it.request(path)
    assert [row["path"] for row in it.rows()] == paths


def test_the_caller_is_told_the_rows_id(record: Any) -> None:
    """In the header that the setting names."""
    it = record(request_id_header="X-Row")
    it.request()
    (row,) = it.rows()
    assert dict(it.sent[0]["headers"])[b"x-row"].decode() == row["request_id"]


@pytest.mark.parametrize(
    ("limit", "workers", "kept"),
    [(None, None, True), (16 * _MIB, None, True), (4 * _MIB, None, False), (16 * _MIB, "4", False)],
)
def test_an_eighth_of_the_containers_memory_bounds_the_queue(
    record: Any, monkeypatch: pytest.MonkeyPatch, limit: int | None, workers: str | None, kept: bool
) -> None:
    """Divided by the workers that share it: a body of a megabyte fits into an eighth of 16 MiB, and into no less."""
    monkeypatch.setattr("infertap.build.memory_limit_bytes", lambda: limit)
    if workers is not None:
        monkeypatch.setenv(WORKERS_VARIABLE, workers)
    it = record()
    it.request(body=b"[" + b" " * (_MIB - 10_000) + b"]")
    (row,) = it.rows()
    assert ("request" in row, row.get("logging_error_codes", [])) == (kept, [] if kept else ["REQUEST_OVER_BUDGET"])


def test_records_stay_in_memory_until_a_flush_is_due(record: Any) -> None:
    """With a minute between flushes nothing is on the disk yet; the stop brings it there."""
    it = record(spool_flush_ms=60_000)
    it.request("/health")
    it.middleware.pipeline.wait_ready()
    it.request()
    time.sleep(0.5)
    assert it.middleware.pipeline.inbox.queue
    assert len(it.rows()) == 1


def test_segments_are_sealed_by_size(record: Any) -> None:
    """A small limit makes a segment of each flush."""
    it = record(segment_bytes_max="1KiB")
    for _ in range(3):
        it.request()
        _until(lambda: not it.middleware.pipeline.inbox.queue)
    segments = [segment for segment in it.stop() if segment.requests]
    assert sum(len(segment.requests) for segment in segments) == 3
    assert len(segments) > 1


def test_segments_are_sealed_by_age(record: Any) -> None:
    """At the latest when a commit is due: with a short interval while the app runs on."""
    it = record(commit_interval_s=0.2)
    it.request()
    _until(lambda: bool(it.files(".seg")))
    assert len(it.rows()) == 1


def test_a_full_spool_that_nobody_drains_takes_no_more(record: Any) -> None:
    """New records are counted as lost, and the disk stays as it is."""
    it = record(spool_bytes_max=3_000, segment_bytes_max="1KiB")
    lost = {}

    def full() -> bool:
        it.request()
        time.sleep(0.05)
        page = it.middleware.pipeline.worker.writer.counters
        lost["spool_full"] = page[_SPOOL_FULL]
        return bool(lost["spool_full"])

    _until(full)
    assert it.rows()


def _until(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_the_drainer_is_told_its_part(tmp_path: Path) -> None:
    """What the drainer's process reads from its standard input."""
    config = Config(
        tables=str(tmp_path), destination="table", commit_bytes_max="3MiB", commit_interval_s=7, drain_s=3,
        spool_bytes_max="2GiB", content="metadata",
    )  # fmt: skip
    choice = choose(config, OtelEnvironment.read({}), cwd=tmp_path)
    told = drainer_settings(config, choice, "svc").to_json()
    expected = {
        "commit_bytes_max": 3 * _MIB, "commit_interval_s": 7, "drain_s": 3, "spool_bytes_max": 2 << 30,
        "content": "metadata", "service_name": "svc",
    }  # fmt: skip
    assert {name: told[name] for name in expected} == expected


_PROCESS = """
import asyncio, os, sys
from infertap import InferenceMiddleware

async def app(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"fine"})

wrapped = InferenceMiddleware(app)

def request(path):
    async def nothing(*_):
        return {"type": "http.request", "body": b"{}"}
    scope = {"type": "http", "method": "POST", "path": path, "headers": [], "query_string": b"", "scheme": "http"}
    asyncio.run(wrapped(scope, nothing, nothing))

request("/parent")
if "fork" in sys.argv:
    child = os.fork()
    request("/child" if child == 0 else "/parent")
    if child:
        assert os.waitpid(child, 0)[1] == 0
    if child == 0:
        wrapped.pipeline.stop()
        os._exit(0)
"""


def _run(folder: Path, *arguments: str, **variables: str) -> str:
    env = {name: value for name, value in os.environ.items() if not name.startswith(("INFERTAP_", "OTEL_"))}
    env |= {"INFERTAP_DRAINER": "external", "INFERTAP_DRAIN_S": "0", "INFERTAP_SPOOL_FLUSH_MS": "60000", **variables}
    command = [sys.executable, "-c", _PROCESS, *arguments]
    done = subprocess.run(command, env=env, cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stderr


def _spooled(folder: Path) -> list[list[str]]:
    slots: dict[Path, list[str]] = {}
    for path in sorted(folder.glob("inference_tables/.spool/*/slots/*/*.seg")):
        slots.setdefault(path.parent, []).extend(row["path"] for row in read_segment(path).requests)
    return sorted(slots.values())


def test_a_process_that_ends_by_itself_spools_what_waits(tmp_path: Path) -> None:
    """Where no server tells us of its end, the interpreter does."""
    _run(tmp_path)
    assert _spooled(tmp_path) == [["/parent"]]


def test_a_forked_child_records_for_itself(tmp_path: Path) -> None:
    """Its parent's pipeline stays the parent's: two slots, and no row in both."""
    _run(tmp_path, "fork")
    assert _spooled(tmp_path) == [["/child"], ["/parent", "/parent"]]


def test_a_destination_of_none_is_said_with_its_warnings(tmp_path: Path) -> None:
    """A misspelled variable beside it is named as in any other start; nothing is written."""
    said = _run(tmp_path, INFERTAP_DESTINATION="none", INFERTAP_TABEL="x")
    assert "INFERTAP_TABEL is no setting" in said
    assert _spooled(tmp_path) == []


def test_the_resource_is_redacted_before_it_reaches_the_spool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process's own command line, as detectors find it, holds what was given there as `--api-key`."""
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "run.command=serve --api-key hunter2 --port 1,patient.id=hunter2")
    config = Config(tables=str(tmp_path / "tables"), drainer="external", redact_keys=("patient_id",))
    writer = build_pipeline(config, choose(config, OtelEnvironment.read({}), cwd=tmp_path), EventLog()).worker.writer
    writer.open()
    writer.close()
    files = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert any(b"serve --api-key [REDACTED] --port 1" in content for content in files)
    assert not any(b"hunter2" in content for content in files)
