"""`infertap serve` as a real process: start, readiness, memory, signals, exit codes."""

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

DEADLINE_S = 120.0
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
BODY_BYTES = 100 * 1024 * 1024
PEAK_BYTES_MAX = 60 * 1024 * 1024
"""Above what the idle process needs: queue_bytes_max is 16 MiB there, and the body six times as large."""


class Sidecar:
    """A running `infertap serve`; `log` grows as it speaks."""

    def __init__(self, folder: Path, upstream: str, *flags: str, **variables: str) -> None:
        self.log: list[str] = []
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("INFERTAP_", "OTEL_"))}
        command = [sys.executable, "-m", "infertap_sidecar", "serve", "--upstream", upstream]
        command += ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--drainer", "external", "--drain-s", "0"]
        self.process = subprocess.Popen(
            [*command, *flags], cwd=folder, env={**clean, **variables}, stderr=subprocess.PIPE, text=True
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        listening = self.wait_for_line("listening on")
        ports = [int(port) for port in re.findall(r"127\.0\.0\.1:(\d+)", listening)]
        self.port, self.admin_port = ports[0], ports[-1]

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.log.append(line)

    def wait_for_line(self, words: str) -> str:
        deadline = time.monotonic() + DEADLINE_S
        while time.monotonic() < deadline:
            found = [line for line in self.log if words in line]
            if found:
                return found[0]
            assert self.process.poll() is None or self._reader.is_alive(), "".join(self.log)
            time.sleep(0.01)
        raise AssertionError(f"no line with {words!r} in:\n{''.join(self.log)}")

    def get(self, path: str, *, admin: bool = False) -> httpx.Response:
        return httpx.get(f"http://127.0.0.1:{self.admin_port if admin else self.port}{path}", timeout=60)

    def peak_bytes(self) -> int:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.ended()

    def ended(self) -> int:
        code = self.process.wait(timeout=DEADLINE_S)
        self._reader.join(timeout=DEADLINE_S)
        return code

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(timeout=DEADLINE_S)
        self._reader.join(timeout=DEADLINE_S)
        assert self.process.stderr is not None
        self.process.stderr.close()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Any]:
    """Start sidecars in the test's own folder; what still runs at the end is killed."""
    with contextlib.ExitStack() as stack:

        def started(upstream_port: int, *flags: str, **variables: str) -> Sidecar:
            sidecar = Sidecar(tmp_path, f"http://127.0.0.1:{upstream_port}", *flags, **variables)
            stack.callback(sidecar.close)
            return sidecar

        yield started


async def answer_ok(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK)


def test_it_serves_says_where_to_and_stops_cleanly(servers: Any, start: Any, tmp_path: Path) -> None:
    """One line at start, requests forwarded and spooled, the operator's port answers, SIGTERM ends it with 0."""
    sidecar = start(servers.raw(answer_ok))
    assert any("recording to ./inference_tables because nothing else is set" in line for line in sidecar.log)
    assert sidecar.get("/v1/x").text == "ok"
    assert sidecar.get("/livez", admin=True).text == "ok\n"
    assert sidecar.get("/readyz", admin=True).json() == {"ready": True}
    assert "infertap_requests_seen_total 1.0" in sidecar.get("/metrics", admin=True).text
    assert sidecar.stop() == 0
    segments = list(tmp_path.glob("inference_tables/.spool/*/slots/*/*.seg"))
    assert len(segments) == 1
    assert b"/v1/x" in segments[0].read_bytes()


async def answer_host(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        head = await reader.readuntil(b"\r\n\r\n")
        host = re.search(rb"(?im)^host: (.*)\r$", head)
        assert host is not None
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(host[1]), host[1]))


@pytest.mark.parametrize("whose", ["client", "upstream"])
def test_the_model_server_sees_the_host_that_the_setting_says(servers: Any, start: Any, whose: str) -> None:
    """The client's, or its own address."""
    port = servers.raw(answer_host)
    sidecar = start(port, "--upstream-host-header", whose)
    url = f"http://127.0.0.1:{sidecar.port}/x"
    seen = httpx.get(url, headers={"host": "shop.example"}, timeout=60).text
    assert seen == ("shop.example" if whose == "client" else f"127.0.0.1:{port}")


def test_the_wait_for_a_connection_is_what_the_setting_says(start: Any) -> None:
    """With ten minutes, a server that never accepts has not failed after the default's five seconds."""
    with socket.socket() as deaf, contextlib.ExitStack() as waiting:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        for _ in range(8):
            # The backlog is full after one or two: whoever comes now waits for an answer that never comes.
            client = waiting.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(deaf.getsockname())
        sidecar = start(deaf.getsockname()[1], "--upstream-connect-timeout-s", "600", "--connection-drain-s", "0")
        with pytest.raises(httpx.ReadTimeout):
            httpx.get(f"http://127.0.0.1:{sidecar.port}/x", timeout=7)


def test_an_upstream_that_is_down_makes_nobody_unready(start: Any, free_port: Callable[[], int]) -> None:
    """The sidecar starts before its model server, answers 502 and stays ready; the log says so once."""
    sidecar = start(free_port())
    assert [sidecar.get("/x").status_code for _ in range(3)] == [502, 502, 502]
    assert sidecar.get("/readyz", admin=True).status_code == 200
    sidecar.wait_for_line("cannot connect to the upstream: connection refused")
    assert sidecar.stop() == 0
    assert sum("cannot connect to the upstream" in line for line in sidecar.log) == 1


def test_an_unwritable_spool_makes_it_unready_and_harms_no_traffic(servers: Any, start: Any, tmp_path: Path) -> None:
    """Requests are answered; readiness says what is wrong."""
    (tmp_path / "spool").write_text("a file where the folder should be")
    sidecar = start(servers.raw(answer_ok), "--spool-dir", "spool")
    assert sidecar.get("/v1/x").text == "ok"
    answer = sidecar.get("/readyz", admin=True)
    assert answer.status_code == 503
    assert "not writable" in answer.json()["problems"][0]
    assert sidecar.stop() == 0


def test_recording_nothing_on_purpose_is_ready(servers: Any, start: Any, tmp_path: Path) -> None:
    """`destination = none` is a plain proxy that makes no folder."""
    sidecar = start(servers.raw(answer_ok), "--destination", "none")
    assert sidecar.get("/v1/x").text == "ok"
    assert sidecar.get("/readyz", admin=True).status_code == 200
    assert sidecar.stop() == 0
    assert list(tmp_path.iterdir()) == []


def test_a_stop_lets_answers_finish(servers: Any, start: Any) -> None:
    """A stream under way at SIGTERM ends as the upstream ends it; new connections are refused meanwhile."""
    release = asyncio.Event()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n")
        await release.wait()
        writer.write(b"4\r\nlast\r\n0\r\n\r\n")

    async def set_release() -> None:
        release.set()

    sidecar = start(servers.raw(slow))
    with httpx.stream("GET", f"http://127.0.0.1:{sidecar.port}/s", timeout=60) as stream:
        chunks = stream.iter_raw()
        assert next(chunks) == b"first"
        sidecar.process.send_signal(signal.SIGTERM)
        refused = False
        deadline = time.monotonic() + DEADLINE_S
        while not refused and time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", sidecar.port), timeout=5).close()
            except ConnectionRefusedError:
                refused = True
            time.sleep(0.01)
        assert refused
        assert sidecar.get("/readyz", admin=True).json() == {"ready": False, "problems": ["stopping"]}
        servers.run(set_release())
        assert b"".join(chunks) == b"last"
    assert sidecar.ended() == 0


def test_a_second_signal_cuts_answers_off_and_still_records_them(servers: Any, start: Any, tmp_path: Path) -> None:
    """Who is in a hurry loses the answers, not the records."""

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n")
        await reader.read()

    sidecar = start(servers.raw(hang))
    with httpx.stream("GET", f"http://127.0.0.1:{sidecar.port}/hurry", timeout=60) as stream:
        chunks = stream.iter_raw()
        assert next(chunks) == b"first"
        sidecar.process.send_signal(signal.SIGTERM)
        while sidecar.get("/readyz", admin=True).status_code == 200:
            time.sleep(0.01)
        sidecar.process.send_signal(signal.SIGINT)
        with pytest.raises(httpx.RemoteProtocolError):
            next(chunks)
    assert sidecar.ended() == 0
    (segment,) = tmp_path.glob("inference_tables/.spool/*/slots/*/*.seg")
    assert b"/hurry" in segment.read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("way", ["up", "down"])
def test_100_mb_stream_through_bounded_memory(servers: Any, start: Any, way: str) -> None:
    """A body six times the byte budget passes whole and unbuffered in either direction."""
    received: list[int] = []

    async def sink(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        count = 0
        while count < BODY_BYTES:
            count += len(await reader.read(1 << 16))
        received.append(count)
        writer.write(OK)

    async def source(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % BODY_BYTES)
        for _ in range(BODY_BYTES >> 16):
            writer.write(bytes(1 << 16))
            await writer.drain()

    sidecar = start(servers.raw(sink if way == "up" else source), "--queue-bytes-max", "16MiB")
    before = sidecar.peak_bytes()
    url = f"http://127.0.0.1:{sidecar.port}/big"
    if way == "up":
        chunks = (bytes(1 << 16) for _ in range(BODY_BYTES >> 16))
        headers = {"content-length": str(BODY_BYTES)}
        assert httpx.post(url, content=chunks, headers=headers, timeout=DEADLINE_S).text == "ok"
    else:
        with httpx.stream("GET", url, timeout=60) as stream:
            received.append(sum(len(chunk) for chunk in stream.iter_raw()))
    assert received == [BODY_BYTES]
    assert sidecar.peak_bytes() - before < PEAK_BYTES_MAX


@pytest.mark.parametrize("sized", [True, False], ids=["length", "chunked"])
def test_an_early_413_reaches_who_uploads_20_mb(servers: Any, start: Any, sized: bool) -> None:
    """Ten times of ten, though the model server closes at once and its host resets the connection."""

    async def too_large(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 9\r\n\r\ntoo large")

    sidecar = start(servers.raw(too_large))
    headers = {"content-length": str(20 << 20)} if sized else {}
    for _ in range(10):
        body = (bytes(1 << 16) for _ in range(320))
        answer = httpx.post(f"http://127.0.0.1:{sidecar.port}/up", content=body, headers=headers, timeout=60)
        assert (answer.status_code, answer.text) == (413, "too large")
    assert sidecar.stop() == 0


def test_an_event_stream_passes_event_by_event_until_its_reader_leaves(servers: Any, start: Any) -> None:
    """Each event arrives before the next one is made; when the client goes, the model server's work ends."""
    events: asyncio.Queue[bytes] = asyncio.Queue()
    left = threading.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(20):
            event = await events.get()
            writer.write(b"%x\r\n%b\r\n" % (len(event), event))
        await reader.read()
        left.set()

    sidecar = start(servers.raw(talk))
    with httpx.stream("POST", f"http://127.0.0.1:{sidecar.port}/s", json={}, timeout=60) as stream:
        chunks = stream.iter_raw()
        for number in range(20):
            event = b"data: %d\n\n" % number
            servers.run(events.put(event))
            assert next(chunks) == event
    assert left.wait(DEADLINE_S)
    assert sidecar.stop() == 0


@pytest.mark.parametrize("client", ["native", "httpx"])
def test_the_client_to_the_upstream_is_a_setting(servers: Any, start: Any, client: str) -> None:
    """`--upstream-client` says which one: only infertap's own knows transfer codings below the chunks."""
    heads: list[bytes] = []

    async def gzipped(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n1\r\nz\r\n0\r\n\r\n")

    sidecar = start(servers.raw(gzipped), "--upstream-client", client)
    with socket.create_connection(("127.0.0.1", sidecar.port), timeout=60) as connection:
        connection.sendall(b"GET /e? HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        received = b""
        while part := connection.recv(1 << 16):
            received += part
    assert heads[0].startswith(b"GET /e? HTTP/1.1\r\n")
    assert received.startswith(b"HTTP/1.1 200 " if client == "native" else b"HTTP/1.1 502 ")
    assert sidecar.stop() == 0


def test_failures_are_recorded_as_what_they_were(servers: Any, start: Any, infertap: Any) -> None:
    """502 and 504 of our own, half an answer, a client that left: each row says who ended the exchange, and how."""

    async def fail(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if b"/died" in head:
            return
        if b"/silent" not in head:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        if b"/half" not in head:
            await reader.read()

    sidecar = start(servers.raw(fail), "--upstream-read-timeout-s", "5")
    url = f"http://127.0.0.1:{sidecar.port}"
    assert httpx.post(f"{url}/died").status_code == 502
    assert httpx.post(f"{url}/silent").status_code == 504
    with pytest.raises(httpx.RemoteProtocolError):
        httpx.post(f"{url}/half")
    with socket.create_connection(("127.0.0.1", sidecar.port), timeout=60) as client:
        client.sendall(b"POST /left HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
        while not client.recv(100).endswith(b"half"):
            pass
    assert sidecar.stop() == 0
    assert infertap("drain").returncode == 0
    sql = "SELECT path, status_code, end_reason, error_type FROM inference"
    rows = [json.loads(line) for line in infertap("query", sql).stdout.splitlines()]
    assert {row.pop("path"): tuple(row.values()) for row in rows} == {
        "/died": (502, "upstream_error", "RemoteProtocolError"),
        "/silent": (504, "upstream_timeout", "ReadTimeout"),
        "/half": (200, "upstream_error", "RemoteProtocolError"),
        "/left": (200, "client_disconnect", None),
    }


def test_logs_can_be_json(start: Any, free_port: Callable[[], int]) -> None:
    """Every line of the log is one JSON object."""
    sidecar = start(free_port(), "--log-format", "json")
    sidecar.get("/x")
    sidecar.wait_for_line("cannot connect")
    assert sidecar.stop() == 0
    entries = [json.loads(line) for line in sidecar.log]
    assert {"time", "level", "logger", "message"} <= entries[0].keys()


def failed(tmp_path: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("INFERTAP_", "OTEL_"))}
    command = [sys.executable, "-m", "infertap_sidecar", "serve", *arguments]
    return subprocess.run(
        command,
        cwd=tmp_path,
        env={**clean, **variables},
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )


def test_all_problems_come_at_once_and_nothing_starts(tmp_path: Path) -> None:
    """Exit code 2, one line a problem, wherever it was said; no folder is made."""
    result = failed(tmp_path, "--upstrem", "x", "--listen", "99", "--workers", "2", INFERTAP_QUEUE_BYTES_MAX="lots")
    assert result.returncode == 2
    for words in (
        "--upstrem: no such flag; did you mean --upstream?",
        "upstream:",
        "listen (--listen):",
        "workers (--workers):",
        "INFERTAP_QUEUE",
    ):
        assert words in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_mistakes_in_otel_variables_stop_the_sidecar(tmp_path: Path) -> None:
    """Unlike an app, `serve` refuses to start with an endpoint that cannot work."""
    variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4317", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"}
    result = failed(tmp_path, "--upstream", "http://127.0.0.1:1", **variables)
    assert result.returncode == 2
    assert "OTEL_EXPORTER_OTLP_PROTOCOL" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_sidecar_before_itself_is_refused(infertap: Any, free_port: Callable[[], int]) -> None:
    """Its own address as the upstream: exit code 2 from serve and from doctor."""
    port = free_port()
    flags = ("--upstream", f"http://localhost:{port}", "--listen", f"127.0.0.1:{port}")
    for command in ("serve", "doctor"):
        done = infertap(command, *flags)
        assert done.returncode == 2
        assert "is this sidecar itself (listen = 127.0.0.1" in done.stderr
        assert ("nothing was started" in done.stderr) == (command == "serve")


def test_an_address_in_use_is_a_failure(tmp_path: Path) -> None:
    """Exit code 1 and the address in the message; the settings were right."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        result = failed(tmp_path, "--upstream", "http://127.0.0.1:1", "--listen", address)
    assert result.returncode == 1
    assert f"cannot listen on {address}: address already in use" in result.stderr.lower()
