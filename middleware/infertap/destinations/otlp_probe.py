"""Asks an OTLP endpoint with an empty request, recognises the classic mistakes, and names the fix in one line.

1. The protocol is never switched: a mistake is named, not worked around.
2. A look at the wire takes at most three short connections and sends nothing of a record, and no credentials.
"""

import socket
import ssl
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import urlsplit

from infertap.destinations.otlp_exporters import Answer, Verdict, connect
from infertap.destinations.otlp_headers_file import HeadersFile
from infertap.errors import RetryableError
from infertap.targets import OtlpTarget
from infertap.urls import without_credentials

_LOOK_TIMEOUT_S = 2.0
_NOTHING_IN_IT = ("HTTP 400", "gRPC INVALID_ARGUMENT")
"""How some receivers answer to a request without spans."""
_TRACES_PATH = "/v1/traces"
_OTHER_TRACES_PATHS = ("/v2/trace/otlp", "/traces/otlp/v0.9")
"""Splunk's and Lightstep's; they are used as they are."""
_HTTP2_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
_HTTP2_SETTINGS = b"\x04"
"""Fourth byte of the first frame that an HTTP/2 server sends."""
_FIRST_BYTES = 9
_TRACES_ENDPOINT = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
_ANY_ENDPOINT = f"{_TRACES_ENDPOINT} (or OTEL_EXPORTER_OTLP_ENDPOINT)"
_NOT_HERE = (404, 405, 501)
"""What a server answers that knows no such path, or no POST."""
_LATER = (408, 425, 429)
_MAY_RECOVER = "the receiver is there and may recover"
_OWN_LOG = "the receiver's own log says what it does not like"
_PROTOCOL = "OTEL_EXPORTER_OTLP_PROTOCOL"
_HEADERS = "OTEL_EXPORTER_OTLP_HEADERS"


class Wire(StrEnum):
    """What a port speaks."""

    HTTP1 = "HTTP/1.1 in plain text"
    HTTP2 = "HTTP/2 in plain text"
    TLS = "TLS"
    SILENT = "nothing that we know"
    REFUSED = "nobody listens"
    UNRESOLVED = "the host name cannot be resolved"
    UNREACHABLE = "no connection in time"


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """Whether the endpoint takes our requests; what was seen; where it does not, what to change."""

    ok: bool
    problem: str = ""
    fix: str = ""

    @property
    def line(self) -> str:
        """One line for people."""
        if self.ok:
            return f"reached ({self.problem})" if self.problem else "accepted"
        return f"{self.problem}; {self.fix}" if self.fix else self.problem


def probe(target: OtlpTarget) -> ProbeResult:
    """Send an empty request as the destination would. Takes at most the target's timeout and some seconds."""
    try:
        target = HeadersFile(target).current()
        export = connect(target)
    except RetryableError as error:
        return ProbeResult(False, str(error), "it must hold one name=value a line")
    except OSError as error:
        return ProbeResult(False, "a certificate or key cannot be read", f"{error.strerror}: {error.filename}")
    except ValueError:
        return ProbeResult(False, "a certificate or key cannot be used", "it must be PEM")
    try:
        answer = export.export([])
    finally:
        export.close()
    if answer.reason in _NOTHING_IN_IT:
        # MLflow's, for example: credentials and path have passed, and what is wrong is that there is no span.
        return ProbeResult(True, f"{answer.reason} to an empty request")
    return explain(target, answer)


def explain(target: OtlpTarget, answer: Answer) -> ProbeResult:
    """What an answer means for the settings; looks at the wire where the answer alone does not say."""
    if answer.verdict is Verdict.ACCEPTED:
        return ProbeResult(True)
    if answer.verdict in (Verdict.REFUSED, Verdict.TOO_LARGE, Verdict.UNENCODABLE):
        return ProbeResult(False, answer.reason, _OWN_LOG)
    status = _http_status(answer.reason)
    if status in (401, 403, 407) or "UNAUTHENTICATED" in answer.reason or "PERMISSION_DENIED" in answer.reason:
        return ProbeResult(False, answer.reason, _fix_credentials(target))
    if target.protocol != "grpc" and (status in _NOT_HERE or 300 <= status < 400 or "HTML" in answer.reason):
        return ProbeResult(False, answer.reason, _fix_path(target, status))
    if answer.reason.startswith("gRPC UNIMPLEMENTED"):
        return ProbeResult(False, answer.reason, _fix_unimplemented(target, answer))
    if 400 <= status < 500 and status not in _LATER:
        return ProbeResult(False, answer.reason, _OWN_LOG)
    if status or answer.reason.startswith(("gRPC RESOURCE_EXHAUSTED", "gRPC INTERNAL", "gRPC ABORTED")):
        return ProbeResult(False, answer.reason, _MAY_RECOVER)
    return ProbeResult(False, answer.reason, _fix_wire(target, answer))


def wire_of(host: str, port: int, *, timeout_s: float = _LOOK_TIMEOUT_S) -> Wire:
    """Find out what a port speaks: a TLS handshake first, then HTTP/2, then HTTP/1.1."""
    try:
        if _speaks_tls(host, port, timeout_s):
            return Wire.TLS
        if _first_bytes(host, port, _HTTP2_HELLO, timeout_s)[3:4] == _HTTP2_SETTINGS:
            return Wire.HTTP2
        question = f"OPTIONS * HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode("ascii", "replace")
        return Wire.HTTP1 if _first_bytes(host, port, question, timeout_s).startswith(b"HTTP/1") else Wire.SILENT
    except socket.gaierror:
        return Wire.UNRESOLVED
    except ConnectionRefusedError:
        return Wire.REFUSED
    except TimeoutError:
        return Wire.UNREACHABLE
    except OSError:
        return Wire.SILENT


def _speaks_tls(host: str, port: int, timeout_s: float) -> bool:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with socket.create_connection((host, port), timeout=timeout_s) as plain:
        try:
            with context.wrap_socket(plain, server_hostname=host):
                return True
        except ssl.SSLError as error:
            # An alert comes from a TLS server that did not like ours, for example because it wants a certificate.
            return "alert" in str(error).lower()
        except OSError:
            return False


def _first_bytes(host: str, port: int, question: bytes, timeout_s: float) -> bytes:
    """As much of the answer as tells the protocol; empty where the server hangs up."""
    received = b""
    with socket.create_connection((host, port), timeout=timeout_s) as plain:
        try:
            plain.sendall(question)
            while len(received) < _FIRST_BYTES and (chunk := plain.recv(64)):
                received += chunk
        except OSError:
            return received
    return received


def _fix_wire(target: OtlpTarget, answer: Answer) -> str:
    if target.endpoint.startswith("unix:"):
        return _fix_socket(target)
    host, port, tls = _where(target)
    wire = wire_of(host, port)
    grpc = target.protocol == "grpc"
    if wire in (Wire.REFUSED, Wire.UNRESOLVED, Wire.UNREACHABLE):
        return f"{wire.value} at {host}:{port}: start the receiver, or correct {_endpoint(target)}"
    if wire is Wire.TLS and not tls:
        return f"{host}:{port} speaks TLS: write https:// in {_endpoint(target)}"
    if wire in (Wire.HTTP1, Wire.HTTP2) and tls:
        insecure = " (or set OTEL_EXPORTER_OTLP_INSECURE=true)" if grpc and "://" not in target.endpoint else ""
        return f"{host}:{port} speaks plain text: write http:// in {_endpoint(target)}{insecure}"
    if wire is Wire.HTTP2 and not grpc:
        return f"{host}:{port} speaks gRPC: set {_PROTOCOL}=grpc, or use the HTTP port (usually 4318)"
    if wire is Wire.HTTP1 and grpc:
        return f"{host}:{port} speaks HTTP/1.1: set {_PROTOCOL}=http/protobuf, or use the gRPC port (usually 4317)"
    if wire is Wire.TLS:
        return _fix_tls(target, answer)
    if wire in (Wire.HTTP1, Wire.HTTP2):
        return _MAY_RECOVER
    return f"something listens at {host}:{port} that speaks neither gRPC nor HTTP"


def _fix_socket(target: OtlpTarget) -> str:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(_LOOK_TIMEOUT_S)
        try:
            probe.connect(target.endpoint.removeprefix("unix:"))
        except OSError as error:
            reason = "nobody listens" if isinstance(error, ConnectionRefusedError) else error.strerror or "no answer"
            return f"{reason} at {target.endpoint}: start the receiver, or correct {_endpoint(target)}"
    return _MAY_RECOVER


def _fix_tls(target: OtlpTarget, answer: Answer) -> str:
    reason = answer.reason.lower()
    if "certificate" in reason and "client" not in reason and "required" not in reason:
        return "set OTEL_EXPORTER_OTLP_CERTIFICATE to the PEM file of the CA that signed the server's certificate"
    if target.client_certificate is None:
        return (
            "if the server wants client certificates, set OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE and "
            "OTEL_EXPORTER_OTLP_CLIENT_KEY; if its CA is a private one, set OTEL_EXPORTER_OTLP_CERTIFICATE"
        )
    return "compare OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE, _CLIENT_KEY and _CERTIFICATE with what the server trusts"


def _fix_credentials(target: OtlpTarget) -> str:
    names = ", ".join(sorted(target.headers))
    if target.advice:
        return f"{target.advice}; the names sent are: {names}"
    if target.headers_file is not None:
        return f"correct the headers in {target.headers_file}; the names sent are: {names}"
    return f"correct {_HEADERS}; " + (f"the names sent are: {names}" if names else "no header is set")


def _fix_path(target: OtlpTarget, status: int) -> str:
    path = urlsplit(target.endpoint).path.rstrip("/")
    if path.count(_TRACES_PATH) > 1:
        if target.endpoint_variable == _TRACES_ENDPOINT:
            return f"the path holds {_TRACES_PATH} twice: write it once in {_TRACES_ENDPOINT}"
        return (
            f"the path holds {_TRACES_PATH} twice: OTEL_EXPORTER_OTLP_ENDPOINT is the base URL, to which "
            f"{_TRACES_PATH} is added"
        )
    if not path.endswith((_TRACES_PATH, *_OTHER_TRACES_PATHS)):
        return f"{_TRACES_ENDPOINT} is used as it is: let it end in {_TRACES_PATH}"
    if 300 <= status < 400:
        return f"redirects are not followed: write the final URL into {_endpoint(target)}"
    place = without_credentials(target.endpoint)
    return f"{place} is no OTLP receiver, or its path is another one: correct {_endpoint(target)}"


def _fix_unimplemented(target: OtlpTarget, answer: Answer) -> str:
    if target.compression != "none" and "compress" in answer.reason.lower():
        return "set OTEL_EXPORTER_OTLP_COMPRESSION=none"
    place = without_credentials(target.endpoint)
    return f"{place} speaks gRPC, but is no OTLP receiver of traces: correct {_endpoint(target)}"


def _endpoint(target: OtlpTarget) -> str:
    """Where the user has said the endpoint, or would say it."""
    if target.endpoint_variable is not None:
        return target.endpoint_variable
    return f"what {target.platform} is told by its own variables" if target.platform else _ANY_ENDPOINT


def _http_status(reason: str) -> int:
    number = reason.removeprefix("HTTP ")[:3]
    return int(number) if reason.startswith("HTTP ") and number.isdecimal() else 0


def _where(target: OtlpTarget) -> tuple[str, int, bool]:
    """Host, port, and whether our side speaks TLS."""
    has_scheme = "://" in target.endpoint
    parts = urlsplit(target.endpoint if has_scheme else f"//{target.endpoint}")
    tls = parts.scheme == "https" or (not has_scheme and not target.insecure)
    return parts.hostname or "localhost", parts.port or (443 if tls else 80), tls
