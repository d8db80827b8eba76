"""Prometheus metrics of one spool folder: summed over its slots, also those that are gone, and its drainer."""

import asyncio
from collections import Counter
from collections.abc import Iterable

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from infertap._version import __version__
from infertap.asgi_types import Receive, Scope, Send
from infertap.choice import Choice
from infertap.clock import Clock, SystemClock
from infertap.record import LossCause
from infertap.spool.accounts import counted
from infertap.spool.folder import SpoolFolder, list_segments
from infertap.spool.forgotten import forgotten_folders
from infertap.spool.jsonfile import read_json
from infertap.spool.page import PageView


class FolderCollector(Collector):
    """Reads pages, segments and the drainer's state at each scrape; keeps nothing in between."""

    def __init__(self, choice: Choice, clock: Clock) -> None:
        self._choice = choice
        self._folder = SpoolFolder(choice.folder)
        self._clock = clock

    def collect(self) -> Iterable[Metric]:
        info = GaugeMetricFamily("infertap_info", "Version and destination.", labels=("version", "destination"))
        info.add_metric((__version__, self._choice.kind), 1)
        yield info
        conflict = GaugeMetricFamily(
            "infertap_destination_conflict", "1 where tables are set but not written, because OTLP won."
        )
        conflict.add_metric((), int(self._choice.conflict is not None))
        yield conflict
        pages, totals = counted(self._folder)
        yield from self._requests(totals)
        yield from self._spool(pages)
        yield from self._forgotten()
        yield from self._drainer()

    def _requests(self, totals: Counter[str]) -> Iterable[Metric]:
        for name, words in (
            ("seen", "Requests that arrived at recorded paths."),
            ("finished", "Requests whose exchange has ended."),
            ("kept", "Rows that are durable in the spool or beyond."),
        ):
            counter = CounterMetricFamily(f"infertap_requests_{name}", words)
            counter.add_metric((), totals[name])
            yield counter
        lost = CounterMetricFamily("infertap_requests_lost", "Requests whose records were lost.", labels=("cause",))
        for cause in LossCause:
            lost.add_metric((cause.value,), totals[f"lost/{cause}"])
        yield lost
        for name, words in (
            ("spans_dropped", "Spans of the app or of a sender that did not reach the disk."),
            ("background_failures", "Exceptions of the app after its answer was complete."),
            ("capture_failures", "Failures of infertap's own code beside a request; traffic went on."),
        ):
            counter = CounterMetricFamily(f"infertap_{name}", words)
            counter.add_metric((), totals[name])
            yield counter

    def _spool(self, pages: list[PageView]) -> Iterable[Metric]:
        now_ns = self._clock.wall_ns()
        oldest = [page.oldest_unspooled_ns for page in pages if page.oldest_unspooled_ns]
        waiting = sum(len(list_segments(self._folder.slot_dir(spool_id))) for spool_id in self._folder.slot_ids())
        for name, words, value in (
            ("infertap_queue_bytes", "Bytes captured or queued in memory.", sum(page.queue_bytes for page in pages)),
            (
                "infertap_oldest_unspooled_seconds",
                "Age of the oldest request that is not on disk yet.",
                max(0, now_ns - min(oldest)) / 1e9 if oldest else 0.0,
            ),
            ("infertap_spool_bytes", "Bytes of segments on disk.", self._folder.size_bytes()),
            ("infertap_spool_segments_waiting", "Sealed segments that are not delivered.", waiting),
            ("infertap_slots", "Pipelines that have a slot in this folder.", len(pages)),
        ):
            gauge = GaugeMetricFamily(name, words)
            gauge.add_metric((), value)
            yield gauge

    def _forgotten(self) -> Iterable[Metric]:
        forgotten = GaugeMetricFamily(
            "infertap_forgotten_spool_bytes",
            "Bytes that wait for another destination and that nobody delivers any more, by folder of the spool.",
            labels=("folder",),
        )
        spool_dirs = (self._choice.spool_dir, *self._choice.other_spool_dirs)
        for path, size_bytes in forgotten_folders(spool_dirs, own=self._choice.folder).items():
            forgotten.add_metric((path.name,), size_bytes)
        yield forgotten

    def _drainer(self) -> Iterable[Metric]:
        state = read_json(self._folder.drainer_state) or {}
        up = GaugeMetricFamily("infertap_drainer_up", "1 while a drainer says that it is running.")
        up.add_metric((), int(state.get("state") == "running"))
        yield up
        delivered = CounterMetricFamily("infertap_delivered_records", "Records delivered.", labels=("destination",))
        failing = GaugeMetricFamily("infertap_destination_failing", "1 while delivery fails.", labels=("destination",))
        retry = GaugeMetricFamily(
            "infertap_destination_retry_seconds",
            "Seconds until a failing destination is tried again; over 60 where it asked for patience.",
            labels=("destination",),
        )
        outcomes = CounterMetricFamily(
            "infertap_destination_requests",
            "What became of requests behind the spool; the tables count what they hold themselves.",
            labels=("destination", "outcome", "cause"),
        )
        destinations = state.get("destinations")
        for name, facts in destinations.items() if isinstance(destinations, dict) else ():
            if not isinstance(facts, dict):
                continue  # a drainer of another version
            delivered.add_metric((name,), facts.get("records", 0))
            failing.add_metric((name,), int(bool(facts.get("last_error"))))
            retry_at_ns = facts.get("retry_at_ns")
            due_ns = retry_at_ns - self._clock.wall_ns() if isinstance(retry_at_ns, int) else 0
            retry.add_metric((name,), max(0, due_ns) / 1e9)
            counts = facts.get("counts")
            for key, count in counts.items() if isinstance(counts, dict) else ():
                outcome, _, cause = key.partition("/")
                outcomes.add_metric((name, outcome, cause), count)
        yield delivered
        yield outcomes
        yield failing
        yield retry


class MetricsApp:
    """ASGI app that answers with the metrics.

    Args:
        choice: Whose folder. None: that of the `InferenceMiddleware` which the request came through.
    """

    def __init__(self, choice: Choice | None = None) -> None:
        self._choice = choice

    async def __call__(self, scope: Scope, _receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        choice = self._choice or getattr(scope.get("infertap"), "choice", None)
        if choice is None:
            await _answer(send, 503, "text/plain", b"no InferenceMiddleware records in front of this app\n")
            return
        body = await asyncio.to_thread(_rendered, choice)
        await _answer(send, 200, CONTENT_TYPE_LATEST, body)


metrics_app = MetricsApp()
"""Mount it where there is no sidecar: `app.mount("/metrics", metrics_app)`."""


def _rendered(choice: Choice) -> bytes:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(FolderCollector(choice, SystemClock()))
    return generate_latest(registry)


async def _answer(send: Send, status: int, media_type: str, body: bytes) -> None:
    headers = [(b"content-type", media_type.encode()), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
