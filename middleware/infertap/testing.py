"""For tests of apps that are recorded: the real recorder on a folder of its own, and what it kept, as rows.

    from infertap.testing import recording

    with recording(app) as recorded:
        TestClient(recorded.app).post("/v1/chat", json={"api_key": "sk-123"})
    (row,) = recorded.requests
    assert json.loads(row["request"]) == {"api_key": "[REDACTED]"}

Nothing here stands in for a part of infertap: capture, redaction and spool are those of production. What is read is the
spool, because every destination gets what is in it, and no more.
"""

import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from infertap.asgi import InferenceMiddleware
from infertap.asgi_types import ASGIApp
from infertap.config import Config
from infertap.spool.folder import OPEN, SEALED, SpoolFolder, list_segments
from infertap.spool.reader import Segment, read_segment
from infertap.tables.rows import Row, SegmentHead, inference_row, span_row
from infertap.tables.schema import INFERENCE

__all__ = ["ManualClock", "Recording", "recording"]

WAIT_S_MAX = 30.0
"""How long `Recording.wait` waits unless it is told otherwise."""

_POLL_S = 0.01
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Recording:
    """An app that is recorded, and what was kept of it so far; complete once the block of `recording` has ended."""

    def __init__(self, app: ASGIApp, spool_dir: Path, config: Config) -> None:
        self._spool_dir = spool_dir
        self._middleware = InferenceMiddleware(app, config=config)
        self._final: tuple[list[Row], list[Row]] | None = None

    @property
    def app(self) -> ASGIApp:
        """The wrapped app: give it to the test client instead of your own."""
        return self._middleware

    @property
    def requests(self) -> list[dict[str, Any]]:
        """Rows of `inference` as a query gives them, in the order in which the requests ended."""
        return self._read()[0]

    @property
    def spans(self) -> list[dict[str, Any]]:
        """Rows of `spans` of the app's own spans; the requests' own are made by the destination."""
        return self._read()[1]

    def wait(self, count: int, *, within_s: float = WAIT_S_MAX) -> list[dict[str, Any]]:
        """The requests, once there are `count` or more. Raises: AssertionError: there are fewer after `within_s`."""
        deadline_s = time.monotonic() + within_s
        while len(found := self.requests) < count:
            assert time.monotonic() < deadline_s, f"{len(found)} of {count} requests were recorded in {within_s:g} s"
            time.sleep(_POLL_S)
        return found

    def stop(self) -> None:
        """Keep everything that was seen, and end. Safe twice; `recording` does it."""
        pipeline = self._middleware.pipeline
        if pipeline is not None:
            pipeline.wait_ready()
            pipeline.stop()
        self._final = self._read()

    def _read(self) -> tuple[list[Row], list[Row]]:
        if self._final is not None:
            return self._final
        requests: list[Row] = []
        spans: list[Row] = []
        for segment in self._segments():
            head = SegmentHead.of(segment.spool_id, segment.segment_no, segment.header)
            requests += [_as_queried(inference_row(payload, head)) for payload in segment.requests]
            spans += [span_row(payload, head, number) for number, payload in enumerate(segment.spans)]
        return requests, spans

    def _segments(self) -> Iterator[Segment]:
        for folder in map(SpoolFolder, sorted(self._spool_dir.glob("*/"))):
            for slot in map(folder.slot_dir, folder.slot_ids()):
                for path in [*list_segments(slot), *list_segments(slot, OPEN)]:
                    try:
                        yield read_segment(path)
                    except FileNotFoundError:
                        # It was sealed at this moment.
                        yield read_segment(path.with_suffix(SEALED))


@contextmanager
def recording(app: ASGIApp, **settings: Any) -> Iterator[Recording]:
    """Record an app into a folder that is gone afterwards; nothing is delivered anywhere.

    An app that wraps itself in `InferenceMiddleware` goes on recording to its own destination; set
    `INFERTAP_DESTINATION=none` where the tests run.

    Args:
        app: Any ASGI app. Its test client may send lifespan events, or not.
        settings: As for `Config`, for example `redact_keys=("iban",)`.

    Raises: ConfigError: a setting is wrong.
    """
    with tempfile.TemporaryDirectory(prefix="infertap-testing-") as folder:
        root = Path(folder)
        fixed = {"tables": str(root / "tables"), "spool_dir": root / "spool", "drainer": "external", "drain_s": 0}
        config = Config(**{"destination": "table", "spool_flush_ms": 10, **settings, **fixed}).thrown_away()
        recorded = Recording(app, root / "spool", config)
        try:
            yield recorded
        finally:
            recorded.stop()


class ManualClock:
    """A clock that stands still until it is moved: `Clock` of `infertap.clock`."""

    def __init__(self, now_s: float = 1_700_000_000.0) -> None:
        self.now_s = now_s

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.now_s += seconds

    def wall_ns(self) -> int:
        return int(self.now_s * 1e9)

    def monotonic_s(self) -> float:
        return self.now_s


def _as_queried(row: Mapping[str, Any]) -> Row:
    """Every column, with the type that a query gives."""
    queried: Row = {}
    for column in INFERENCE.columns:
        value = row.get(column.name)
        if value is None and column.type.startswith(("MAP", "ARRAY")):
            value = {} if column.type.startswith("MAP") else []
        elif value is not None and column.type == "TIMESTAMP":
            value = _EPOCH + timedelta(microseconds=value)
        elif value is not None and column.type == "DATE":
            value = date(1970, 1, 1) + timedelta(days=value)
        queried[column.name] = value
    return queried
