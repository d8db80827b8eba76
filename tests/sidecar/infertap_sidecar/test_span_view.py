"""The waterfall of `infertap show`: the tree in its order, bars within their width, and no span lost."""

import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from infertap_sidecar.span_view import bar, print_spans, tree

MS = 1_000_000


def span(span_id: str, parent: str | None, start_ms: int, end_ms: int, **more: Any) -> dict[str, Any]:
    return {
        "span_id": span_id, "parent_span_id": parent, "name": span_id, "kind": "SPAN_KIND_INTERNAL",
        "start_time_unix_nano": start_ms * MS, "end_time_unix_nano": end_ms * MS, "status": None, **more,
    }  # fmt: skip


TRACE = [
    span("generate", "request", 40, 100),
    span("request", "caller", 0, 100, kind="SPAN_KIND_SERVER"),
    span("lookup", "retrieve", 10, 20),
    span("retrieve", "request", 10, 40, status={"code": "STATUS_CODE_ERROR", "message": "index [b]away[/b]"}),
    span("rank", "retrieve", 20, 39),
]


def printed(spans: list[dict[str, Any]], width: int = 100) -> str:
    out = io.StringIO()
    print_spans(spans, Console(file=out, width=width))
    return out.getvalue()


def test_the_tree_and_its_waterfall() -> None:
    """Children below their parent by start, bars where they lie in time, failures with their words."""
    lines = printed(TRACE).splitlines()
    assert [line.rstrip() for line in lines[2:]] == [
        "request     SERVER        0.0  100.0  ━━━━━━━━━━━━━━━━━━━━━━━━━━━━",
        "├ retrieve  INTERNAL     10.0   30.0    ━━━━━━━━",
        "│ ├ lookup  INTERNAL     10.0   10.0    ━━━",
        "│ └ rank    INTERNAL     20.0   19.0       ━━━━━",
        "└ generate  INTERNAL     40.0   60.0             ━━━━━━━━━━━━━━━━━",
        "✗ retrieve: index [b]away[/b]",
    ]


@pytest.mark.parametrize("width", [60, 80, 100])
def test_a_long_trace_and_long_names_stay_within_the_width(width: int) -> None:
    """The first 200 spans, and how many more there are."""
    spans = [span(f"{number:04}" * 30, None, number, number + 1) for number in range(300)]
    text = printed(spans, width)
    assert max(map(len, text.splitlines())) <= width
    assert "… 100 more" in text
    assert all("━" in line for line in text.splitlines()[2:200])
    assert len(text.splitlines()) < 210


@given(
    st.lists(
        st.builds(
            span,
            st.sampled_from("abcdef"),
            st.none() | st.sampled_from("abcdefx"),
            st.integers(0, 50),
            st.integers(0, 90),
        ),
        max_size=8,
    )
)
def test_every_span_comes_once(spans: list[dict[str, Any]]) -> None:
    """Also in rings, with ids twice, and with parents that are not there."""
    assert sorted(id(of) for _, of in tree(spans)) == sorted(map(id, spans))


@given(st.integers(0, 1000), st.integers(0, 1000), st.integers(1, 1000))
def test_a_bar_never_leaves_its_width(start: int, length: int, total: int) -> None:
    """At least one cell, also for a span that ends before it begins or after everything."""
    text = bar(span("a", None, start, start + length), 0, total * MS, width=28)
    assert 1 <= len(text) <= 28
    assert "━" in text
    assert "━" in bar(span("a", None, start, start - length), 0, total * MS, width=28)
