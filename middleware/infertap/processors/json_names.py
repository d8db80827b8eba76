"""Where a JSON document names a value elsewhere than in the value's own key: beside it, above its column, before it.

`{"name": "password", "value": ...}`, `{"columns": ["password"], "data": [[...]]}`, `[["password", ...]]`.
"""

import re
from collections.abc import Callable
from typing import Any

from infertap.processors.secret_names import MARK

Secret = Callable[[str], bool]

VALUES = frozenset(
    {"value", "Value", "VALUE", "values", "Values", "data", "contents", "default", "ParameterValue", "parameterValue"}
)
"""Keys that hold what another key of the same object names: environments, attributes of OTLP, tensors of KServe."""
_NAMING = frozenset(
    {
        "name", "Name", "NAME", "key", "Key", "KEY", "header", "field", "variable", "parameter", "param", "property",
        "attribute", "option", "label", "ParameterKey", "parameterKey", "ParameterName", "parameterName",
    }
)  # fmt: skip
TABLE_NAMES = frozenset(
    {"columns", "Columns", "column_names", "columnNames", "names", "headers", "fields", "feature_names"}
)
"""Keys that hold the names of a table's columns."""
_ROWS = ("data", "rows", "values", "ndarray", "records", "instances", "Rows")
_PAIRED = frozenset({"authorization", "proxy-authorization", "cookie", "set-cookie", "x-api-key", "api-key"})
"""Headers, whose pairs may hold anything."""
_PAIR_NAME = re.compile(r"[^\W\d][\w.:-]{0,63}")
"""Other than a sentence, as in the pairs that a reranker is given."""
_MODEL_WORDS = frozenset({"token", "pass"})


def redact_named_value(node: dict[str, Any], key: str, secret: Secret) -> int:
    """`{"name": "password", "value": ...}`, where `key` is the value's. Returns how many values were redacted."""
    for naming, name in node.items():
        if naming in _NAMING and type(name) is str and secret(name) and not harmless(name, node[key], node):
            node[key] = MARK
            return 1
    return 0


def redact_table(node: dict[str, Any], key: str, secret: Secret) -> int:
    """`{"columns": ["user", "password"], "data": [["bob", ...]]}`, where `key` holds the names; one row, too."""
    names = node[key]
    if type(names) is not list:
        return 0
    columns = [(index, name) for index, name in enumerate(map(_column, names)) if name and secret(name)]
    if not columns:
        return 0
    redacted = 0
    for rows in (node.get(where) for where in _ROWS):
        if type(rows) is not list:
            continue
        single = len(rows) == len(names) and not any(type(row) is list for row in rows)
        for row in [rows] if single else rows:
            for index, name in columns if type(row) is list else ():
                if index >= len(row):
                    break
                if not harmless(name, row[index], node):
                    row[index] = MARK
                    redacted += 1
    return redacted


def redact_pair(pair: list[Any], secret: Secret, *, listed: bool) -> int:
    """`["password", "..."]`: two texts, of which the first is a name and the second none.

    Args:
        listed: Whether it stands in a list; elsewhere only a header counts, for it may be a list of two names.
    """
    name, value = pair
    if type(name) is not str or value in ("", None, MARK):
        return 0
    if name.lower() not in _PAIRED:
        if not listed or type(value) is not str or name.lower() in _MODEL_WORDS or _PAIR_NAME.fullmatch(name) is None:
            return 0
        if not secret(name) or secret(value):
            return 0
    pair[1] = MARK
    return 1


def harmless(key: str, value: Any, node: dict[str, Any]) -> bool:
    """Nothing is there to hide, or it is a language model's token and not a caller's."""
    if value is None or value == "" or value == MARK:
        return True
    if len(key) <= 8 and key.lower().rstrip("0123456789_-[]@") in _MODEL_WORDS:
        return "logprob" in node or not _holds_text(value)
    return isinstance(value, bool)


def _holds_text(value: Any) -> bool:
    """Whether there is text in a value, as in a secret; a language model's token may be a number or a list of them."""
    if isinstance(value, dict):
        return not {"id", "text"} <= value.keys()  # TGI streams its tokens as such objects
    return isinstance(value, str) or (isinstance(value, list) and any(_holds_text(item) for item in value))


def _column(name: Any) -> str:
    """The name of a column: a text, an object with one, or the last level of several."""
    if type(name) is dict:
        name = name.get("name")
    if type(name) is list and name:
        name = name[-1]
    return name if type(name) is str else ""
