"""One body: decoded, redacted, fitted, or a reason why it is not there."""

import gzip
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infertap.processors.bodies import (
    PREVIEW_SOURCE_BYTES_MAX,
    REQUEST,
    RESPONSE,
    BodyProcessor,
    Side,
    StoredBody,
)
from infertap.processors.media import parse_media_type
from infertap.processors.redact import Redactor
from infertap.processors.secret_names import MARK, SecretNames

_LIMIT = 1_000
_BODIES = BodyProcessor(Redactor(SecretNames()), _LIMIT)


def _store(
    raw: bytes, media: str | None = "application/json", coding: str | None = None, side: Side = REQUEST
) -> StoredBody:
    return _BODIES.store(raw, parse_media_type(media), coding, side)


def test_a_body_is_stored_with_the_hash_of_what_is_stored() -> None:
    """Of the redacted text: a hash of the raw one would tell a short secret."""
    stored = _store(b'{"password":"hunter2"}')
    text = f'{{"password":"{MARK}"}}'
    assert stored == StoredBody(text, hashlib.sha256(text.encode()).hexdigest(), None, 1)


def test_an_empty_body_is_the_empty_text() -> None:
    """Whatever its type and its coding say."""
    empty = StoredBody("", hashlib.sha256(b"").hexdigest(), None, 0)
    assert _store(b"") == _store(b"", "image/png", "gzip") == _store(b"", None) == empty


@pytest.mark.parametrize(("side", "name"), [(REQUEST, "REQUEST"), (RESPONSE, "RESPONSE")])
@pytest.mark.parametrize(
    ("raw", "media", "coding", "code"),
    [
        (b"\x89PNG", "image/png", None, "BINARY_WITHHELD"),
        (b"\x00\x01", None, None, "BINARY_WITHHELD"),
        (b"x" * (_LIMIT + 1), "text/plain", None, "OVER_INLINE_LIMIT"),
        (gzip.compress(bytes(1 << 20)), "text/plain", "gzip", "OVER_INLINE_LIMIT"),
        ("é".encode("latin-1") * _LIMIT, "text/plain; charset=latin-1", None, "OVER_INLINE_LIMIT"),
        (b"\xff", "text/plain", None, "UNDECODABLE"),
        (b"text", "text/plain", "gzip", "UNDECODABLE"),
        (b"text", "text/plain; charset=undefined", None, "UNDECODABLE"),
        (b"text", "text/plain", "unheard-of", "UNDECODABLE"),
        (b"no boundary", "multipart/form-data", None, "REDACTION_FAILED"),
    ],
)
def test_what_cannot_be_kept_is_withheld_with_a_code(
    raw: bytes, media: str | None, coding: str | None, code: str, side: Side, name: str
) -> None:
    """No text, no hash, and the side in the code."""
    assert _store(raw, media, coding, side) == StoredBody(None, None, f"{name}_{code}", 0)


def test_a_document_nested_too_deeply_is_withheld() -> None:
    """The privacy law: what redaction cannot read is not stored raw."""
    bodies = BodyProcessor(Redactor(SecretNames()), 1 << 20)
    raw = b"[" * 100_000 + b'{"password":"hunter2"}' + b"]" * 100_000
    stored = bodies.store(raw, parse_media_type("application/json"), None, RESPONSE)
    assert stored == StoredBody(None, None, "RESPONSE_REDACTION_FAILED", 0)


def test_lone_surrogates_can_be_stored() -> None:
    """Python clients send them escaped; the redacted text must still be UTF-8."""
    stored = _store(b'{"a":"\\ud800","password":"x"}')
    assert stored.code is None
    assert stored.text is not None
    assert stored.text.encode()


@given(
    raw=st.binary(max_size=80),
    media=st.none()
    | st.sampled_from(["application/json", "text/event-stream", "multipart/form-data; boundary=a", "x"]),
    coding=st.none() | st.sampled_from(["gzip", "br", "zstd", "deflate", "identity", "x"]),
)
def test_any_body_is_stored_or_withheld(raw: bytes, media: str | None, coding: str | None) -> None:
    """Exactly one of text and code, and a hash with every text; nothing is ever raised."""
    stored = _store(raw, media, coding)
    assert (stored.text is None) is (stored.code is not None) is (stored.sha256 is None)
    if stored.text is not None:
        assert stored.sha256 == hashlib.sha256(stored.text.encode()).hexdigest()


def _preview(raw: bytes, media: str | None = "application/json", coding: str | None = None) -> StoredBody:
    return _BODIES.store(raw, parse_media_type(media), coding, REQUEST, preview=True)


@pytest.mark.parametrize("coding", [None, "gzip"])
def test_a_body_over_the_limit_shows_its_redacted_beginning(coding: str | None) -> None:
    """1,000 characters of what redaction makes of the whole, and nothing of it is stored; without the wish: nothing."""
    raw = b'{"password":"hunter2","prompt":"' + b"p" * 2_000 + b'"}'
    sent = gzip.compress(raw) if coding else raw
    shown = f'{{"password":"{MARK}","prompt":"{"p" * 2_000}"}}'[:1_000]
    assert _preview(sent, coding=coding) == StoredBody(None, None, "REQUEST_OVER_INLINE_LIMIT", 1, shown)
    assert _store(sent, coding=coding) == StoredBody(None, None, "REQUEST_OVER_INLINE_LIMIT", 0)


def test_what_fits_needs_no_preview() -> None:
    """It is stored as ever."""
    raw = b'{"a":1}'
    assert _preview(raw) == _store(raw)


@pytest.mark.parametrize(
    ("raw", "media"),
    [
        (b'{"password":"hunter2"}' + b" " * PREVIEW_SOURCE_BYTES_MAX, "application/json"),
        (gzip.compress(bytes(PREVIEW_SOURCE_BYTES_MAX + 1)), "text/plain"),
        (b"\x89PNG" * _LIMIT, "image/png"),
        (b"no boundary" * _LIMIT, "multipart/form-data"),
    ],
)
def test_what_cannot_be_redacted_whole_has_no_preview(raw: bytes, media: str) -> None:
    """Too large for the effort, no text, or nothing that redaction can read: a code, and not one character."""
    stored = _preview(raw, media, "gzip" if raw.startswith(b"\x1f\x8b") else None)
    assert (stored.text, stored.preview) == (None, None)
    assert stored.code is not None


@given(text=st.text(max_size=1_500))
def test_a_preview_is_the_beginning_of_what_would_be_stored(text: str) -> None:
    """Whatever the text: the same redaction, seen through a larger limit."""
    whole = BodyProcessor(Redactor(SecretNames()), 1 << 20).store(
        text.encode(), parse_media_type("text/plain"), None, REQUEST
    )
    stored = _preview(text.encode(), "text/plain")
    assert stored.preview is None or whole.text is None or whole.text.startswith(stored.preview)
