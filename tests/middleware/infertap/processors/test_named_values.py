"""Values found by the name before them, in text that no parser reads."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infertap.processors.named_values import redact_named_values
from infertap.processors.secret_names import MARK, SecretNames

_NAMES = SecretNames(["patient_id"])
_SECRET = "Hunter2-tr0ub4dor"


def _redact(text: str) -> tuple[str, int]:
    return redact_named_values(text, _NAMES.in_text)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ('{"jwt": "S", "a": 1', f'{{"jwt": "{MARK}", "a": 1'),
        ('{"jwt": "S', f'{{"jwt": "{MARK}'),
        ('{"jwt": "S\\" S\\\\", "a": 1', f'{{"jwt": "{MARK}", "a": 1'),
        ('{"ssn": 123, "a": 1', f'{{"ssn": {MARK}, "a": 1'),
        ('{"credentials": {"u": "S}", "v": ["S"]}, "a": 1', f'{{"credentials": {MARK}, "a": 1'),
        ('{"patient_id": ["S", "S', f'{{"patient_id": {MARK}'),
        ('{"\\u0070atient_id": "S"', f'{{"\\u0070atient_id": "{MARK}"'),
        ("{'jwt': 'S', 'a': True}", f"{{'jwt': '{MARK}', 'a': True}}"),
        ('{\\"jwt\\": \\"S\\\\\\"S\\", \\"a\\"', f'{{\\"jwt\\": \\"{MARK}\\", \\"a\\"'),
        ("jwt: S\na: 1", f"jwt: {MARK}\na: 1"),
        ("x, PATIENT-ID = S; a = 1", f"x, PATIENT-ID = {MARK}; a = 1"),
    ],
)
def test_the_value_goes_and_all_the_rest_stays(text: str, shown: str) -> None:
    """In cut-off JSON, in JSON inside text, in Python's own notation and in YAML."""
    assert _redact(text.replace("S", _SECRET)) == (shown, 1)


@pytest.mark.parametrize(
    "text",
    [
        '{"password": null, "jwt": "", "a": "b"',
        f'{{"jwt": "{MARK}", "ssn": {MARK}',
        '{"max_tokens": 5, "author": "me"',
        "jwt: \nnext: 1",
        "",
    ],
)
def test_what_holds_nothing_stays(text: str) -> None:
    """Null, empty, redacted before, or of an ordinary name."""
    assert _redact(text) == (text, 0)


_documents = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)


@given(
    before=_documents,
    name=st.sampled_from(["password", "client_secret", "patient-id", "JWT", "credentials"]),
    around=st.sampled_from([lambda s: s, lambda s: [s], lambda s: {"x": [1, {"y": s}]}]),
    indent=st.sampled_from([None, 2]),
    cut=st.integers(0, 400),
)
def test_a_secret_in_a_document_that_was_cut_anywhere_is_gone(
    before: Any, name: str, around: Any, indent: int | None, cut: int
) -> None:
    """Wherever the client stopped reading."""
    text = json.dumps({"before": before, name: around(_SECRET), "after": [before]}, indent=indent)[: cut + 1]
    assert _SECRET not in _redact(text)[0]
