"""One body: decoded, redacted, fitted, or a reason why it is not there."""

import gzip
import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infertap.processors.bodies import REQUEST, RESPONSE, BodyProcessor, Side, StoredBody
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
    """1,000 characters and nothing stored; without the wish not even those."""
    raw = b'{"password":"hunter2","prompt":"' + b"p" * 2_000_000 + b'"}'
    sent = gzip.compress(raw) if coding else raw
    shown = f'{{"password":"{MARK}","prompt":"{"p" * 2_000}'[:1_000]
    assert _preview(sent, coding=coding) == StoredBody(None, None, "REQUEST_OVER_INLINE_LIMIT", 0, shown)
    assert _store(sent, coding=coding) == StoredBody(None, None, "REQUEST_OVER_INLINE_LIMIT", 0)


def test_what_fits_needs_no_preview() -> None:
    """It is stored as ever."""
    raw = b'{"a":1}'
    assert _preview(raw) == _store(raw)


@pytest.mark.parametrize(
    ("raw", "media", "coding"),
    [
        (b'{"password":"' + b"x" * 20_000, "application/json", None),
        (b'{"token":["' + b"x" * 20_000, "application/json", None),
        (b'{"password":"' + b"y" * 16_352 + b'","n":"AKIA' + b"x" * 20_000, "application/json", None),
        (b'{"arguments":"{\\"password\\":\\"' + b"x" * 20_000, "application/json", None),
        (b"[" * 20_000, "application/json", None),
        (b"\x89PNG" * _LIMIT, "application/json", None),
        ('{"p":"'.encode("utf-16") + "x".encode("utf-16-le") * 20_000, "application/json", None),
        (b"x" * 20_000, "multipart/form-data; boundary=x", None),
        (b"x" * 20_000, "text/plain", "br"),
        (b"data: " + b"x" * 20_000, "text/event-stream", None),
        (b"password=" + b"x" * 20_000, "application/x-www-form-urlencoded", None),
        (b"[" + b'{"password":"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"},' * 1_000, "application/json", None),
    ],
)
def test_where_the_beginning_cannot_be_redacted_nothing_of_it_is_shown(
    raw: bytes, media: str, coding: str | None
) -> None:
    """A secret without end, a document within a text, no text, another charset, what cannot be cut."""
    stored = _preview(raw, media, coding)
    assert (stored.text, stored.code) == (None, "REQUEST_OVER_INLINE_LIMIT")
    assert "xxx" not in (stored.preview or "")


@pytest.mark.parametrize(
    ("raw", "media", "beginning"),
    [
        (b'[{"password":"hunter2","a":"' + b"a" * 100 + b'"},', "application/json", f'[{{"password":"{MARK}","a":"aa'),
        (b'{"password":"hunter2","a":1}\n' * 9, "application/x-ndjson", f'{{"password":"{MARK}","a":1}}\n{{"pass'),
        (b'data: {"password":"hunter2","a":1}\n\n' * 9, "text/event-stream", f'data: {{"password":"{MARK}","a":1}}'),
        (b"password=hunter2&a=" + b"a" * 500 + b"&", "application/x-www-form-urlencoded", f"password={MARK}&a=aaa"),
        (b"password=hunter2 and then some text " * 9, "text/plain", f"password={MARK}"),
        (b'{"password":"hunter2","a":1} ' * 9, "text/plain", f'{{"password":"{MARK}","a":1}}'),
        (b"it is {hunter2} or not " * 9, None, "it is {hunter2} or not"),
        ("\U0001f642".encode() * 9, "text/plain", "\U0001f642" * 1_000),
    ],
)
def test_each_kind_of_body_has_a_beginning(raw: bytes, media: str | None, beginning: str) -> None:
    """Cut between members, lines, events or pairs; text where it comes."""
    stored = _preview(raw * (30_000 // len(raw)), media)
    assert stored.preview is not None
    assert stored.preview.startswith(beginning)
    assert len(stored.preview) == 1_000


_DOCUMENTS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=40),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=8) | st.just("password"), inner),
    max_leaves=40,
)


@given(document=_DOCUMENTS, seed=st.integers(0, 20_000))
def test_a_secret_in_a_document_is_never_in_its_preview(document: object, seed: int) -> None:
    """Wherever it stands and wherever the cut falls."""
    text = json.dumps({"pad": "p" * seed, "d": [document, {"api_key": "hunter2" * 3_000}], "tail": "t" * 30_000})
    stored = _preview(text.encode())
    assert "hunter2" not in (stored.preview or "")
    if seed > 6_000:
        assert stored.preview is not None
        assert text.replace(" ", "").startswith(stored.preview.replace(" ", ""))
