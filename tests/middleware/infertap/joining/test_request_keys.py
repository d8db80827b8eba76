"""Whose a span is."""

from opentelemetry.trace import SpanContext

from infertap.joining.request_keys import RequestKeys


def context(span_id: int) -> SpanContext:
    return SpanContext(1, span_id, False)


def test_a_span_that_a_request_joins_becomes_the_requests() -> None:
    """It began before the request was known."""
    keys = RequestKeys(object())
    keys.began(context(2), None, None)
    keys.claim(1, 2, (5, 6))
    keys.claim(1, 3, (7, 8))
    belonging = keys.ended(context(2))
    assert belonging is not None
    assert (belonging.inside, belonging.key) == (True, (5, 6))
    assert keys.ended(context(2)) is None
    assert keys.ended(context(3)) is None


def test_spans_that_never_end_are_forgotten_oldest_first() -> None:
    """A leak in the app is none in here."""
    keys = RequestKeys(object())
    for span_id in range(1, 20_002):
        keys.began(context(span_id), None, None)
    assert keys.ended(context(1)) is None
    assert keys.ended(context(20_001)) is not None
