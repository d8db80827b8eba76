"""One recorded request, laid out for reading in 100 columns."""

from collections.abc import Mapping, Sequence
from typing import Any, TextIO

import orjson
from rich.console import Group
from rich.panel import Panel
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from infertap_sidecar.output import cell, console
from infertap_sidecar.span_view import print_spans

_LINES_MAX = 60
_FACTS = (
    "request_id", "request_time", "client_request_id", "served_entity_id", "requester", "protocol", "request_model",
    "response_model", "finish_reasons", "end_reason", "error_type", "error_message", "logging_error_codes", "tags",
    "trace_id", "span_id", "service_name", "instance", "request_headers", "response_headers",
)  # fmt: skip


def print_request(row: Mapping[str, Any] | None, spans: Sequence[Mapping[str, Any]], stream: TextIO) -> None:
    """Head line, facts, both bodies, and the spans as bars over time."""
    out = console(stream)
    if row is not None:
        out.print(_head(row))
        out.print(_facts(row))
        out.print(_body("request", row))
        out.print(_body("response", row))
    if spans:
        print_spans(spans, out)


def _head(row: Mapping[str, Any]) -> Text:
    status = row["status_code"]
    colour = "green" if status < 400 else "yellow" if status < 500 else "red"
    line = Text(f"{row['method']} {row['path']}", style="bold")
    if row["query"]:
        line.append(f"?{row['query']}", style="not bold")
    line.append(f"  {status}", style=f"bold {colour}")
    line.append(f"  {row['duration_ns'] / 1e6:,.1f} ms")
    if row["is_stream"]:
        first = row["time_to_first_chunk_ns"]
        line.append(f", stream of {row['chunk_count']} chunks")
        line.append(f", first after {first / 1e6:,.1f} ms" if first is not None else "")
    if row["input_tokens"] is not None or row["output_tokens"] is not None:
        line.append(f", {row['input_tokens'] or 0} tokens in, {row['output_tokens'] or 0} out")
    return line


def _facts(row: Mapping[str, Any]) -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for name in _FACTS:
        value = row.get(name)
        if value not in (None, "", [], {}):
            shown = (
                "\n".join(f"{key}: {text}" for key, text in value.items()) if isinstance(value, dict) else cell(value)
            )
            grid.add_row(name, Text(shown))
    return grid


def _body(side: str, row: Mapping[str, Any]) -> Panel:
    text, size = row[side], row[f"{side}_bytes"]
    title = f"{side} · {size:,} bytes · {row[f'{side}_content_type'] or 'no content type'}"
    if text is None:
        reasons = [code for code in row["logging_error_codes"] or () if code.startswith(side.upper())]
        reference = row[f"{side}_ref"]
        return Panel(
            Text(f"not stored here: {reference or ', '.join(reasons) or 'no body'}", style="dim"),
            title=title,
            title_align="left",
        )
    if not text:
        return Panel(Text("empty", style="dim"), title=title, title_align="left")
    content, language = _pretty(text)
    lines = content.splitlines()
    parts: list[Syntax | Text] = [
        Syntax("\n".join(lines[:_LINES_MAX]), language, word_wrap=True, background_color="default")
    ]
    if len(lines) > _LINES_MAX:
        parts.append(Text(f"… {len(lines) - _LINES_MAX:,} more lines (infertap show --json has all)", style="dim"))
    return Panel(Group(*parts), title=title, title_align="left")


def _pretty(text: str) -> tuple[str, str]:
    try:
        return orjson.dumps(orjson.loads(text), option=orjson.OPT_INDENT_2).decode(), "json"
    except orjson.JSONDecodeError:
        return text, "text"
