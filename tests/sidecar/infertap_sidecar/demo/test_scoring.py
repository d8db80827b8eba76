"""MLflow's scoring contract."""

import json
from typing import Any

import pytest

from infertap_sidecar.demo.scoring import ScoringError, parse_rows

FEATURES = ("a", "b")
ROWS = [[1.0, 2.0], [3.0, 4.5]]


def parse(document: Any, content_type: str = "application/json; charset=utf-8") -> list[list[float]]:
    """The rows of a JSON document."""
    return parse_rows(content_type, json.dumps(document).encode(), FEATURES)


@pytest.mark.parametrize(
    "document",
    [
        {"dataframe_split": {"columns": ["b", "a"], "data": [[2, 1], [4.5, 3]]}},
        {"dataframe_split": {"data": ROWS}},
        {"dataframe_records": [{"a": 1, "b": 2}, {"b": 4.5, "a": 3, "c": 9}]},
        {"instances": ROWS},
        {"instances": [{"a": 1, "b": 2}, {"a": 3, "b": "4.5"}]},
        {"inputs": {"b": [2, 4.5], "a": [1, 3]}},
        {"inputs": ROWS, "params": {"anything": 1}},
    ],
)
def test_all_forms_mean_the_same_rows(document: Any) -> None:
    """Columns go by name where there are names, and by order where there are none."""
    assert parse(document) == ROWS


def test_csv_is_read_by_its_header() -> None:
    """As MLflow does."""
    assert parse_rows("text/csv", b"b,a\n2,1\n4.5,3\n", FEATURES) == ROWS


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({}, "exactly one"),
        ({"inputs": ROWS, "instances": ROWS}, "exactly one"),
        ([1, 2], "exactly one"),
        ({"instances": []}, "no rows"),
        ({"instances": [[1, 2, 3]]}, "Expected 2 values in a row, got 3"),
        ({"instances": 5}, "list of rows, got int"),
        ({"instances": ["x"]}, "named values, got str"),
        ({"dataframe_records": [{"a": 1}]}, "missing inputs ['b']"),
        ({"dataframe_records": {"a": 1}}, "list of records, got dict"),
        ({"dataframe_split": {"columns": "ab", "data": [[1, 2]]}}, "columns must be a list"),
        ({"dataframe_split": [[1, 2]]}, "must be an object"),
        ({"inputs": {"a": [1, 2], "b": [1]}}, "differ in length"),
        ({"inputs": [[1, "two"]]}, "b must be a number"),
        ({"inputs": [[1, None]]}, "b must be a number"),
        ({"inputs": [[1, float("inf")]]}, "b must be a finite number"),
    ],
)
def test_what_is_malformed_is_a_400_that_says_why(document: Any, words: str) -> None:
    """The message names what was expected, in MLflow's form of an error."""
    with pytest.raises(ScoringError) as caught:
        parse(document)
    assert caught.value.status == 400
    assert words in caught.value.message
    assert caught.value.body() == {"error_code": "BAD_REQUEST", "message": caught.value.message}


@pytest.mark.parametrize(("content_type", "status"), [("application/xml", 415), ("", 415), ("application/json", 400)])
def test_content_types_are_told_apart(content_type: str, status: int) -> None:
    """415 for what is not spoken here, 400 for what only claims to be JSON."""
    with pytest.raises(ScoringError) as caught:
        parse_rows(content_type, b"<rows/>", FEATURES)
    assert caught.value.status == status
