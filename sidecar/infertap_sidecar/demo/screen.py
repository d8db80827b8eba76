"""How the demo looks: progress while it runs, and a summary of at most 100 columns."""

import json
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.markup import escape
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from infertap_sidecar.demo.findings import Findings
from infertap_sidecar.stream_text import put_together
from infertap_sidecar.width import WIDTH_MAX

BODY_SHOWN_CHARACTERS = 160


def make_console() -> Console:
    """Standard output, no wider than a terminal that one reads comfortably."""
    console = Console(highlight=False)
    width = console.width if console.is_terminal else WIDTH_MAX
    return Console(highlight=False, width=min(WIDTH_MAX, width))


def make_progress(console: Console) -> Progress:
    """Bars for what is sent and for what has landed."""
    return Progress(
        SpinnerColumn(finished_text="[green]✓"),
        TextColumn("{task.description:<34}"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        expand=True,
    )


def show_findings(console: Console, findings: Findings) -> None:
    """The summary: counts, latency, one streamed and one failed row, and what became of the secrets."""
    console.print()
    console.print(_counts(findings))
    console.print(_latency(findings.by_path))
    for title, row in (("One streamed request", findings.streamed), ("One that failed", findings.failed)):
        if row is not None:
            console.print(_request(title, row))
    mark = "[green]✓[/]" if findings.complete else "[red]✗[/]"
    console.print(
        f"{mark} {findings.matching} of {findings.sent} requests have exactly one row, with the status the client saw"
    )
    mark = "[green]✓[/]" if findings.rows_with_key == 0 else "[red]✗[/]"
    console.print(
        f"{mark} {findings.redacted} secret values were redacted before anything was stored; "
        f"{findings.rows_with_key} rows hold the clients' API key"
    )


def show_commands(console: Console, findings: Findings, tables: str, *, default_tables: bool) -> None:
    """The two or three commands to look further."""
    suffix = "" if default_tables else f" --tables {shlex.quote(tables)}"
    sql = (
        "SELECT request_time, path, status_code, execution_duration_ms AS ms, response "
        "FROM inference ORDER BY request_time DESC LIMIT 5"
    )
    program = _program()
    commands = [f'{program} query "{sql}"{suffix}']
    if findings.streamed is not None:
        commands.append(f"{program} show {findings.streamed['request_id']}{suffix}")
    commands.append(f"{program} doctor{suffix}")
    console.print(f"\nThe tables are in [bold]{escape(tables)}[/]. Look further:\n")
    for command in commands:
        console.print(Text(f"  {command}", style="bold cyan"), soft_wrap=True)
    console.print()


def _program() -> str:
    """How `infertap` is called from here: by its path, where the virtual environment is not active."""
    if shutil.which("infertap") is not None:
        return "infertap"
    path = Path(sys.executable).with_name("infertap")
    return shlex.quote(str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path))


def _counts(findings: Findings) -> Table:
    table = Table(title="What the clients did, and what landed", title_justify="left", expand=True)
    table.add_column("clients", ratio=1)
    for name in ("requests", "rows", "status", "cut short by the client"):
        table.add_column(name, justify="right")
    for row in findings.by_kind:
        statuses = " ".join(str(status) for status in row["statuses"])
        table.add_row(row["kind"], str(row["requests"]), str(row["rows"]), statuses, str(row["cut_short"] or ""))
    table.add_section()
    table.add_row("all", str(findings.sent), str(sum(row["rows"] for row in findings.by_kind)), "", "")
    return table


def _latency(by_path: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(title="Latency in milliseconds, by SQL", title_justify="left", expand=True)
    table.add_column("path", ratio=1)
    for name in ("status", "requests", "p50", "p95", "p99", "first chunk p50"):
        table.add_column(name, justify="right")
    for row in by_path:
        path = f"{row['path']}  [dim]streamed[/]" if row["is_stream"] else row["path"]
        times = [_milliseconds(row[name]) for name in ("p50_ms", "p95_ms", "p99_ms", "first_chunk_ms")]
        table.add_row(path, str(row["status_code"]), str(row["requests"]), *times)
    return table


def _request(title: str, row: Mapping[str, Any]) -> Panel:
    bytes_passed = f"{row['request_bytes']:,} bytes in, {row['response_bytes']:,} bytes out"
    chunks = "1 chunk" if row["chunk_count"] == 1 else f"{row['chunk_count']} chunks"
    lines = [
        Text(f"{row['method']} {row['path']}  →  {row['status_code']}, {row['end_reason']}"),
        Text(f"{row['duration_ns'] / 1e6:.1f} ms, {chunks}, {bytes_passed}"),
    ]
    streamed = row["is_stream"] and row["response"]
    bodies = {"request": _shortened(row["request"] or ""), "response": _shortened(row["response"] or "")}
    if streamed:
        bodies["response"] = f"{put_together(row['response'])} ({chunks}, put together)"
    for name, text in bodies.items():
        if text:
            lines.append(Text.assemble((f"{name:<9}", "dim"), text))
    return Panel(Group(*lines), title=f"{title}  [dim]{row['request_id']}[/]", title_align="left")


def _shortened(body: str) -> str:
    """The body's beginning on one line; compact, where it is JSON."""
    try:
        line = json.dumps(json.loads(body), ensure_ascii=False)
    except ValueError:
        line = " ".join(body.split())
    return line if len(line) <= BODY_SHOWN_CHARACTERS else f"{line[:BODY_SHOWN_CHARACTERS]} …"


def _milliseconds(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"
