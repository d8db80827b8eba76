"""The spans of one trace as a tree with a waterfall, for reading in 80 to 100 columns."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from infertap_sidecar.terminal import harmless

_BAR_WIDTHS = (12, 28)
_NAME_WIDTHS = (20, 44)
_OTHER_COLUMNS = 32
"""Kind, both times, and the space between all columns."""
_TEXT_CHARACTERS_MAX = 500
_SPANS_MAX = 200
"""A longer trace is for `infertap query` or `--json`; these are the first ones of the tree."""

Span = Mapping[str, Any]


def print_spans(spans: Sequence[Span], out: Console) -> None:
    """One line a span: its place in the tree, kind, start and duration, and its bar; then what failed, and why."""
    start = min(span["start_time_unix_nano"] for span in spans)
    end = max(span["end_time_unix_nano"] for span in spans)
    bar_width = _within(_BAR_WIDTHS, out.width * 7 // 25)
    name_width = _within(_NAME_WIDTHS, out.width - bar_width - _OTHER_COLUMNS)
    grid = _grid(name_width, title="1 span" if len(spans) == 1 else f"{len(spans):,} spans")
    for number, (branch, span) in enumerate(tree(spans)):
        if number == _SPANS_MAX:
            grid.add_row(Text(f"… {len(spans) - _SPANS_MAX:,} more (--json has all)", "dim"))
            break
        failed = _failed(span)
        duration_ns = span["end_time_unix_nano"] - span["start_time_unix_nano"]
        grid.add_row(
            Text(branch, "dim") + Text(_line(span["name"]), "red" if failed else ""),
            Text(str(span["kind"]).removeprefix("SPAN_KIND_"), "dim"),
            f"{(span['start_time_unix_nano'] - start) / 1e6:,.1f}",
            f"{duration_ns / 1e6:,.1f}",
            Text(bar(span, start, end, width=bar_width), "red" if failed else "cyan"),
        )
    out.print(grid)
    for span in spans:
        if _failed(span) and span["status"].get("message"):
            out.print(Text(f"✗ {_line(span['name'])}: {_line(span['status']['message'])}", "red"))


def _grid(name_width: int, *, title: str) -> Table:
    grid = Table(box=None, pad_edge=False, title=title, title_justify="left", title_style="bold")
    grid.add_column("name", no_wrap=True, overflow="ellipsis", max_width=name_width)
    grid.add_column("kind", no_wrap=True)
    for heading in ("from ms", "ms"):
        grid.add_column(heading, justify="right", no_wrap=True)
    grid.add_column("", no_wrap=True)
    return grid


def _within(bounds: tuple[int, int], width: int) -> int:
    least, most = bounds
    return min(most, max(least, width))


def _line(text: object) -> str:
    """Any text as one harmless line."""
    return harmless(" ".join(str(text)[:_TEXT_CHARACTERS_MAX].split()))


def tree(spans: Sequence[Span]) -> Iterator[tuple[str, Span]]:
    """(branch, span) from the roots down, siblings by their start. A span whose parent is elsewhere is a root.

    Every span comes once, also where a damaged trace is a ring or holds an id twice.
    """
    known = {span["span_id"] for span in spans}
    children: dict[str | None, list[Span]] = defaultdict(list)
    for span in sorted(spans, key=lambda span: span["start_time_unix_nano"]):
        parent = span["parent_span_id"]
        children[parent if parent in known and parent != span["span_id"] else None].append(span)
    seen: set[int] = set()
    yield from _below(children, seen)
    for span in spans:
        if id(span) not in seen:
            yield from _below({**children, None: [span]}, seen)


def _below(children: Mapping[str | None, Sequence[Span]], seen: set[int]) -> Iterator[tuple[str, Span]]:
    """Depth first, with a stack of our own: a trace may be deeper than Python's."""
    stack = [("", "", span) for span in reversed(children.get(None, ()))]
    while stack:
        branch, indent, span = stack.pop()
        if id(span) in seen:
            continue
        seen.add(id(span))
        yield branch, span
        below = children.get(span["span_id"], ())
        for child in reversed(below):
            last = child is below[-1]
            stack.append((indent + ("└ " if last else "├ "), indent + ("  " if last else "│ "), child))


def bar(span: Span, start_ns: int, end_ns: int, *, width: int) -> str:
    """Where in the trace's time the span lies; at least one cell, never beyond the width."""
    scale = width / max(1, end_ns - start_ns)
    offset: int = min(width - 1, int((span["start_time_unix_nano"] - start_ns) * scale))
    length: int = round((span["end_time_unix_nano"] - span["start_time_unix_nano"]) * scale)
    return " " * offset + "━" * max(1, min(length, width - offset))


def _failed(span: Span) -> bool:
    return bool((span.get("status") or {}).get("code") == "STATUS_CODE_ERROR")
