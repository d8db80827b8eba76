"""One recorded request, laid out for reading in 80 to 100 columns."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import orjson
from rich.console import Console, Group
from rich.panel import Panel
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from infertap_sidecar.output import cell
from infertap_sidecar.span_view import print_spans
from infertap_sidecar.stream_text import put_together
from infertap_sidecar.terminal import harmless, harmless_json

_LINES_MAX = 40
_TEXT_CHARACTERS_MAX = 500
"""A longer text within JSON, or a header, is shortened; `--json` has all of it."""

_ITEMS_MAX = 20
_EVENTS = ("data:", "event:", "id:", ":")
_FACTS = (
    "request_id", "request_time", "client_request_id", "served_entity_id", "requester", "protocol", "request_model",
    "response_model", "finish_reasons", "end_reason", "error_type", "error_message", "logging_error_codes", "tags",
    "trace_id", "span_id", "service_name", "instance", "request_headers", "response_headers",
)  # fmt: skip


def print_request(
    row: Mapping[str, Any] | None, spans: Sequence[Mapping[str, Any]], out: Console, *, raw: bool = False
) -> None:
    """Head line, facts, both bodies, and the spans as bars over time.

    `raw`: an event stream as it was sent, and not put together.
    """
    if row is None:
        out.print(Text("the request itself is not in the table; what is there of its trace:", "dim"))
    else:
        out.print(_head(row, spans))
        out.print(_facts(row))
        out.print(body_panel("request", row, out.width, raw=raw))
        out.print(body_panel("response", row, out.width, raw=raw))
    if spans:
        print_spans(spans, out)


def _head(row: Mapping[str, Any], spans: Sequence[Mapping[str, Any]]) -> Text:
    status = row["status_code"]
    colour = "green" if status < 400 else "yellow" if status < 500 else "red"
    line = Text(harmless(f"{row['method'] or ''} {row['path'] or ''}".strip() or _name(row, spans)), style="bold")
    if row["query"]:
        line.append(harmless(f"?{row['query']}"), style="not bold")
    line.append(f"  {status}", style=f"bold {colour}")
    line.append(f"  {row['duration_ns'] / 1e6:,.1f} ms")
    if row["is_stream"]:
        first = row["time_to_first_chunk_ns"]
        line.append(f", stream of {row['chunk_count']} chunks")
        line.append(f", first after {first / 1e6:,.1f} ms" if first is not None else "")
    if row["input_tokens"] is not None or row["output_tokens"] is not None:
        line.append(f", {row['input_tokens'] or 0} tokens in, {row['output_tokens'] or 0} out")
    return line


def _name(row: Mapping[str, Any], spans: Sequence[Mapping[str, Any]]) -> str:
    """Of the span that a row was made from, where it was no HTTP request."""
    names = (str(span["name"]) for span in spans if span["span_id"] == row["span_id"])
    return next(names, "a request of unknown name")


def _facts(row: Mapping[str, Any]) -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for name in _FACTS:
        value = row.get(name)
        if value not in (None, "", [], {}):
            grid.add_row(name, Text(_fact(value)))
    return grid


def _fact(value: Any) -> str:
    if isinstance(value, datetime):
        return f"{cell(value)} UTC"
    if isinstance(value, Mapping):
        return "\n".join(harmless(f"{key}: {_shortened(str(text))}") for key, text in value.items())
    return harmless(_shortened(value)) if isinstance(value, str) else cell(value)


def body_panel(side: str, row: Mapping[str, Any], width: int, *, raw: bool = False) -> Panel:
    """The stored body of one side, or why there is none; folded, and no longer than a screen."""
    text, size = row[side], row[f"{side}_bytes"]
    title = Text(harmless(f"{side} · {size:,} bytes · {row[f'{side}_content_type'] or 'no content type'}"))
    if text is None:
        reasons = [code for code in row["logging_error_codes"] or () if code.startswith(side.upper())]
        words = f"not stored here: {row[f'{side}_ref'] or ', '.join(reasons) or 'no body'}"
        return Panel(Text(harmless(words), style="dim"), title=title, title_align="left")
    if not text:
        return Panel(Text("empty", style="dim"), title=title, title_align="left")
    said = "" if raw or not text.startswith(_EVENTS) else put_together(text)
    content, language = (harmless(said), "text") if said else _pretty(text)
    shown = _first_lines(content, width - 4)
    parts: list[Syntax | Text] = [Syntax(shown, language, word_wrap=True, background_color="default")]
    if len(shown) < len(content):
        left = f"… {len(content) - len(shown):,} more characters (infertap show --json has all)"
        parts.append(Text(left, style="dim"))
    if said:
        parts.append(Text("put together from an event stream (infertap show --raw has its events)", style="dim"))
    return Panel(Group(*parts), title=title, title_align="left")


def _first_lines(content: str, width: int) -> str:
    """The beginning that takes at most `_LINES_MAX` lines of a terminal, where long ones are folded."""
    end = lines = 0
    while lines < _LINES_MAX and end < len(content):
        line_end = content.find("\n", end) + 1 or len(content)
        needed = max(1, -(-(line_end - end) // width))
        if lines + needed > _LINES_MAX:
            return content[: end + (_LINES_MAX - lines) * width]
        end, lines = line_end, lines + needed
    return content[:end]


def _pretty(text: str) -> tuple[str, str]:
    """Laid out for reading, with its language; JSON indented, with what is long in it shortened."""
    try:
        value = _without_long_parts(orjson.loads(text))
        return harmless_json(orjson.dumps(value, option=orjson.OPT_INDENT_2).decode()), "json"
    except (orjson.JSONDecodeError, orjson.JSONEncodeError, RecursionError):
        # No JSON, or too deep to be laid out. The empty line after each event of a stream says nothing.
        lines = text.replace("\n\n", "\n") if text.startswith(_EVENTS) else text
        return harmless(lines.rstrip("\n")), "text"


def _without_long_parts(value: Any) -> Any:
    if isinstance(value, str):
        return _shortened(value)
    if isinstance(value, list):
        more = [f"… ({len(value):,} items)"] if len(value) > _ITEMS_MAX else []
        return [_without_long_parts(item) for item in value[:_ITEMS_MAX]] + more
    if isinstance(value, dict):
        return {key: _without_long_parts(item) for key, item in value.items()}
    return value


def _shortened(text: str) -> str:
    if len(text) <= _TEXT_CHARACTERS_MAX:
        return text
    return f"{text[:_TEXT_CHARACTERS_MAX]} … ({len(text):,} characters)"
