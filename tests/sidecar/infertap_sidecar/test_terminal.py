"""Recorded text on a terminal: shown, and never obeyed."""

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infertap_sidecar.terminal import harmless, harmless_json


@given(st.text())
def test_nothing_is_left_that_a_terminal_obeys(text: str) -> None:
    """No control but tab and line feed, no mark for the direction of writing; all other text is as it was."""
    shown = harmless(text)
    for character in shown:
        assert character in "\t\n" or unicodedata.category(character) != "Cc"
        assert unicodedata.bidirectional(character) not in (
            "LRE",
            "RLE",
            "LRO",
            "RLO",
            "PDF",
            "LRI",
            "RLI",
            "FSI",
            "PDI",
        )
    if text.isprintable():
        assert shown == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2J\x1b]0;title\x07", "␛[2J␛]0;title␇"),
        ("back\rward", "back␍ward"),
        ("\x9b31m\u202e", "<U+009B>31m<U+202E>"),
        ("del\x7f", "del␡"),
        ("grün 漢字 🎉\tand\n", "grün 漢字 🎉\tand\n"),
    ],
)
def test_what_is_shown_instead(text: str, shown: str) -> None:
    """A picture or a number, in its place."""
    assert harmless(text) == shown


@given(st.dictionaries(st.text(), st.text()))
def test_json_stays_the_same_value(value: dict[str, str]) -> None:
    """Escaped, not replaced: programs read it, too."""
    text = harmless_json(json.dumps(value, ensure_ascii=False))
    assert json.loads(text) == value
    assert harmless(text) == text
