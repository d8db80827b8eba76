"""What a destination truly answered to an OTLP export, and the one place that chooses gRPC or HTTP.

1. The standard exporters do the encoding and the sending; we watch the wire below them, because their own verdict is
   not the truth (a redirect, an HTML login page and a partial success all count as success there).
2. They never retry here: one export is one request, bounded by the timeout. Waiting is the drainer's business.
3. No text of an answer holds a credential, a URL's query or a record's content.
"""

import logging
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple, Protocol

from infertap.masking import masked_line
from infertap.targets import OtlpTarget

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

_TEXT_CHARACTERS_MAX = 160
UNENCODABLE = (TypeError, ValueError, OverflowError)
"""What protobuf raises for a value that does not fit its field."""

_CHATTY_LOGGERS = (
    "opentelemetry.exporter.otlp.common.http",
    "opentelemetry.exporter.otlp.proto.common._internal",
    "opentelemetry.exporter.otlp.proto.grpc.exporter",
    "opentelemetry.exporter.otlp.proto.grpc.trace_exporter",
    "opentelemetry.exporter.otlp.proto.http._common",
    "opentelemetry.exporter.otlp.proto.http.trace_exporter",
    "opentelemetry.util.re",
)
"""Loggers of the exporters: several lines per failed batch, with header texts and attribute values among them."""


class Verdict(StrEnum):
    """What an answer means for the batch."""

    ACCEPTED = "accepted"
    TOO_LARGE = "too_large"
    REFUSED = "refused"
    """The receiver did not like the data (400, INVALID_ARGUMENT)."""
    UNENCODABLE = "unencodable"
    """It never left: the exporter could not encode it."""
    MISCONFIGURED = "misconfigured"
    """No batch will be accepted until somebody changes a setting."""
    UNAVAILABLE = "unavailable"
    """The same batch may be accepted later."""


class Answer(NamedTuple):
    """One answer. `rejected` spans of an accepted batch were dropped by the receiver, and never are to be re-sent."""

    verdict: Verdict
    reason: str = ""
    rejected: int = 0
    retry_after_s: float | None = None
    is_throttling: bool = False
    """Whether it asks for patience (429, RESOURCE_EXHAUSTED, any stated delay): that is about us, never the data."""


class SpanExport(Protocol):
    """A standard exporter, watched. Not thread-safe."""

    def export(self, spans: "Sequence[ReadableSpan]") -> Answer:
        """Send one request, also for an empty sequence. Takes at most about the target's timeout."""

    def close(self) -> None:
        """Give up the connection. A second call does nothing."""


def connect(target: OtlpTarget) -> SpanExport:
    """The exporter for the target's protocol; only that one's libraries are imported. Connects to nothing yet.

    Raises:
        OSError: a certificate or key file cannot be read.
        ValueError: a certificate or key cannot be used.
    """
    if target.protocol == "grpc":
        from infertap.destinations.otlp_grpc import GrpcExport

        return GrpcExport(target)
    from infertap.destinations.otlp_http import HttpExport

    return HttpExport(target)


def not_sent(spans: "Sequence[ReadableSpan]") -> Answer:
    """Why an export ended before anything was sent: the spans, or the settings."""
    from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans

    try:
        encode_spans(spans).SerializeToString()
    except UNENCODABLE as error:
        return Answer(Verdict.UNENCODABLE, f"cannot be encoded: {type(error).__name__}")
    return Answer(Verdict.MISCONFIGURED, "the exporter sent nothing; a header or the endpoint may not be allowed")


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the exporters' own log lines of this thread out: what they say is in the `Answer`, without secrets."""
    here = threading.get_ident()

    def other_thread(_record: logging.LogRecord) -> bool:
        return threading.get_ident() != here

    loggers = [logging.getLogger(name) for name in _CHATTY_LOGGERS]
    for logger in loggers:
        logger.addFilter(other_thread)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(other_thread)


def scrub(text: str, secrets: Iterable[str]) -> str:
    """One short line of a receiver's own words, without the values of our headers, nor any word of them."""
    parts = {part for secret in secrets for part in (secret, *secret.split())}
    return masked_line(text, parts, chars_max=_TEXT_CHARACTERS_MAX)
