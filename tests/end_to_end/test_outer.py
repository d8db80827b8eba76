"""The middleware behind the sidecar: one row a request, written by the outermost, and nobody can forge that."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest

Rows = Callable[..., list[dict[str, Any]]]
Start = Callable[..., Any]

SECRET = "a-secret-of-both-sides"
BOTH = {
    "INFERTAP_OUTER_SECRET": SECRET,
    "INFERTAP_EXCLUDE_PATHS": "/health",
    "INFERTAP_CAPTURE_HEADERS": "x-infertap-outer",
}


@pytest.mark.parametrize("app", ["traced:recorded", "traced:twice"])
def test_the_outermost_writes_the_row_and_children_nest_under_it(start: Start, rows: Rows, app: str) -> None:
    """One row, one server span; the app's own span is its child; the app never sees the secret."""
    upstream = start("uvicorn", app, env=BOTH)
    sidecar = start("serve", "--upstream", upstream.url, "--admin", "127.0.0.1:0", env=BOTH)
    reply = httpx.post(f"{sidecar.url}/predict", json={})
    assert "x-infertap-outer" not in reply.json()
    sidecar.stop()
    upstream.stop()
    (row,) = rows("inference", 1)
    spans = {span["kind"]: span for span in rows("spans", 2)}
    assert set(spans) == {"SPAN_KIND_SERVER", "SPAN_KIND_INTERNAL"}
    assert spans["SPAN_KIND_SERVER"]["span_id"] == row["span_id"]
    child = spans["SPAN_KIND_INTERNAL"]
    assert (child["trace_id"], child["parent_span_id"], child["request_id"]) == (row["trace_id"], row["span_id"], None)
    assert SECRET not in str((row, spans, sidecar.output, upstream.output))


def test_a_forged_header_changes_nothing(start: Start, rows: Rows) -> None:
    """At the middleware itself: each request is a row with its server span, and the header is in none."""
    upstream = start("uvicorn", "traced:recorded", env=BOTH)
    markers = ("1", "", SECRET[:-1], SECRET.upper(), f"{SECRET}x", "ä")
    for marker in markers:
        httpx.post(f"{upstream.url}/predict", json={}, headers={"x-infertap-outer": marker.encode()})
    upstream.stop()
    found = rows("inference", len(markers))
    assert [row["request_headers"] for row in found] == [[]] * len(markers)
    servers = {span["request_id"] for span in rows("spans", 2 * len(markers)) if span["kind"] == "SPAN_KIND_SERVER"}
    assert servers == {row["request_id"] for row in found}


def test_the_sidecar_drops_what_a_client_claims(start: Start, rows: Rows) -> None:
    """Even the right secret does not switch the sidecar off."""
    upstream = start("uvicorn", "traced:recorded", env=BOTH)
    sidecar = start("serve", "--upstream", upstream.url, "--admin", "127.0.0.1:0", env=BOTH)
    httpx.post(f"{sidecar.url}/predict", json={}, headers={"x-infertap-outer": SECRET})
    httpx.post(f"{sidecar.url}/predict", json={}, headers={"x-infertap-outer": "forged"})
    sidecar.stop()
    upstream.stop()
    assert len(rows("inference", 2)) == 2


def test_a_request_that_the_sidecar_does_not_record_is_the_middlewares(start: Start, rows: Rows) -> None:
    """The sidecar vouches only for what it writes itself."""
    upstream = start("uvicorn", "traced:recorded", env=BOTH)
    excluding = {**BOTH, "INFERTAP_EXCLUDE_PATHS": "/health,/predict"}
    sidecar = start("serve", "--upstream", upstream.url, "--admin", "127.0.0.1:0", env=excluding)
    httpx.post(f"{sidecar.url}/predict", json={})
    sidecar.stop()
    upstream.stop()
    (row,) = rows("inference", 1)
    assert row["path"] == "/predict"
