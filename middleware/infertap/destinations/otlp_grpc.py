"""The standard OTLP/gRPC exporter over a stub of ours that sees the real answer.

1. The stub raises something that is no `RpcError` for everything that is not an acceptance, so that the exporter stops
   at once and never retries.
2. Credentials are made here: the exporter reads a client certificate only where a CA is set, too.
3. After UNAVAILABLE the channel is thrown away: one that has failed can stay down behind a restarted Collector.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import grpc  # type: ignore[import-untyped]  # grpcio ships no types
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # nor does protobuf
from google.rpc.error_details_pb2 import RetryInfo  # type: ignore[import-untyped]  # nor do googleapis' messages
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import ReadableSpan

from infertap.destinations.otlp_exporters import UNENCODABLE, Answer, Verdict, not_sent, quiet, scrub
from infertap.errors import RetryableError
from infertap.targets import OtlpTarget

_SIZE_WORDS = ("larger than", "too large", "message length", "size limit", "exceeds")
_NO_CONNECTION = re.compile(
    r"failed to connect to all addresses; last error: (?:[A-Z_]+: )?(?:(?:ipv4|ipv6|unix):\S+: )?"
    r"(?:Failed to connect to remote host: )?"
)
_SIZE_CODES = (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.OUT_OF_RANGE)
_CONFIGURATION_CODES = (
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.NOT_FOUND,
)


class GrpcExport:
    """`SpanExport` over gRPC."""

    def __init__(self, target: OtlpTarget) -> None:
        self._target = target
        self._insecure = is_insecure(target)
        self._credentials = None if self._insecure else _credentials(target)
        self._exporter: OTLPSpanExporter | None = None
        self._stub: _RecordingStub | None = None

    def export(self, spans: Sequence[ReadableSpan]) -> Answer:
        """See `SpanExport`."""
        exporter, stub = self._connected()
        stub.answer = None
        with quiet():
            try:
                exporter.export(spans)
            except (_NotAcceptedError, *UNENCODABLE):
                pass
        answer = stub.answer or not_sent(spans)
        if answer.verdict is Verdict.UNAVAILABLE:
            self.close()
        return answer

    def close(self) -> None:
        """See `SpanExport`."""
        exporter, self._exporter, self._stub = self._exporter, None, None
        if exporter is not None:
            with quiet():
                exporter.shutdown()

    def _connected(self) -> "tuple[OTLPSpanExporter, _RecordingStub]":
        if self._exporter is None or self._stub is None:
            # A header of our own keeps the exporter from taking those of the environment; the stub sends the target's.
            with quiet():
                self._exporter = OTLPSpanExporter(
                    endpoint=self._target.endpoint,
                    insecure=self._insecure,
                    credentials=self._credentials,
                    headers=(("x-infertap", "1"),),
                    timeout=self._target.timeout_s,  # type: ignore[arg-type,unused-ignore]  # an int in older versions
                    compression=grpc.Compression.Gzip
                    if self._target.compression == "gzip"
                    else grpc.Compression.NoCompression,
                )
            self._stub = _RecordingStub(_client_of(self._exporter), self._target)
            self._exporter._client = self._stub  # type: ignore[assignment,unused-ignore]  # it only calls Export
        return self._exporter, self._stub


def _client_of(exporter: OTLPSpanExporter) -> Any:
    """The exporter's own stub; no public name leads to it."""
    client = getattr(exporter, "_client", None)
    if not hasattr(client, "Export"):
        raise RetryableError(
            "the installed opentelemetry-exporter-otlp-proto-grpc has no client that can be watched; use "
            "http/protobuf, or a version that infertap was tested with"
        )
    return client


class _NotAcceptedError(Exception):
    """Stops the exporter."""


class _RecordingStub:
    """Stands where the exporter has its TraceServiceStub."""

    def __init__(self, stub: Any, target: OtlpTarget) -> None:
        self._stub = stub
        self._metadata = tuple((name.lower(), value) for name, value in target.headers.items())
        self._timeout_s = target.timeout_s
        self.answer: Answer | None = None

    def Export(self, request: Any, metadata: Any = None, timeout: Any = None) -> Any:  # noqa: ARG002, N802 - its name
        try:
            response = self._stub.Export(request=request, metadata=self._metadata, timeout=self._timeout_s)
        except grpc.RpcError as error:
            self.answer = answer_of_error(error, secrets=[value for _, value in self._metadata])
            raise _NotAcceptedError(self.answer.reason) from None
        except (TypeError, ValueError):
            # grpc's own text repeats the metadata.
            self.answer = Answer(Verdict.MISCONFIGURED, "a header has a name or value that gRPC cannot carry")
            raise _NotAcceptedError(self.answer.reason) from None
        rejected = max(response.partial_success.rejected_spans, 0)
        self.answer = Answer(Verdict.ACCEPTED, "partial success" if rejected else "", rejected=rejected)
        return response


def answer_of_error(error: Any, secrets: Sequence[str] = ()) -> Answer:
    """The meaning of an `RpcError`: code, details and the delay that the server asked for."""
    code: grpc.StatusCode = error.code()
    details = scrub(_short(error.details() or ""), secrets)
    retry_after_s = _retry_after_s(dict(error.trailing_metadata() or ()))
    reason = f"gRPC {code.name}: {details}" if details else f"gRPC {code.name}"
    if code in _SIZE_CODES and retry_after_s is None and any(words in details.lower() for words in _SIZE_WORDS):
        return Answer(Verdict.TOO_LARGE, reason)
    if code is grpc.StatusCode.INVALID_ARGUMENT:
        # The details may repeat an attribute's value.
        return Answer(Verdict.REFUSED, f"gRPC {code.name}")
    if code in _CONFIGURATION_CODES or details == "Invalid metadata":
        return Answer(Verdict.MISCONFIGURED, reason)
    is_throttling = code is grpc.StatusCode.RESOURCE_EXHAUSTED or retry_after_s is not None
    return Answer(Verdict.UNAVAILABLE, reason, retry_after_s=retry_after_s, is_throttling=is_throttling)


def _short(details: str) -> str:
    """Of a connection that failed, what went wrong; gRPC says three times that it failed, and then why."""
    return _NO_CONNECTION.sub("", details)


def is_insecure(target: OtlpTarget) -> bool:
    """Whether the connection is plain: the scheme decides; without one `insecure` does, and TLS is the default.

    A Unix socket does not leave the machine: there TLS is spoken only where `insecure` is false.
    """
    if target.endpoint.startswith("unix:"):
        return target.insecure is not False
    scheme = urlsplit(target.endpoint).scheme if "://" in target.endpoint else ""
    return scheme == "http" or (scheme != "https" and bool(target.insecure))


def _credentials(target: OtlpTarget) -> Any:
    def read(path: str | None) -> bytes | None:
        return None if path is None else Path(path).read_bytes()

    return grpc.ssl_channel_credentials(
        root_certificates=read(target.certificate),
        private_key=read(target.client_key),
        certificate_chain=read(target.client_certificate),
    )


def _retry_after_s(trailers: dict[str, Any]) -> float | None:
    """Seconds of a RetryInfo, sent alone (as the exporter expects it) or in the status details (as gRPC says)."""
    info = RetryInfo()
    try:
        if "google.rpc.retryinfo-bin" in trailers:
            info.ParseFromString(trailers["google.rpc.retryinfo-bin"])
            return float(info.retry_delay.seconds + info.retry_delay.nanos / 1e9)
        if "grpc-status-details-bin" in trailers:
            for detail in Status.FromString(trailers["grpc-status-details-bin"]).details:
                if detail.Unpack(info):
                    return float(info.retry_delay.seconds + info.retry_delay.nanos / 1e9)
    except DecodeError:
        return None
    return None
