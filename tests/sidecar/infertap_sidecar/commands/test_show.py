"""`infertap show` on real tables."""

import json
from typing import Any


def an_id(delivered: Any) -> str:
    sql = "SELECT request_id FROM inference WHERE status_code = 404"
    return str(json.loads(delivered("query", sql).stdout)["request_id"])


def test_one_request_is_laid_out(delivered: Any) -> None:
    """Head line, both bodies as JSON, and the span, within 100 columns."""
    result = delivered("show", an_id(delivered))
    assert result.returncode == 0
    assert result.stdout.startswith("POST /v1/missing  404")
    assert '"question": 1' in result.stdout
    assert '"[b]404[/b]"' in result.stdout
    assert "\n1 span " in result.stdout
    assert "SERVER" in result.stdout
    assert max(len(line) for line in result.stdout.splitlines()) <= 100


def test_everything_as_json(delivered: Any) -> None:
    """For programs: the row and its spans."""
    found = json.loads(delivered("show", an_id(delivered), "--json").stdout)
    assert found["inference"]["status_code"] == 404
    assert [span["kind"] for span in found["spans"]] == ["SPAN_KIND_SERVER"]


def test_an_unknown_request_is_a_failure(delivered: Any) -> None:
    """Exit code 1, and where was looked."""
    result = delivered("show", "0193e0a2-7c1e-7b3a-9d2f-5a6b7c8d9e0f")
    assert result.returncode == 1
    assert "there is no request 0193e0a2" in result.stderr
