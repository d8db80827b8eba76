"""Does a recorded app's event loop answer later than a bare one's? Both under uvicorn at half load, in turn.

1. Half load: half of the rate at which the bare app's process would fill its core, by its own CPU time.
2. The server has core 0, the open-loop client core 1. The drainer comes as the server starts it: on the server's core,
   at nice 10, which is a pod with one core and so the hard case. `--drainer anywhere` lets it choose.
3. Bare and recorded slices alternate, and the order changes each round. A slice begins when nothing waits for the
   drainer, so that a bare slice never pays for the recorded one before it.
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


class Server:
    """One server's process. `tables` names the folder where it is recorded to; None for the bare app."""

    def __init__(self, name: str, size: int, tables: Path | None, *, drainer_anywhere: bool = False) -> None:
        self.name = name
        self.size = size
        self.tables = tables
        self.requests = self.kept = 0
        self._drainer_anywhere = drainer_anywhere
        command = [sys.executable, _beside("lag_server.py"), str(SERVER_CORE), str(size)]
        if tables is not None:
            command.append(str(tables))
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        self._port = str(self._answer()["port"])

    def run(self, rate_per_s: float, duration_s: float) -> Slice:
        client = [sys.executable, _beside("lag_client.py"), str(CLIENT_CORE), self._port, str(self.size)]
        self._order("start")
        done = subprocess.run(
            [*client, str(rate_per_s), str(duration_s)], stdout=subprocess.PIPE, check=False, start_new_session=True
        )
        if done.returncode:
            raise SystemExit(f"the client of the {self.name} server failed")
        self._order("stop")
        seen, latencies = self._answer(), json.loads(done.stdout)
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


def _beside(name: str) -> str:
    return str(Path(__file__).with_name(name))


def quantile(values: Sequence[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def measure(size: int, rounds: int, duration_s: float, *, drainer_anywhere: bool) -> tuple[float, dict[str, Slice]]:
    """Requests a second, and the median of each figure over the rounds, by server."""
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
                if os.environ.get("LAGDEBUG"):
                    print(
                        server.name,
                        [round(x) for x in slices[server.name][-1]],
                        server.requests - server.kept,
                        file=sys.stderr,
                    )
        recorded.settle()
        for server in servers:
            server.close()
    return rate_per_s, {
        name: Slice(*(statistics.median(figures) for figures in zip(*seen, strict=True)))
        for name, seen in slices.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5.0, help="of one slice")
    parser.add_argument("--drainer", choices=("same-core", "anywhere"), default="same-core")
    arguments = parser.parse_args()
    if not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2:
        raise SystemExit("this benchmark needs Linux and two cores: one for the server, one for the client")
    rows = []
    for size in SIZES:
        rate_per_s, medians = measure(
            size, arguments.rounds, arguments.seconds, drainer_anywhere=arguments.drainer == "anywhere"
        )
        bare, recorded = medians["bare"], medians["infertap"]
        label = f"2 x {size // 1024} KB, {rate_per_s:,.0f}/s"
        rows.append((f"{label} | bare", *(f"{value:,.0f}" for value in bare)))
        rows.append((f"{label} | infertap", *(f"{value:,.0f}" for value in recorded)))
        rows.append((f"{label} | ratio", *(f"{ours / base:.2f}" for ours, base in zip(recorded, bare, strict=True))))
    show(
        f"uvicorn at half load, us; drainer: {arguments.drainer}",
        ("", "lag p50", "p99", "p99.9", "client p50", "p99", "loop CPU", "CPU"),
        rows,
    )


if __name__ == "__main__":
    for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"):
        os.environ.pop(name, None)
    main()
