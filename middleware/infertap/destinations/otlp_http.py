"""The standard OTLP/HTTP exporter over a session of ours that sees the real answer.

1. A redirect is never followed: the POST would become a GET, and the credentials would go somewhere else.
2. The session raises for everything that is not an acceptance, so that the exporter stops at once and never retries.
3. Whatever the exporter's version takes from the environment, only the target's own headers leave.
"""

import math
import time
from collections.abc import Mapping, Sequence
from email.utils import parsedate_to_datetime
from typing import Any

import orjson
import requests
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # protobuf ships no types
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.sdk.trace import ReadableSpan

from infertap.destinations.otlp_exporters import UNENCODABLE, Answer, Verdict, not_sent, quiet, scrub
from infertap.targets import OtlpTarget
from infertap.urls import without_credentials

_COMPRESSIONS = {
    "none": Compression.NoCompression,
    "gzip": Compression.Gzip,
    "deflate": Compression.Deflate,
}
_BODY_BYTES_MAX = 64 * 1024
"""An OTLP answer is tiny; of a longer one the beginning tells enough."""
_DATA_STATUSES = (400, 422)
_TOO_LARGE_WORDS = b"request body too large"
"""What the Collector says, with status 400."""
_LATER_STATUSES = (408, 425, 429)
_FIXED_HEADERS = ("content-type", "content-encoding", "content-length", "user-agent")


class HttpExport:
    """`SpanExport` over HTTP."""

    def __init__(self, target: OtlpTarget) -> None:
        for path in (target.certificate, target.client_certificate, target.client_key):
            if path is not None:
                with open(path, "rb"):
                    pass
        self._session = _RecordingSession(target)
        with quiet():
            self._exporter = OTLPSpanExporter(
                endpoint=target.endpoint,
                certificate_file=target.certificate,
                client_key_file=target.client_key,
                client_certificate_file=target.client_certificate,
                headers=dict(target.headers),
                timeout=target.timeout_s,  # type: ignore[arg-type,unused-ignore]  # an int in older versions
                compression=_COMPRESSIONS[target.compression],
                session=self._session,
            )

    def export(self, spans: Sequence[ReadableSpan]) -> Answer:
        """See `SpanExport`."""
        self._session.answer = None
        with quiet():
            try:
                self._exporter.export(spans)
            except (_NotAcceptedError, *UNENCODABLE):
                pass  # Older exporters let them through; newer ones turn them into a failure.
        return self._session.answer or not_sent(spans)

    def close(self) -> None:
        """See `SpanExport`."""
        self._session.close()


class _NotAcceptedError(Exception):
    """Stops the exporter. Not a `RequestException`, because those it would retry."""


class _RecordingSession(requests.Session):
    def __init__(self, target: OtlpTarget) -> None:
        super().__init__()
        self._target = target
        self.answer: Answer | None = None

    def send(self, request: requests.PreparedRequest, **kwargs: Any) -> requests.Response:
        kept = {name: value for name, value in request.headers.items() if name.lower() in _FIXED_HEADERS}
        request.headers.clear()
        request.headers.update({**kept, **self._target.headers})
        if self._target.certificate is not None:
            # requests lets REQUESTS_CA_BUNDLE and CURL_CA_BUNDLE win over a session's own CA.
            kwargs["verify"] = self._target.certificate
        deadline_s = time.monotonic() + self._target.timeout_s
        try:
            response = super().send(request, **{**kwargs, "allow_redirects": False, "stream": True})
            body = _read(response, deadline_s)
        except requests.RequestException as error:
            self.answer = answer_of_failure(error)
            raise _NotAcceptedError(self.answer.reason) from None
        except UnicodeError:
            self.answer = Answer(Verdict.MISCONFIGURED, "a header has characters that HTTP cannot carry")
            raise _NotAcceptedError(self.answer.reason) from None
        self.answer = answer_of_response(response.status_code, response.headers, body, self._target.headers.values())
        if self.answer.verdict is not Verdict.ACCEPTED:
            raise _NotAcceptedError(self.answer.reason)
        return response


def answer_of_response(status: int, headers: Mapping[str, str], body: bytes, secrets: Any = ()) -> Answer:
    """The meaning of an HTTP answer: status, its headers (case-insensitive) and the beginning of its body."""
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if 200 <= status < 300:
        if kind == "text/html" or body.lstrip()[:15].lower().startswith((b"<!doctype html", b"<html")):
            return Answer(Verdict.MISCONFIGURED, f"HTTP {status} with an HTML page, as from a login page or a proxy")
        return _accepted(kind, body)
    if 300 <= status < 400:
        where = without_credentials(headers.get("location", "")) or "nowhere"
        return Answer(Verdict.MISCONFIGURED, f"HTTP {status}: redirected to {where}")
    if status == 413 or (status == 400 and _TOO_LARGE_WORDS in body):
        return Answer(Verdict.TOO_LARGE, f"HTTP {status}: too large")
    if status in _DATA_STATUSES:
        return Answer(Verdict.REFUSED, f"HTTP {status}")
    if status in _LATER_STATUSES or status >= 500:
        retry_after_s = _retry_after_s(headers.get("retry-after"))
        is_throttling = status == 429 or retry_after_s is not None
        return Answer(Verdict.UNAVAILABLE, f"HTTP {status}", retry_after_s=retry_after_s, is_throttling=is_throttling)
    words = scrub(body.decode("utf-8", "replace"), secrets) if kind in ("text/plain", "application/json") else ""
    return Answer(Verdict.MISCONFIGURED, f"HTTP {status}" + (f": {words}" if words else ""))


def answer_of_failure(error: requests.RequestException) -> Answer:
    """The meaning of an exchange that did not come about. Their texts hold the URL with its query: not repeated."""
    text = str(error).lower()
    if isinstance(error, requests.exceptions.SSLError):
        if "certificate verify failed" in text:
            return Answer(Verdict.MISCONFIGURED, "the server's TLS certificate is not trusted")
        if "certificate required" in text or "handshake failure" in text:
            return Answer(
                Verdict.MISCONFIGURED, "the server refused the TLS handshake; it may want a client certificate"
            )
        return Answer(Verdict.MISCONFIGURED, "no TLS handshake came about")
    if isinstance(error, requests.exceptions.ProxyError):
        return Answer(Verdict.UNAVAILABLE, "the HTTP proxy did not connect")
    if isinstance(error, requests.exceptions.Timeout):
        return Answer(Verdict.UNAVAILABLE, "no answer in time")
    if isinstance(
        error, (requests.exceptions.InvalidURL, requests.exceptions.MissingSchema, requests.exceptions.InvalidSchema)
    ):
        return Answer(Verdict.MISCONFIGURED, "the endpoint is no URL")
    for words, reason in (
        ("connection refused", "connection refused"),
        ("resolve", "the host name cannot be resolved"),
        ("name or service not known", "the host name cannot be resolved"),
        ("bad status line", "the answer is no HTTP"),
        ("badstatusline", "the answer is no HTTP"),
    ):
        if words in text:
            return Answer(Verdict.UNAVAILABLE, reason)
    return Answer(Verdict.UNAVAILABLE, "the connection broke before an answer")


def _accepted(kind: str, body: bytes) -> Answer:
    """A 2xx answer is an acceptance, whatever its body; only a readable partial success lessens it."""
    rejected = 0
    if kind == "application/json" and body:
        try:
            found = orjson.loads(body)
            partial = found.get("partialSuccess") or found.get("partial_success") or {}
            rejected = int(partial.get("rejectedSpans") or partial.get("rejected_spans") or 0)
        except (ValueError, TypeError, AttributeError):
            rejected = 0
    elif body:
        try:
            rejected = ExportTraceServiceResponse.FromString(body).partial_success.rejected_spans
        except DecodeError:
            rejected = 0
    return Answer(Verdict.ACCEPTED, "partial success" if rejected > 0 else "", rejected=max(rejected, 0))


def _read(response: requests.Response, deadline_s: float) -> bytes:
    body = b""
    for chunk in response.iter_content(8192):
        body += chunk
        if len(body) >= _BODY_BYTES_MAX:
            break
        if time.monotonic() > deadline_s:
            raise requests.exceptions.ReadTimeout("the answer's body took too long")
    response.close()
    return body


def _retry_after_s(value: str | None) -> float | None:
    """Seconds of a Retry-After header: a number, or a date."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - time.time()
        except (TypeError, ValueError):
            return None
    return max(seconds, 0.0) if math.isfinite(seconds) else None
