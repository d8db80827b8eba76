"""Media types: what a body says it is, and how it is read then."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infertap.processors.media import Kind, parse_media_type


@pytest.mark.parametrize(
    ("header", "kind"),
    [
        (None, Kind.UNKNOWN),
        ("  ", Kind.UNKNOWN),
        ("application/json", Kind.JSON),
        ("Application/JSON; charset=UTF-8", Kind.JSON),
        ("application/problem+json", Kind.JSON),
        ("text/event-stream;charset=utf-8", Kind.EVENT_STREAM),
        ("application/x-ndjson", Kind.NDJSON),
        ("application/json-seq", Kind.NDJSON),
        ("application/x-www-form-urlencoded", Kind.FORM),
        ('multipart/form-data; boundary="a b"', Kind.MULTIPART),
        ("text/csv; header=present", Kind.DELIMITED),
        ("application/soap+xml", Kind.TEXT),
        ("application/yaml", Kind.TEXT),
        ("application/octet-stream", Kind.BINARY),
        ("image/png", Kind.BINARY),
        ("multipart/mixed; boundary=x", Kind.BINARY),
        ("application/json, application/json", Kind.BINARY),
        ("nonsense", Kind.BINARY),
        (";charset=utf-8", Kind.BINARY),
    ],
)
def test_the_kind_follows_the_type(header: str | None, kind: Kind) -> None:
    """What is not known to be text is binary; what says nothing is looked at."""
    assert parse_media_type(header).kind is kind


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("text/plain; charset=UTF-8", ("text/plain", "UTF-8", None)),
        ('TEXT/plain;CHARSET="latin-1"', ("text/plain", "latin-1", None)),
        ('multipart/form-data; boundary="a;b=c"', ("multipart/form-data", None, "a;b=c")),
        ("multipart/form-data; a=b ; boundary = xY", ("multipart/form-data", None, "xY")),
        ("text/plain; charset", ("text/plain", None, None)),
        ("text/plain;;;charset=", ("text/plain", "", None)),
    ],
)
def test_parameters(header: str, expected: tuple[str | None, ...]) -> None:
    """Names in lower case, values as they are without their quotes."""
    assert parse_media_type(header)[:3] == expected


def test_only_event_streams_and_ndjson_stream_by_nature() -> None:
    """Everything else is a stream only if it came in pieces."""
    assert [
        name
        for name in ("text/event-stream", "application/ndjson", "application/json", "text/plain")
        if parse_media_type(name).streams
    ] == ["text/event-stream", "application/ndjson"]


@given(header=st.text(max_size=60))
def test_no_header_is_too_odd(header: str) -> None:
    """Parsing never raises, and never invents a type."""
    media = parse_media_type(header)
    assert isinstance(media.kind, Kind)
    assert (media.name is None) is (not header.strip())
