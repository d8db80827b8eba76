"""A span as it was found, in the table or at an OTLP receiver: one shape for tests that look at both."""

import json
import time
from typing import Any, NamedTuple

_ARRIVAL_S_MAX = 90.0


class Seen(NamedTuple):
    """A span, wherever it was found."""

    trace_id: str
    span_id: str
    parent_span_id: str | None
    name: str
    kind: str
    scope: str
    request_id: str | None
    attributes: dict[str, Any]
    trace_state: str


def of_table(row: dict[str, Any]) -> Seen:
    """From a row of the table `spans`."""
    return Seen(
        row["trace_id"], row["span_id"], row["parent_span_id"], row["name"], row["kind"].removeprefix("SPAN_KIND_"),
        row["instrumentation_scope"]["name"], row["request_id"], json.loads(row["attributes"]), row["trace_state"],
    )  # fmt: skip


def of_collector(span: dict[str, Any]) -> Seen:
    """From what `otlp_receiver.py` keeps; over OTLP only spans of infertap carry the request's id."""
    ids = (span["trace_id"], span["span_id"], span["parent_span_id"])
    request_id = span["attributes"].get("infertap.request_id")
    return Seen(*ids, span["name"], span["kind"], span["scope"][0], request_id, span["attributes"], span["trace_state"])


def collected(receiver: Any, least: int) -> list[Seen]:
    """The spans that a receiver accepted, waiting for at least so many."""
    deadline = time.monotonic() + _ARRIVAL_S_MAX
    while len(spans := receiver.spans) < least and time.monotonic() < deadline:
        time.sleep(0.1)
    return [of_collector(span) for span in spans]
