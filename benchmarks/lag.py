"""Does a recorded app's event loop answer later than a bare one's? Both under uvicorn at half load, in turn.

1. Half load: half of the rate at which the bare app's process would fill its core, by its own CPU time.
2. The server has core 0, the open-loop client core 1. The drainer (nice 10, as always) may run on any core, as on a
   machine that they share; `--drainer same-core` keeps it on the server's, as in a pod with one core.
3. Bare and recorded slices alternate, and the order changes each round. A slice begins when nothing waits for the
   drainer, so that a bare slice never pays for the recorded one before it.
4. Server and client go before other people's processes, where they may: shared machines show their neighbours else.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from measure import PRIORITY, show, take_priority

from infertap.drain.process import NICE
from infertap.drain.state import DrainerState

SERVER_CORE, CLIENT_CORE = 0, 1
SIZES = (1024, 16384)
_DEADLINE_S = 60.0


class Slice(NamedTuple):
    """What one slice showed, in microseconds."""

    lag_p50: float
    lag_p99: float
    lag_p999: float
    client_p50: float
    client_p99: float
    loop_cpu: float
    """CPU of the event loop's thread per request."""
    cpu: float
    """CPU of the server's process per request, without the drainer's."""


class Comparison(NamedTuple):
    """The median of each figure over the rounds."""

    rate_per_s: float
    bare: Slice
    recorded: Slice
    lost: int
    """Requests of the recorded server, of all rounds, that did not reach the spool."""


class Server:
    """One server's process. `tables` names the folder where it is recorded to; None for the bare app."""

    def __init__(self, name: str, size: int, tables: Path | None, *, drainer_anywhere: bool = False) -> None:
        self.name = name
        self.size = size
        self.tables = tables
        self.requests = self.kept = 0
        self._drainer_anywhere = drainer_anywhere
        self._process = _start("lag_server.py", str(SERVER_CORE), str(size), *([str(tables)] if tables else []))
        self._port = str(self._answer()["port"])

    def run(self, rate_per_s: float, duration_s: float) -> Slice:
        settings = (str(CLIENT_CORE), self._port, str(self.size), str(rate_per_s), str(duration_s))
        client = _start("lag_client.py", *settings)
        client.stdout.readline()
        self._order("start")
        output, _ = client.communicate("begin\n")
        if client.returncode:
            raise SystemExit(f"the client of the {self.name} server failed")
        self._order("stop")
        seen, latencies = self._answer(), json.loads(output)
        self.requests += len(latencies)
        late_us, latencies_us = ([value / 1000 for value in values] for values in (seen["late_ns"], latencies))
        return Slice(
            *(quantile(late_us, share) for share in (0.5, 0.99, 0.999)),
            *(quantile(latencies_us, share) for share in (0.5, 0.99)),
            seen["loop_cpu_ns"] / len(latencies) / 1000,
            seen["cpu_ns"] / len(latencies) / 1000,
        )

    def settle(self) -> None:
        """Wait until the worker has spooled, and the drainer delivered, everything that was not lost."""
        deadline_s = time.monotonic() + _DEADLINE_S
        while self.tables is not None and not self._is_settled():
            if time.monotonic() > deadline_s:
                raise SystemExit(f"{self.kept} of {self.requests} requests kept, not all delivered: {self._drainer()}")
            time.sleep(0.1)
        self._place_drainer()

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait(_DEADLINE_S)

    def _is_settled(self) -> bool:
        self._order("kept")
        kept = self._answer()["kept"]
        self.kept = self.kept if kept is None else kept
        state = self._drainer()
        if kept is None or state is None or "table" not in state.destinations:
            return False
        return state.destinations["table"].records >= kept

    def _drainer(self) -> DrainerState | None:
        found = list((self.tables / ".spool").glob("*/drainer.json"))
        return DrainerState.load(found[0]) if found else None

    def _place_drainer(self) -> None:
        """It stays behind the server by as much as it chose itself, wherever the server has been moved to."""
        state = self._drainer() if self.tables is not None else None
        if state is None or not state.pid:
            return
        take_priority(state.pid, PRIORITY + NICE)
        if self._drainer_anywhere:
            for thread in Path(f"/proc/{state.pid}/task").iterdir():
                os.sched_setaffinity(int(thread.name), range(os.cpu_count() or 1))

    def _order(self, order: str) -> None:
        self._process.stdin.write(order + "\n")
        self._process.stdin.flush()

    def _answer(self) -> Any:
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"the {self.name} server ended")
        return json.loads(line)


def _start(name: str, *arguments: str) -> subprocess.Popen[str]:
    """In a session of its own, which can be weighed against all others."""
    command = [sys.executable, str(Path(__file__).with_name(name)), *arguments]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True)


def quantile(values: Sequence[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def measure(size: int, rounds: int, duration_s: float, *, drainer_anywhere: bool) -> Comparison:
    """Both servers, with bodies of `size`."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        bare = Server("bare", size, None)
        recorded = Server("infertap", size, Path(folder), drainer_anywhere=drainer_anywhere)
        servers = [bare, recorded]
        # The first requests warm both up; the second look at the bare one says what a request costs it.
        for server in servers:
            server.run(200, 2)
        rate_per_s = 0.5e6 / bare.run(500, 2).cpu
        slices: dict[str, list[Slice]] = {server.name: [] for server in servers}
        for turn in range(rounds):
            for server in servers if turn % 2 else reversed(servers):
                recorded.settle()
                slices[server.name].append(server.run(rate_per_s, duration_s))
        recorded.settle()
        for server in servers:
            server.close()
    medians = [
        Slice(*(statistics.median(figures) for figures in zip(*slices[server.name], strict=True))) for server in servers
    ]
    return Comparison(rate_per_s, *medians, lost=recorded.requests - recorded.kept)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of one slice")
    parser.add_argument("--drainer", choices=("same-core", "anywhere"), default="anywhere")
    arguments = parser.parse_args()
    if not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2:
        raise SystemExit("this benchmark needs Linux and two cores: one for the server, one for the client")
    rows: list[Sequence[str]] = []
    for size in SIZES:
        seen = measure(size, arguments.rounds, arguments.seconds, drainer_anywhere=arguments.drainer == "anywhere")
        ratios = [ours / base for ours, base in zip(seen.recorded, seen.bare, strict=True)]
        rows.append((f"2 x {size // 1024} KB, bare", *(f"{value:,.0f}" for value in seen.bare), ""))
        rows.append(("infertap", *(f"{value:,.0f}" for value in seen.recorded), str(seen.lost)))
        rows.append((f"ratio at {seen.rate_per_s:,.0f}/s", *(f"{ratio:.2f}" for ratio in ratios), ""))
    show(
        f"uvicorn at half load, us; drainer: {arguments.drainer}",
        ("", "lag p50", "p99", "p99.9", "client p50", "p99", "loop CPU", "CPU", "lost"),
        rows,
    )


if __name__ == "__main__":
    for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"):
        os.environ.pop(name, None)
    main()
