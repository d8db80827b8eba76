"""`infertap drain` as a process."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

SCRIPT = """
import importlib.util, json, sys
from infertap.drain.foreground import run_foreground
from infertap.drain.settings import DrainerSettings
spec = importlib.util.spec_from_file_location("destination", sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
settings = DrainerSettings.from_json(json.loads(sys.argv[2]))
from infertap.spool.folder import SpoolFolder
follow = sys.argv[3] == "follow"
sys.exit(run_foreground(SpoolFolder(settings.folder), settings, follow=follow, build=module.build))
"""


def start(bench: Any, mode: str) -> "subprocess.Popen[bytes]":
    import json

    order = json.dumps(bench.settings().to_json())
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(bench.module.__file__), order, mode],
        env={**os.environ, **bench.env},
        stderr=subprocess.PIPE,
    )


def test_one_pass_delivers_what_is_there(bench: Any) -> None:
    """Orphans and living owners' sealed segments alike; code 0."""
    bench.spool(["a"]).close()
    living = bench.spool(["b"])
    process = start(bench, "once")
    assert process.communicate(timeout=120)[1] == b""
    assert process.returncode == 0
    assert bench.rows() == ["a", "b"]
    living.close()


def test_one_pass_says_what_did_not_work(bench: Any) -> None:
    """Code 1, and the reason on stderr; the rows stay."""
    bench.control(table={"fail": "no route to host"})
    bench.spool(["a"]).close()
    process = start(bench, "once")
    assert b"no route to host" in process.communicate(timeout=120)[1]
    assert process.returncode == 1
    assert len(bench.segments()) == 1


def test_followed_it_serves_external_owners_until_it_is_told_to_stop(bench: Any, wait_for: Callable[..., Any]) -> None:
    """It outlives idle times, delivers a stopping owner's rows, and leaves on SIGTERM with code 0."""
    process = start(bench, "follow")
    wait_for(lambda: bench.state().phase == "running")
    first = bench.owner(mode="external")
    first.tell(rows=["a"])
    assert first.tell(stop=100.0)["left"] == 0
    wait_for(lambda: bench.state().phase == "ended")
    second = bench.owner(mode="external")
    second.tell(rows=["b"])
    wait_for(lambda: bench.rows() == ["a", "b"])
    second.kill()
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=120)
    assert process.returncode == 0
