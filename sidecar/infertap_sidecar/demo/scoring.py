"""MLflow's scoring contract: what `/invocations` accepts, and how it refuses."""

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

INPUT_FIELDS = ("dataframe_split", "dataframe_records", "instances", "inputs")
JSON_TYPE = "application/json"
CSV_TYPE = "text/csv"


class ScoringError(Exception):
    """A request that MLflow's scoring server would refuse, with the status it would answer."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message

    def body(self) -> dict[str, str]:
        """The JSON object of the answer."""
        return {"error_code": "BAD_REQUEST", "message": self.message}


def parse_rows(content_type: str, body: bytes, features: Sequence[str]) -> list[list[float]]:
    """The rows of a scoring request, columns in the order of `features`.

    Raises:
        ScoringError: 415 for another content type, 400 for everything that is not one well-formed input.
    """
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type == CSV_TYPE:
        return _from_csv(body, features)
    if media_type != JSON_TYPE:
        raise ScoringError(
            415, f"This predictor only supports the content types {JSON_TYPE} and {CSV_TYPE}. Got {media_type!r}."
        )
    try:
        document = json.loads(body)
    except ValueError as error:
        raise ScoringError(400, f"The input is no valid JSON: {error}") from error
    given = [name for name in INPUT_FIELDS if name in document] if isinstance(document, dict) else []
    if len(given) != 1:
        raise ScoringError(400, f"The input must be a JSON dictionary with exactly one of the fields {INPUT_FIELDS}.")
    rows = _READERS[given[0]](document[given[0]], features)
    if not rows:
        raise ScoringError(400, f"{given[0]} holds no rows.")
    return rows


def _from_csv(body: bytes, features: Sequence[str]) -> list[list[float]]:
    try:
        return _from_records(list(csv.DictReader(io.StringIO(body.decode()))), features)
    except (UnicodeDecodeError, csv.Error) as error:
        raise ScoringError(400, f"The input is no valid CSV: {error}") from error


def _from_split(value: Any, features: Sequence[str]) -> list[list[float]]:
    if not isinstance(value, dict) or not isinstance(value.get("data"), list):
        raise ScoringError(400, "dataframe_split must be an object with the lists columns and data.")
    columns = value.get("columns")
    if columns is None:
        return _from_lists(value["data"], features)
    if not isinstance(columns, list) or any(not isinstance(row, list) for row in value["data"]):
        raise ScoringError(400, "dataframe_split: columns must be a list, data a list of lists.")
    return _from_records([dict(zip(columns, row, strict=False)) for row in value["data"]], features)


def _from_records(value: Any, features: Sequence[str]) -> list[list[float]]:
    if not isinstance(value, list):
        raise ScoringError(400, f"Expected a list of records, got {type(value).__name__}.")
    return [_from_record(record, features) for record in value]


def _from_record(record: Any, features: Sequence[str]) -> list[float]:
    if not isinstance(record, Mapping):
        raise ScoringError(400, f"Expected a record of named values, got {type(record).__name__}.")
    missing = [name for name in features if name not in record]
    if missing:
        raise ScoringError(400, f"Model is missing inputs {missing}.")
    return [_number(record[name], name) for name in features]


def _from_lists(value: Any, features: Sequence[str]) -> list[list[float]]:
    if isinstance(value, dict):
        return _from_columns(value, features)
    if not isinstance(value, list):
        raise ScoringError(400, f"Expected a list of rows, got {type(value).__name__}.")
    rows = []
    for row in value:
        if isinstance(row, list) and len(row) == len(features):
            rows.append([_number(item, name) for item, name in zip(row, features, strict=True)])
        elif isinstance(row, list):
            raise ScoringError(400, f"Expected {len(features)} values in a row, got {len(row)}.")
        else:
            rows.append(_from_record(row, features))
    return rows


def _from_columns(value: dict[str, Any], features: Sequence[str]) -> list[list[float]]:
    columns = {name: items if isinstance(items, list) else [items] for name, items in value.items()}
    if len({len(items) for items in columns.values()}) > 1:
        raise ScoringError(400, "The columns of inputs differ in length.")
    return _from_records(
        [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)], features
    )


def _number(value: Any, name: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError) as error:
        raise ScoringError(400, f"{name} must be a number.") from error
    if not math.isfinite(number):
        raise ScoringError(400, f"{name} must be a finite number.")
    return number


_READERS = {
    "dataframe_split": _from_split,
    "dataframe_records": _from_records,
    "instances": _from_lists,
    "inputs": _from_lists,
}
