"""The metrics of a spool folder: from real pipelines, real segments and the drainer's own file."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from infertap import Config, InferenceMiddleware, __version__, metrics_app
from infertap.choice import Choice, choose
from infertap.drain.state import DestinationStatus, DrainerState, Phase
from infertap.metrics import MetricsApp
from infertap.otel_env import OtelEnvironment
from infertap.pipeline import Pipeline
from infertap.spool.accounts import Accounts
from infertap.spool.cursors import Cursors
from infertap.spool.folder import SpoolFolder
from infertap.spool.page import PageView

_ROOT = Path(__file__).parents[3]


def _config(folder: Path, **settings: Any) -> Config:
    settings = {"tables": str(folder / "tables"), "drainer": "external", "drain_s": 0, **settings}
    return Config(**settings)


def _get(app: Any, path: str = "/metrics") -> tuple[int, str]:
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b""}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": path, "query_string": b"", "headers": []}
    asyncio.run(app(scope, receive, send))
    start, body = sent
    assert dict(start["headers"])[b"content-length"] == str(len(body["body"])).encode()
    return start["status"], body["body"].decode()


def _values(app: Any) -> dict[str, float]:
    """`name{label values}` to value, read by Prometheus' own parser."""
    status, text = _get(app)
    assert status == 200
    return {
        f"{sample.name}{{{','.join(sample.labels.values())}}}": sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Pipeline]:
    """A function that wraps `metrics_app`, sends it requests, and gives the running middleware."""
    monkeypatch.chdir(tmp_path)

    def run(requests: int, **settings: Any) -> Any:
        middleware = InferenceMiddleware(metrics_app, config=_config(tmp_path, **settings))
        # An excluded path starts the pipeline, too; the requests that count come when its slot is there.
        _get(middleware)
        assert middleware.pipeline is not None
        middleware.pipeline.wait_ready()
        for _ in range(requests):
            _get(middleware, "/recorded")
        return middleware

    return run


def _stop(middleware: InferenceMiddleware) -> None:
    assert middleware.pipeline is not None
    middleware.pipeline.stop()


def test_behind_the_middleware_it_knows_its_folder(start: Any, tmp_path: Path) -> None:
    """Requests, queue, spool and version; no drainer yet."""
    middleware = start(3)
    values = _values(middleware)
    assert values["infertap_requests_seen_total{}"] == 3
    assert values["infertap_requests_finished_total{}"] == 3
    assert values["infertap_slots{}"] == 1
    assert values["infertap_destination_conflict{}"] == 0
    assert values["infertap_requests_lost_total{queue_full}"] == 0
    assert values["infertap_drainer_up{}"] == 0
    assert values[f"infertap_info{{table,{__version__}}}"] == 1
    _stop(middleware)


def test_it_sums_all_slots_of_the_folder(start: Any, tmp_path: Path) -> None:
    """Right under several workers, and for those that have ended and left segments behind."""
    # With equal settings they would share a slot.
    first, second = start(2), start(3, served_entity_id="second")
    _stop(first)
    values = _values(second)
    assert values["infertap_requests_seen_total{}"] == 5
    assert values["infertap_slots{}"] == 2
    assert values["infertap_spool_segments_waiting{}"] == 1
    assert values["infertap_spool_bytes{}"] > 0
    choice = second.pipeline.choice
    _stop(second)
    values = _values(MetricsApp(choice))
    assert values["infertap_requests_kept_total{}"] == 5
    assert values["infertap_spool_segments_waiting{}"] == 2
    assert values["infertap_queue_bytes{}"] == 0


def test_a_slot_that_is_about_to_be_removed_counts_once(start: Any) -> None:
    """Its counts are in the folder's totals before it goes; until it is gone both are there."""
    middleware = start(2)
    choice = middleware.pipeline.choice
    _stop(middleware)
    folder = SpoolFolder(choice.folder)
    (spool_id,) = folder.slot_ids()
    page = PageView.read(folder.slot_dir(spool_id) / "page")
    Accounts.load(folder).retire(folder, page, Cursors(spool_id), keep_ledger=False)
    values = _values(MetricsApp(choice))
    assert values["infertap_requests_seen_total{}"] == values["infertap_requests_kept_total{}"] == 2


class _Span:
    """A finished span as some library would hand it over: of any size, and perhaps broken."""

    start_ns = 1

    def __init__(self, held_bytes: int) -> None:
        self.held_bytes = held_bytes

    def raw(self) -> Any:
        raise ValueError("this one cannot be read")


def test_what_fails_beside_requests_is_summed_too(start: Any, receivers: Any) -> None:
    """Spans without room, spans that cannot be built, background tasks, our own code: over all workers' slots."""
    first, second = start(1), start(0)
    assert not first.pipeline.submit_span(_Span(1 << 40))
    for middleware in (first, second):
        assert middleware.pipeline.submit_span(_Span(1))
        middleware.pipeline.background_failed()
        middleware.pipeline.capture_failed(ValueError("ours"))
    second.pipeline.capture_failed(ValueError("ours"))
    receivers.wait_for(lambda: _values(second)["infertap_spans_dropped_total{}"] == 3)
    _stop(first)
    values = _values(second)
    assert values["infertap_spans_dropped_total{}"] == 3
    assert values["infertap_background_failures_total{}"] == 2
    assert values["infertap_capture_failures_total{}"] == 3
    _stop(second)


def test_every_metric_is_documented(tmp_path: Path) -> None:
    """`docs/metrics.md` lists what a scrape shows, with the same words, and nothing else."""
    status, text = _get(MetricsApp(_choice(tmp_path)))
    assert status == 200
    shown = {(family.name, family.documentation) for family in text_string_to_metric_families(text)}
    cells = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in (_ROOT / "docs" / "metrics.md").read_text().splitlines()
        if line.startswith("| `infertap_")
    ]
    documented = {(name.strip("`").partition("{")[0].removesuffix("_total"), words) for name, words in cells}
    assert documented == shown


def _choice(folder: Path, variables: dict[str, str] | None = None, **settings: Any) -> Choice:
    return choose(_config(folder, **settings), OtelEnvironment.read(variables or {}), cwd=folder)


def test_the_drainers_own_words_are_told(tmp_path: Path) -> None:
    """Whether it runs, what it delivered, and what fails."""
    choice = _choice(tmp_path, destination="both")
    choice.folder.mkdir(parents=True)
    state = DrainerState(phase=Phase.RUNNING)
    hour_ns = time.time_ns() + 3600 * 10**9
    refused = DestinationStatus(last_error="refused", retry_at_ns=hour_ns, counts={"written": 3, "lost/parked": 1})
    state.destinations = {"table": DestinationStatus(records=7), "otlp": refused}
    state.save(choice.folder / "drainer.json")
    values = _values(MetricsApp(choice))
    assert values["infertap_drainer_up{}"] == 1
    assert values["infertap_delivered_records_total{table}"] == 7
    assert values["infertap_destination_failing{table}"] == 0
    assert values["infertap_destination_failing{otlp}"] == 1
    assert values["infertap_destination_retry_seconds{table}"] == 0
    assert 3000 < values["infertap_destination_retry_seconds{otlp}"] <= 3600
    assert values["infertap_destination_requests_total{,otlp,written}"] == 3
    assert values["infertap_destination_requests_total{parked,otlp,lost}"] == 1


def test_records_that_wait_where_nobody_delivers_are_a_metric(start: Any, tmp_path: Path) -> None:
    """After a change from tables to OTLP, the old folder shows with its bytes as soon as nobody lives in it."""
    middleware = start(2)
    choice = middleware.pipeline.choice
    other = MetricsApp(_choice(tmp_path, destination="otlp"))
    name = f"infertap_forgotten_spool_bytes{{{choice.folder.name}}}"
    assert name not in _values(other)
    _stop(middleware)
    assert _values(other)[name] == _waiting_bytes(choice.folder)
    assert not [name for name in _values(MetricsApp(choice)) if "forgotten" in name]


def _waiting_bytes(folder: Path) -> int:
    segments = list(folder.glob("slots/*/*.seg"))
    assert segments
    return sum(path.stat().st_size for path in segments)


def test_a_conflict_of_destinations_is_a_metric(tmp_path: Path) -> None:
    """An alert can be made of it."""
    choice = _choice(tmp_path, {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4317"})
    assert _values(MetricsApp(choice))["infertap_destination_conflict{}"] == 1


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"5", b'{"destinations": 5}', b'{"destinations": {"table": 5}}'])
def test_a_damaged_state_of_the_drainer_breaks_no_scrape(tmp_path: Path, content: bytes) -> None:
    """What can be told is told."""
    choice = _choice(tmp_path)
    choice.folder.mkdir(parents=True)
    (choice.folder / "drainer.json").write_bytes(content)
    assert _values(MetricsApp(choice))["infertap_drainer_up{}"] == 0


def test_a_folder_that_is_not_there_yet_is_empty(tmp_path: Path) -> None:
    """Before the first start."""
    values = _values(MetricsApp(_choice(tmp_path)))
    assert values["infertap_requests_seen_total{}"] == values["infertap_slots{}"] == 0


def test_without_a_middleware_in_front_it_says_so() -> None:
    """503 and one line, no exception."""
    status, text = _get(metrics_app)
    assert status == 503
    assert "no InferenceMiddleware" in text
