"""What does the sidecar's proxy cost per request: infertap's own client against httpx, recorded and not, and nginx.

1. 1 KB bodies both ways, connections kept and always busy; the proxy has core 0, the two ends share core 1.
2. Judged by the CPU time of the proxy's process (all its threads, kernel included) per request: on a shared machine the
   rate says as much about the ends and the neighbours.
3. Variants take turns in an order that changes each round; a figure is the median of its rounds.
"""

import argparse
import contextlib
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from measure import show

PROXY_CORE, ENDS_CORE = 0, 1
_PEERS = str(Path(__file__).with_name("proxy_peers.py"))
_NGINX = """
daemon off; master_process off; worker_processes 1; pid {folder}/pid; error_log {folder}/log error;
events {{ worker_connections 512; }}
http {{
  access_log off; client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  upstream model {{ server 127.0.0.1:{upstream}; keepalive 64; }}
  server {{ listen 127.0.0.1:{port};
    location / {{ proxy_pass http://model; proxy_http_version 1.1; proxy_set_header Connection ""; }} }}
}}
"""


class Proxy:
    """A proxy's process and what its requests cost it."""

    def __init__(self, name: str, process: "subprocess.Popen[str]", port: int) -> None:
        self.name = name
        self.process = process
        self.port = port
        self.cpu_us: list[float] = []
        self.rates_per_s: list[float] = []

    def run(self, connections: int, duration_s: float) -> None:
        before_ns = self._cpu_ns()
        command = [sys.executable, _PEERS, "call", str(ENDS_CORE), str(self.port), str(connections), str(duration_s)]
        answers = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        self.cpu_us.append((self._cpu_ns() - before_ns) / answers / 1000)
        self.rates_per_s.append(answers / duration_s)

    def _cpu_ns(self) -> int:
        threads = Path(f"/proc/{self.process.pid}/task").iterdir()
        return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads)


def start_infertap(name: str, upstream: int, *flags: str) -> Proxy:
    serve = [sys.executable, "-m", "infertap_sidecar", "serve", "--upstream", f"http://127.0.0.1:{upstream}"]
    listen = ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--drainer", "external", "--drain-s", "0"]
    process = subprocess.Popen(
        ["taskset", "-c", str(PROXY_CORE), *serve, *listen, *flags], stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    for line in process.stderr:
        if match := re.search(r"listening on 127\.0\.0\.1:(\d+)", line):
            return Proxy(name, process, int(match[1]))
    raise SystemExit(f"{name} did not start")


def start_nginx(upstream: int, folder: Path) -> Proxy:
    port = upstream - 1 if upstream > 1025 else upstream + 1
    (folder / "nginx.conf").write_text(_NGINX.format(folder=folder, upstream=upstream, port=port))
    command = ["taskset", "-c", str(PROXY_CORE), "nginx", "-p", str(folder), "-c", str(folder / "nginx.conf")]
    return Proxy("nginx", subprocess.Popen(command, text=True), port)


@contextlib.contextmanager
def proxies(folder: Path) -> Iterator[list[Proxy]]:
    ends: list[subprocess.Popen[str]] = []
    try:
        model = subprocess.Popen(
            [sys.executable, _PEERS, "serve", str(ENDS_CORE)], stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        ends.append(model)
        assert model.stdout is not None
        upstream = int(model.stdout.readline())
        started = []
        for client in ("native", "httpx"):
            for recorded in (False, True):
                where = ["--tables", str(folder / client)] if recorded else ["--destination", "none"]
                name = f"{client}, recorded" if recorded else client
                started.append(start_infertap(name, upstream, "--upstream-client", client, *where))
                ends.append(started[-1].process)
        if shutil.which("nginx"):
            started.append(start_nginx(upstream, folder))
            ends.append(started[-1].process)
        yield started
    finally:
        for process in ends:
            process.terminate()
        for process in ends:
            process.wait(60)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of one round of one variant")
    parser.add_argument("--connections", type=int, default=16)
    arguments = parser.parse_args()
    if not Path("/proc/self/schedstat").exists() or not shutil.which("taskset"):
        raise SystemExit("this benchmark needs Linux and taskset")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder, proxies(Path(folder)) as variants:
        for proxy in variants:
            proxy.run(arguments.connections, 1.0)
            proxy.cpu_us.clear()
            proxy.rates_per_s.clear()
        for _ in range(arguments.rounds):
            for proxy in random.sample(variants, len(variants)):
                proxy.run(arguments.connections, arguments.seconds)
    base = statistics.median(variants[0].cpu_us)
    rows: list[Sequence[str]] = []
    for proxy in variants:
        cpu_us, rate = statistics.median(proxy.cpu_us), statistics.median(proxy.rates_per_s)
        rows.append((proxy.name, f"{cpu_us:,.0f}", f"{min(proxy.cpu_us):,.0f}", f"{cpu_us / base:.2f}", f"{rate:,.0f}"))
    show(
        f"the proxy, 1 KB both ways, {arguments.connections} connections; us of CPU per request",
        ("upstream client", "median", "least", "x native", "requests/s seen"),
        rows,
    )
    if len(variants) == 4:
        print("nginx is not installed: no row for it")


if __name__ == "__main__":
    main()
