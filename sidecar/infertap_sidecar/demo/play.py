"""The demo from beginning to end: model server and sidecar up, clients through, and then what landed."""

import asyncio
import tempfile
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx
import openai
from rich.console import Console
from rich.progress import Progress

from infertap.targets import TableTarget
from infertap_sidecar.address import Address, listen
from infertap_sidecar.demo.children import POLL_S, Child, DemoError, reserved_port, running, wait_until_ready
from infertap_sidecar.demo.clients import Answered, Clients, Planned, plan
from infertap_sidecar.demo.findings import Run
from infertap_sidecar.demo.screen import make_console, make_progress, show_commands, show_findings
from infertap_sidecar.demo.wine import WineModel
from infertap_sidecar.places import why_unwritable

DONE, FAILED = 0, 1
AT_ONCE = 8
COMMIT_INTERVAL_S = 1
LANDED_S_MAX = 60.0

MODEL_SERVER = "infertap_sidecar.demo.model_server:make_app"


@dataclass(frozen=True, slots=True)
class Stage:
    """What runs while the clients send."""

    model_server: Child
    model_url: str
    sidecar: Child
    url: str
    admin_url: str

    def check(self) -> None:
        """Raises: DemoError if one of the two has ended."""
        self.model_server.check()
        self.sidecar.check()


@dataclass(frozen=True, slots=True)
class Play:
    """One run of the demo. Ports that are None are chosen free."""

    target: TableTarget
    tables: str
    default_tables: bool
    port: int | None
    admin_port: int | None

    def run(self, request_count: int, *, seed: int, keep: bool) -> int:
        """The exit code: 0 if every request has its row. Raises: DemoError, QueryError, RetryableError."""
        _check_free(self.port, "--port")
        _check_free(self.admin_port, "--admin-port")
        _check_writable(self.target)
        console = make_console()
        console.print(
            "[bold]infertap demo[/]: clients → [bold]infertap serve[/] → a model server that knows nothing of it"
        )
        with ExitStack() as stack:
            with console.status("training a classifier, starting its server and the sidecar"):
                model = WineModel()
                stage = self._set_up(stack)
            console.print(f"[dim]model server {stage.model_url}, sidecar {stage.url}, admin {stage.admin_url}[/]\n")
            name = f"demo-{uuid.uuid4().hex[:8]}"
            run = Run(self.target, name)
            requests = plan(request_count, sample_count=model.sample_count, seed=seed)
            with make_progress(console) as progress:
                answers = _send(stage, model, name, requests, progress)
                _wait_for_rows(run, stage, len(requests), progress)
            findings = run.findings(answers)
            show_findings(console, findings)
            show_commands(console, findings, self.tables, default_tables=self.default_tables)
            if keep:
                _stay(console, stage)
        return DONE if findings.complete and findings.rows_with_key == 0 else FAILED

    def _set_up(self, stack: ExitStack) -> Stage:
        """Starts both servers; the stack stops the sidecar first."""
        log_dir = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="infertap-demo-")))
        model_port = stack.enter_context(reserved_port())
        listen = f"127.0.0.1:{self.port or stack.enter_context(reserved_port())}"
        admin = f"127.0.0.1:{self.admin_port or stack.enter_context(reserved_port())}"
        model_url = f"http://127.0.0.1:{model_port}"
        uvicorn = ["uvicorn", "--factory", MODEL_SERVER, "--port", str(model_port)]
        serve = [
            "infertap_sidecar", "serve", "--upstream", model_url, "--listen", listen, "--admin", admin,
            "--tables", self.tables, "--destination", "table", "--commit-interval-s", str(COMMIT_INTERVAL_S),
        ]  # fmt: skip
        model_server = stack.enter_context(running("model server", uvicorn, log_dir=log_dir))
        sidecar = stack.enter_context(running("sidecar", serve, log_dir=log_dir))
        wait_until_ready(model_server, f"{model_url}/ping")
        wait_until_ready(sidecar, f"http://{admin}/readyz")
        return Stage(model_server, model_url, sidecar, f"http://{listen}", f"http://{admin}")


def _check_free(port: int | None, flag: str) -> None:
    """Said before the model is trained. Raises: DemoError: somebody listens on that port."""
    if port is not None:
        try:
            listen(Address("127.0.0.1", port), flag).close()
        except OSError as error:
            raise DemoError(str(error.strerror)) from error


def _check_writable(target: TableTarget) -> None:
    """Raises: DemoError: the tables would stay empty."""
    reason = why_unwritable(target.local_path) if target.local_path is not None else ""
    if reason:
        raise DemoError(f"cannot write the tables ({reason}); --tables takes another place")


def _send(stage: Stage, model: WineModel, name: str, requests: Sequence[Planned], progress: Progress) -> list[Answered]:
    task = progress.add_task("requests answered", total=len(requests))
    try:
        return asyncio.run(_send_all(stage.url, model, name, requests, lambda _: progress.advance(task)))
    except* (httpx.HTTPError, openai.APIConnectionError) as group:
        stage.check()
        raise DemoError(f"a client lost its connection to the sidecar: {group.exceptions[0]!r}") from group


async def _send_all(
    url: str, model: WineModel, name: str, requests: Sequence[Planned], on_answer: Callable[[Answered], None]
) -> list[Answered]:
    async with Clients(url, model, run=name) as clients:
        return await clients.send_all(requests, at_once=AT_ONCE, on_answer=on_answer)


def _wait_for_rows(run: Run, stage: Stage, count: int, progress: Progress) -> None:
    """Follows the table until all rows are in it, or for a time that is ample. Raises: DemoError: there is none."""
    task = progress.add_task("rows in the table", total=count)
    landed, deadline = 0, time.monotonic() + LANDED_S_MAX
    while landed < count and time.monotonic() < deadline:
        landed = run.landed()
        progress.update(task, completed=landed)
        stage.check()
        time.sleep(POLL_S)
    if not landed:
        raise DemoError(f"no row landed within {LANDED_S_MAX:g} s; the sidecar says:\n{stage.sidecar.log_end()}")


def _stay(console: Console, stage: Stage) -> None:
    """Keeps both servers up until Ctrl-C."""
    body = '{"model": "wine-explainer", "stream": true, "messages": [{"role": "user", "content": "Why wine 42?"}]}'
    console.print(f"Still up at [bold]{stage.url}[/]; Ctrl-C ends it. Try:\n")
    console.print(
        f"  curl -N {stage.url}/v1/chat/completions -d '{body}'\n", style="bold cyan", markup=False, soft_wrap=True
    )
    try:
        while True:
            stage.check()
            time.sleep(POLL_S)
    except KeyboardInterrupt:
        console.print("stopping: what is still in the spool is delivered first")
