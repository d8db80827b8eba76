"""What the drainer's process costs per request: CPU time of the whole process, threads and kernel included.

1. Everything is the product's: records go through the real worker and spool, and the drainer is the process that an
   app would start; it is asked for a delivery as an app that stops asks.
2. The CPU clock is the drainer's own (`CLOCK_PROCESS_CPUTIME_ID` of its pid), read while it is idle before the batch
   and again when `drainer.json` says that the batch is delivered. Imports and the making of the tables come before.
3. `clock_gettime` of another process is Linux's.
"""

import contextlib
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from measure import show
from worker import chat_body, exchange

from infertap import Config
from infertap.build import build_pipeline
from infertap.choice import choose
from infertap.drain.state import DrainerState, Phase
from infertap.events import EventLog
from infertap.otel_env import OtelEnvironment
from infertap.pipeline import Pipeline
from infertap.spool.folder import SpoolFolder

COMMITS = 9
WARM_UP = 2
_DEADLINE_S = 60.0


class Drained:
    """A pipeline without its thread, and the drainer's process that empties its spool."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        config = Config(
            tables=str(folder), queue_bytes_max="8GiB", segment_bytes_max="512MiB", commit_bytes_max="512MiB",
            commit_interval_s=600, drain_s=5, spool_dir=folder / "spool",
        )  # fmt: skip
        choice = choose(config, OtelEnvironment.read(environment), cwd=folder)
        self.name = choice.targets.names[0]
        self.pipeline: Pipeline = build_pipeline(config, choice, EventLog())
        self.folder = SpoolFolder(choice.folder)
        self.requests = 0
        self.pipeline.worker.writer.open()
        self._wait_for(lambda state: state.phase is Phase.RUNNING and state.pid != 0)
        self.pid = self.state.pid

    @property
    def state(self) -> DrainerState:
        return DrainerState.load(self.folder.drainer_state)

    def cpu_ns(self) -> int:
        # The kernel's encoding of "CPU time of that process, all threads": ~pid << 3 | CPUCLOCK_SCHED.
        return time.clock_gettime_ns((~self.pid << 3) | 2)

    def deliver(self, requests: int, body: bytes) -> float:
        """Microseconds of CPU per request for one batch: one segment, one delivery."""
        for _ in range(requests):
            self.pipeline.submit(exchange(self.pipeline, body))
        self.pipeline.worker.spool_queue()
        before = self.state.destinations.get(self.name)
        began = self.cpu_ns()
        self.pipeline.worker.writer.seal()
        slot = self.pipeline.worker.writer.slot
        if slot is None:
            raise SystemExit("the spool took nothing")
        slot.request_flush()
        self.folder.ring()
        self.requests += requests
        self._wait_for(lambda state: self._records(state) >= self.requests)
        took_ns = self.cpu_ns() - began
        status = self.state.destinations[self.name]
        if status.deliveries != (before.deliveries if before else 0) + 1:
            raise SystemExit("the batch was not delivered at once: the figure would not be one commit's")
        return took_ns / requests / 1000

    def close(self) -> None:
        self.pipeline.worker.writer.close()
        # It would linger for another owner.
        os.kill(self.pid, signal.SIGTERM)
        self._wait_for(lambda state: state.phase is Phase.ENDED)

    def _records(self, state: DrainerState) -> int:
        status = state.destinations.get(self.name)
        return status.records if status else 0

    def _wait_for(self, reached: Callable[[DrainerState], bool]) -> None:
        deadline_s = time.monotonic() + _DEADLINE_S
        while not reached(state := self.state):
            error = next((status.last_error for status in state.destinations.values() if status.last_error), "")
            if error or time.monotonic() > deadline_s:
                raise SystemExit(f"the drainer does not deliver: {error or state}")
            self.pipeline.worker.delivery.tick()
            time.sleep(0.02)


@contextlib.contextmanager
def sink(protocol: str) -> Iterator[dict[str, str]]:
    """A receiver in a process of its own; yields the environment that names it."""
    command = [sys.executable, str(Path(__file__).with_name("otlp_sink.py")), protocol]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            port = process.stdout.readline().strip()
            yield {
                "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}",
                "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
            }
        finally:
            process.stdin.close()
            process.wait(10)


def measure(environment: Mapping[str, str], cases: list[tuple[int, int]]) -> list[float]:
    """The median of `COMMITS` batches for each (requests a batch, bytes a body); the cases in turn."""
    figures: list[list[float]] = [[] for _ in cases]
    with tempfile.TemporaryDirectory() as folder:
        drained = Drained(Path(folder), environment)
        try:
            for turn in range(WARM_UP + COMMITS):
                for (requests, size), values in zip(cases, figures, strict=True):
                    figure = drained.deliver(requests, chat_body(size))
                    if turn >= WARM_UP:
                        values.append(figure)
        finally:
            drained.close()
    return [statistics.median(values) for values in figures]


def main() -> None:
    cases = [(500, 1024), (2000, 1024), (500, 16384)]
    figures = {"Delta: row, span, ledger": measure({}, cases)}
    for protocol in ("grpc", "http/protobuf"):
        with sink(protocol) as environment:
            figures[f"OTLP {protocol}: span with both bodies"] = measure(environment, cases)
    show(
        "Drainer: process CPU per request (us), by requests in a commit and size of each body",
        ("", *(f"{requests:,} x 2 x {size // 1024} KB" for requests, size in cases)),
        [(name, *(f"{value:.0f}" for value in values)) for name, values in figures.items()],
    )


if __name__ == "__main__":
    os.environ.pop("OTEL_EXPORTER_OTLP_ENDPOINT", None)
    main()
