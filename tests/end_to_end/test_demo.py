"""`infertap demo` as a newcomer types it: real processes, and afterwards real rows."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import httpx
import pytest

from infertap.tables.query import query, rows
from infertap.targets import TableTarget

DEADLINE_S = 300.0
COMMAND = (sys.executable, "-P", "-m", "infertap_sidecar", "demo")


def environment() -> dict[str, str]:
    """Ours, without an active virtual environment, and wide enough that no address is broken over two lines."""
    return {**os.environ, "COLUMNS": "1000", "TERM": "dumb", "PATH": "/usr/bin:/bin"}


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """The demo, from start to finish."""
    return subprocess.run(
        [*COMMAND, *arguments], cwd=cwd, env=environment(), capture_output=True, text=True, timeout=DEADLINE_S
    )


@contextmanager
def started(arguments: Sequence[str], *, cwd: Path) -> Iterator[tuple[subprocess.Popen[str], IO[str]]]:
    """The demo while it runs, and its output from the first line on."""
    with (cwd / "output").open("w") as writing, (cwd / "output").open() as reading:
        process = subprocess.Popen(
            [*COMMAND, *arguments], cwd=cwd, env=environment(), stdout=writing, stderr=subprocess.STDOUT, text=True
        )
        try:
            yield process, reading
        finally:
            process.terminate()
            process.wait(DEADLINE_S)


def wait_for(pattern: str, output: IO[str], process: subprocess.Popen[str]) -> re.Match[str]:
    """The first match in what the demo says."""
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        output.seek(0)
        text = output.read()
        if match := re.search(pattern, text):
            return match
        assert process.poll() is None, text
        time.sleep(0.05)
    pytest.fail(f"the demo did not say {pattern!r}: {text}")


def assert_nobody_answers(urls: Sequence[str]) -> None:
    """Nothing of the demo is left running."""
    for url in urls:
        with pytest.raises(httpx.ConnectError):
            httpx.get(url, trust_env=False)


@pytest.mark.slow
def test_every_request_of_the_demo_has_its_row(tmp_path: Path) -> None:
    """It ends by itself with 0, shows what landed, and the rows are there for everybody who reads the tables."""
    done = run("--requests", "60", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "60 of 60 requests have exactly one row" in done.stdout
    assert "0 rows hold the clients' API key" in done.stdout
    target = TableTarget(str(tmp_path / "inference_tables"))
    stored = rows(
        query(
            target,
            "SELECT client_request_id, status_code, is_stream, end_reason, response, service_name FROM inference",
        )
    )
    assert {row["service_name"] for row in stored} == {"infertap-demo"}
    assert len({row["client_request_id"] for row in stored}) == len(stored) == 60
    assert {row["status_code"] for row in stored} == {200, 400, 404, 415, 500}
    streamed = [row for row in stored if row["is_stream"] and row["end_reason"] == "complete"]
    assert streamed
    assert all("[DONE]" in row["response"] or "class_" in row["response"] for row in streamed)
    shown = re.search(r"infertap show ([0-9a-f-]{36})", done.stdout)
    assert shown is not None
    assert os.access(re.findall(r"  (\S+) doctor", done.stdout)[0], os.X_OK)
    found = rows(query(target, f"SELECT is_stream FROM inference WHERE request_id = '{shown[1]}'"))
    assert found == [{"is_stream": True}]


@pytest.mark.slow
def test_a_second_demo_appends(tmp_path: Path) -> None:
    """To the same tables, and each run counts its own rows only."""
    for seed in ("1", "2"):
        done = run("--requests", "20", "--seed", seed, "--tables", "mine", cwd=tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "20 of 20 requests" in done.stdout
    assert rows(query(TableTarget(str(tmp_path / "mine")), "SELECT count(*) AS n FROM inference")) == [{"n": 40}]


@pytest.mark.slow
def test_a_kept_demo_stays_up_until_it_is_interrupted(tmp_path: Path) -> None:
    """Requests sent meanwhile are recorded, too; Ctrl-C ends everything, in order and with 0."""
    with started(["--keep", "--requests", "20"], cwd=tmp_path) as (process, output):
        urls = wait_for(r"model server (\S+), sidecar (\S+), admin (\S+)", output, process).groups()
        wait_for("Still up", output, process)
        answer = httpx.get(f"{urls[1]}/wines/7", headers={"x-request-id": "after-the-demo"}, trust_env=False)
        assert answer.status_code == 200
        process.send_signal(signal.SIGINT)
        assert process.wait(DEADLINE_S) == 0
    assert_nobody_answers(urls)
    sql = "SELECT path, status_code FROM inference WHERE client_request_id = 'after-the-demo'"
    assert rows(query(TableTarget(str(tmp_path / "inference_tables")), sql)) == [
        {"path": "/wines/7", "status_code": 200}
    ]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_leaves_nothing_running(tmp_path: Path, number: signal.Signals) -> None:
    """In the middle of the requests; one line says what happened, and there is no traceback."""
    with started(["--requests", "20000"], cwd=tmp_path) as (process, output):
        urls = wait_for(r"model server (\S+), sidecar (\S+), admin (\S+)", output, process).groups()
        process.send_signal(number)
        assert process.wait(DEADLINE_S) == 130
        output.seek(0)
        said = output.read()
    assert "infertap demo: interrupted" in said
    assert "Traceback" not in said
    assert_nobody_answers(urls)


@pytest.mark.parametrize(("module", "package"), [("openai", "openai"), ("sklearn", "scikit-learn")])
def test_a_missing_package_is_named_before_anything_starts(tmp_path: Path, module: str, package: str) -> None:
    """With the command that installs it, and exit code 2."""
    script = (
        f"import sys; sys.modules['{module}'] = None; from infertap_sidecar.cli import main; sys.exit(main(['demo']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=DEADLINE_S
    )
    assert done.returncode == 2
    assert f"pip install {package}" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_wrong_arguments_are_named_all_at_once(tmp_path: Path) -> None:
    """And nothing is started."""
    done = run("--requests", "3", "--port", "0", "--admin-port", "70000", cwd=tmp_path)
    assert done.returncode == 2
    assert all(name in done.stderr for name in ("--requests", "--port", "--admin-port"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_taken_port_is_explained(tmp_path: Path) -> None:
    """Before anything is trained or made: exit code 1, and the demo's own flag that takes another port."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run("--port", str(port), cwd=tmp_path)
    assert done.returncode == 1
    words = f"cannot listen on 127.0.0.1:{port}: address already in use (--port takes another one)"
    assert done.stderr == f"infertap demo: {words}\n"
    assert list(tmp_path.iterdir()) == []


def test_tables_that_cannot_be_written_are_said_before_anything_starts(tmp_path: Path) -> None:
    """And not after a minute of waiting for rows."""
    (tmp_path / "file").write_text("")
    result = run("--tables", "file", cwd=tmp_path)
    assert result.returncode == 1
    assert "cannot write the tables (./file is no folder)" in result.stderr
    assert "requests answered" not in result.stdout
