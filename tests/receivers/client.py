"""Starts the receivers of this folder as processes and speaks to them through their folders."""

import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

_START_S_MAX = 120.0


class OtlpReceiver:
    """`otlp_receiver.py` as a process.

    Args:
        folder: Where it keeps what came in; made if missing.
        options: Command line options, such as `--certificate`.
    """

    def __init__(self, folder: Path, *options: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._options = options
        self._ids = itertools.count(1)
        self._process: subprocess.Popen[bytes] | None = None
        self.grpc_port = 0
        self.http_port = 0

    def __enter__(self) -> Self:
        program = Path(__file__).with_name("otlp_receiver.py")
        self._process = subprocess.Popen([sys.executable, str(program), str(self.folder), *self._options])
        ready = self.folder / "ready.json"
        wait_for(lambda: ready.exists() or self._process is None or self._process.poll() is not None, _START_S_MAX)
        ports = json.loads(ready.read_text())
        self.grpc_port, self.http_port = ports["grpc_port"], ports["http_port"]
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def behave(self, **behaviour: Any) -> None:
        """How to answer from now on; nothing means well.

        `http_status`, `headers`, `body`, `content_type`, `path` (the only one that exists), `request_bytes_max` (413);
        `grpc_code`, `details`, `retry_delay_s`; both: `rejected` (partial success), `hang`, `only_for_span` (a name),
        `only_with_spans`, `times` (then well again), `after` (well before).
        """
        partial = self.folder / "behaviour.json.partial"
        partial.write_text(json.dumps({"id": next(self._ids), **behaviour}))
        os.replace(partial, self.folder / "behaviour.json")

    @property
    def requests(self) -> list[dict[str, Any]]:
        """All requests in the order of arrival, refused ones included."""
        return _whole_lines(self.folder / "requests.jsonl")

    @property
    def spans(self) -> list[dict[str, Any]]:
        """The spans of the accepted requests."""
        return [span for request in self.requests if request["accepted"] for span in request["spans"]]


class VendorIntake:
    """`vendor_intake.py` as a process.

    Args:
        folder: Where it keeps what came in; made if missing.
        certificates: A folder with `vendors.pem` and `vendors.key`, for all the vendors' names.
    """

    def __init__(self, folder: Path, certificates: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._pair = ("--certificate", str(certificates / "vendors.pem"), "--key", str(certificates / "vendors.key"))
        self._process: subprocess.Popen[bytes] | None = None
        self.proxy = ""

    def __enter__(self) -> Self:
        program = Path(__file__).with_name("vendor_intake.py")
        self._process = subprocess.Popen([sys.executable, str(program), str(self._folder), *self._pair])
        ready = self._folder / "ready.json"
        wait_for(lambda: ready.exists() or self._process is None or self._process.poll() is not None, _START_S_MAX)
        self.proxy = f"http://127.0.0.1:{json.loads(ready.read_text())['proxy_port']}"
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def forget(self) -> None:
        """Let the next test begin with an empty list."""
        (self._folder / "requests.jsonl").unlink(missing_ok=True)

    @property
    def requests(self) -> list[dict[str, Any]]:
        """All requests in the order of arrival: `vendor`, `status`, `reason`, `spans` (attributes as text)."""
        return _whole_lines(self._folder / "requests.jsonl")


def _whole_lines(path: Path) -> list[dict[str, Any]]:
    """Without the line that the receiver is just writing."""
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def wait_for(condition: Callable[[], object], deadline_s: float = 90.0) -> None:
    """Polls until the condition holds.

    Raises:
        AssertionError: it did not within the deadline.
    """
    end_s = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end_s, "the condition did not come true within the deadline"
        time.sleep(0.02)
