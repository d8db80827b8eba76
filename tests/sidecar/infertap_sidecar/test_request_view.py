"""One request on the screen: readable, no longer than a few screens, and harmless."""

import io
import json
from typing import Any

import pytest
from rich.console import Console

from infertap.tables.schema import INFERENCE
from infertap_sidecar.request_view import print_request

EVIL = "\x1b[2Jgone\x1b]0;title\x07\u202e"


def row(**columns: Any) -> dict[str, Any]:
    base: dict[str, Any] = dict.fromkeys(INFERENCE.names)
    base |= {"method": "POST", "path": "/v1/chat", "query": "", "status_code": 200, "duration_ns": 12_345_678}
    return base | {"request_bytes": 2, "response_bytes": 2, "logging_error_codes": [], **columns}


def printed(row_: dict[str, Any] | None, spans: list[dict[str, Any]] | None = None, width: int = 100) -> str:
    out = io.StringIO()
    print_request(row_, spans or [], Console(file=out, width=width))
    return out.getvalue()


@pytest.mark.parametrize("column", ["path", "query", "method", "request", "response", "error_message", "service_name"])
def test_no_column_reaches_the_terminal_as_a_command(column: str) -> None:
    """Whoever sends a request decides what stands in it."""
    text = printed(row(**{column: EVIL}))
    assert "␛[2Jgone" in text
    assert not set(text) & set("\x1b\x07\u202e")


@pytest.mark.parametrize("column", ["request_headers", "tags"])
def test_no_name_or_value_of_a_map_does(column: str) -> None:
    """Neither a header's value nor a tag's name."""
    text = printed(row(**{column: {EVIL: EVIL}}))
    assert text.count("␛[2Jgone") == 2
    assert not set(text) & set("\x1b\x07\u202e")


def test_nothing_in_a_json_body_does() -> None:
    """Written as escapes, where it stands for itself."""
    text = printed(row(response=json.dumps({"a": EVIL}, ensure_ascii=False)))
    assert r"\u001b[2Jgone" in text
    assert not set(text) & set("\x1b\x07\u202e")


def test_no_spans_name_does() -> None:
    """Nor the words with which it failed."""
    status = {"code": "STATUS_CODE_ERROR", "message": EVIL}
    span = {"span_id": "1", "parent_span_id": None, "name": EVIL, "kind": "SPAN_KIND_SERVER", "status": status}
    text = printed(None, [{**span, "start_time_unix_nano": 0, "end_time_unix_nano": 1}])
    assert text.count("␛[2Jgone") == 3
    assert not set(text) & set("\x1b\x07\u202e")


BODIES = {
    "one long line": "word " * 50_000,
    "many lines": "line\n" * 50_000,
    "a long text in JSON": json.dumps({"prompt": "word " * 50_000}),
    "a long list in JSON": json.dumps(list(range(50_000))),
    "a long object in JSON": json.dumps({str(n): n for n in range(50_000)}),
    "deep JSON": "[" * 200 + "]" * 200,
    "JSON too deep to be laid out": "[" * 1000 + "]" * 1000,
}


@pytest.mark.parametrize("width", [80, 100])
@pytest.mark.parametrize("body", BODIES)
def test_a_long_body_is_folded_and_cut(body: str, width: int) -> None:
    """Within the columns of the terminal, two screens at most; what is left out is said."""
    lines = printed(row(request=BODIES[body], response="{}"), width=width).splitlines()
    assert max(map(len, lines)) <= width
    assert len(lines) < 60
    assert "deep" in body or any(
        "more characters" in line or "characters)" in line or "items)" in line for line in lines
    )


def test_an_event_stream_is_one_line_an_event() -> None:
    """The empty lines between are left out."""
    text = printed(row(response='data: {"a": 1}\n\ndata: [DONE]\n\n'))
    lines = [line.strip("│ ") for line in text.splitlines()]
    assert lines[lines.index('data: {"a": 1}') + 1] == "data: [DONE]"


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"request": "", "response": ""}, "empty"),
        ({"logging_error_codes": ["REQUEST_BINARY"]}, "not stored here: REQUEST_BINARY"),
        ({"response_ref": "s3://bucket/payload"}, "not stored here: s3://bucket/payload"),
        (
            {"is_stream": True, "chunk_count": 3, "time_to_first_chunk_ns": 2_000_000},
            "stream of 3 chunks, first after 2.0 ms",
        ),
        ({"status_code": 404}, "POST /v1/chat  404  12.3 ms"),
    ],
)
def test_what_there_is_no_body_for_is_said(columns: dict[str, Any], words: str) -> None:
    """Nothing, withheld, elsewhere; and the head line."""
    assert words in printed(row(**columns))


def event(content: str | None, **more: Any) -> str:
    return "data: " + json.dumps({"choices": [{"index": 0, "delta": {"content": content}, **more}]}) + "\n\n"


def test_a_stream_of_a_chat_is_shown_as_what_it_says() -> None:
    """Put together, with the way to its events; an error in the middle is not hidden; raw on request."""
    stream = (
        event("Wine") + event(" is") + 'data: {"error": {"message": "late"}}\n\n' + event(None) + "data: [DONE]\n\n"
    )
    text = printed(row(response=stream, is_stream=True, chunk_count=5))
    assert "│ Wine is " in text
    assert '{"message": "late"}' in text
    assert "data:" not in text
    assert "infertap show --raw" in text
    out = io.StringIO()
    print_request(row(response=stream), [], Console(file=out, width=100), raw=True)
    assert 'data: {"choices"' in out.getvalue()


@pytest.mark.parametrize(
    "stream", ["data: 7\n\n", 'data: {"choices": [7, {"delta": 3}]}\n\n', "data: {\n\n", ": ping\n"]
)
def test_another_stream_is_shown_as_it_is(stream: str) -> None:
    """Of pieces in no known shape nothing is left out."""
    assert stream.strip() in printed(row(response=stream))


def test_nothing_in_a_stream_put_together_does() -> None:
    """Nor there does a byte reach the terminal as a command."""
    text = printed(row(response=event(EVIL)))
    assert "␛[2Jgone" in text
    assert not set(text) & set("\x1b\x07\u202e")


def test_a_row_made_from_a_span_is_headed_by_its_name() -> None:
    """It has neither method nor path."""
    span = {"span_id": "1", "parent_span_id": None, "name": "llm", "kind": "SPAN_KIND_INTERNAL", "status": None}
    times = {"start_time_unix_nano": 0, "end_time_unix_nano": 1}
    text = printed(row(method=None, path=None, span_id="1"), [{**span, **times}])
    assert text.startswith("llm  200")
