"""`infertap show` on real tables."""

import json
from typing import Any

import pytest


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


@pytest.mark.parametrize(
    "request_id", ["0193e0a2-7c1e-7b3a-9d2f-5a6b7c8d9e0f", "ffffffff-ffff-7fff-bfff-ffffffffffff", "ffff"]
)
def test_an_unknown_request_is_a_failure(delivered: Any, request_id: str) -> None:
    """Exit code 1, one line with where was looked and how to find another; also for an id from the end of time."""
    result = delivered("show", request_id)
    assert result.returncode == 1
    assert result.stderr.startswith(f"infertap show: there is no request {request_id} in ./inference_tables")
    assert "infertap query" in result.stderr
    assert result.stderr.count("\n") == 1


def test_no_id_is_a_wrong_use(delivered: Any) -> None:
    """Exit code 2, and what would do."""
    result = delivered("show", "yesterday's")
    assert result.returncode == 2
    assert "not a request id" in result.stderr


def test_nothing_recorded_yet_is_a_failure(infertap: Any) -> None:
    """Exit code 1 in one sentence."""
    result = infertap("show")
    assert result.returncode == 1
    assert result.stderr.startswith("infertap show: there is no table `inference` yet")


def test_the_beginning_of_an_id_and_no_id_at_all(delivered: Any) -> None:
    """The beginning is enough where no other begins so; without any, it is the newest."""
    request_id = an_id(delivered)
    known = [
        row["request_id"]
        for row in map(json.loads, delivered("query", "SELECT request_id FROM inference").stdout.splitlines())
    ]
    beginning = next(request_id[:n] for n in range(4, 37) if sum(i.startswith(request_id[:n]) for i in known) == 1)
    assert json.loads(delivered("show", beginning, "--json").stdout)["inference"]["request_id"] == request_id
    assert json.loads(delivered("show", "--json").stdout)["inference"]["path"] == "/v1/broken"


def test_several_that_fit_are_listed(delivered: Any) -> None:
    """Exit code 1, and a line for each."""
    result = delivered("show", an_id(delivered)[:4])
    assert result.returncode == 1
    assert "3 requests fit" in result.stderr
    assert result.stderr.count("  POST /v1/") == 3
