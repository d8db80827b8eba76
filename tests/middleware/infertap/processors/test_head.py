"""The beginning of a large body is a document of its kind, wherever the cut falls."""

import gzip
import json
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infertap.processors.head import HEAD_BYTES_MAX, head_of
from infertap.processors.media import parse_media_type

_JSON = parse_media_type("application/json")
_DOCUMENTS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(
    document=st.lists(_DOCUMENTS, min_size=1) | st.dictionaries(st.text(), _DOCUMENTS),
    share=st.floats(0, 1),
    ascii_only=st.booleans(),
)
def test_a_cut_document_can_be_read(document: object, share: float, ascii_only: bool) -> None:
    """Whatever is in it: the beginning parses, and holds no member that the whole does not hold."""
    text = json.dumps(document, ensure_ascii=ascii_only)
    try:
        raw = text.encode()
    except UnicodeEncodeError:
        return
    head = head_of(raw[: max(1, int(len(raw) * share))], _JSON, None)
    assert head is not None or "\0" in text
    if head is not None:
        assert _is_beginning(json.loads(head), document)


def _is_beginning(part: object, whole: object) -> bool:
    if isinstance(part, dict) and isinstance(whole, dict):
        return all(name in whole and _is_beginning(part[name], whole[name]) for name in part)
    if isinstance(part, list) and isinstance(whole, list):
        return len(part) <= len(whole) and all(map(_is_beginning, part, whole))
    if isinstance(part, str) and isinstance(whole, str):
        # Of a character in two escapes the cut may leave the first.
        return whole.startswith(part[:-1] if "\ud800" <= part[-1:] <= "\udbff" else part)
    return part == whole


@pytest.mark.parametrize(
    ("text", "head"),
    [
        ('{"prompt": "qqq', '{"prompt": "qqq"}'),
        ('{"a": "\\u00e', '{"a": ""}'),
        ('{"a": "b\\\\', '{"a": "b\\\\"}'),
        ('{"a": "b\\', '{"a": "b"}'),
        ('{"a": 12', "{}"),
        ('{"a": "{\\"x', "{}"),
        ('["a", " [1, 2', '["a"]'),
        ('[1, [2, {"a": [tru', '[1, [2, {"a": []}]]'),
        ('{"a": 1, "b', '{"a": 1}'),
        ('"text', None),
        ("", None),
    ],
)
def test_where_a_document_is_cut(text: str, head: str | None) -> None:
    """Behind the last whole member; a text goes on to the cut, unless it is a document itself."""
    assert head_of(text.encode(), _JSON, None) == head


def test_a_character_that_the_cut_has_split_is_left_out() -> None:
    """And a body that is no UTF-8, or holds a NUL, has no beginning."""
    plain = parse_media_type("text/plain")
    head = head_of("é".encode() * HEAD_BYTES_MAX, plain, None)
    assert head == "é" * (HEAD_BYTES_MAX // 2)
    assert head_of(b"x" + "é".encode() * HEAD_BYTES_MAX, plain, None) == "x" + "é" * ((HEAD_BYTES_MAX - 1) // 2)
    assert head_of(b"\xff" * 9, plain, None) is None
    assert head_of(b"a\0b", plain, None) is None


def test_codings_are_undone_as_far_as_needed() -> None:
    """A bomb costs its beginning only; what is not understood has none."""
    plain, raw = parse_media_type("text/plain"), b"x" * (64 << 20)
    for coding, sent in (("gzip", gzip.compress(raw)), ("deflate", zlib.compress(raw))):
        assert head_of(sent, plain, coding) == "x" * HEAD_BYTES_MAX
    assert head_of(raw[:9], plain, "gzip") is None
    assert head_of(raw[:9], plain, "br") is None
    assert head_of(raw[:9], parse_media_type("image/png"), None) is None
