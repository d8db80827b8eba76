"""The watched exporters: every setting works on the wire, no secret gets into a text, only one exporter is imported."""

import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
import requests
from opentelemetry.sdk.resources import Resource

from infertap.destinations.otlp_exporters import Answer, Verdict, connect, scrub
from infertap.destinations.otlp_grpc import answer_of_error, is_insecure
from infertap.destinations.otlp_http import answer_of_failure, answer_of_response
from infertap.destinations.readable_spans import readable_span
from infertap.targets import OtlpTarget

SPAN = readable_span(
    {
        "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
        "span_id": "00f067aa0ba902b7",
        "name": "one",
        "kind": "SERVER",
        "start_ns": 1,
        "end_ns": 2,
    },
    Resource({}),
)
PROTOCOLS = ["grpc", "http/protobuf"]


def target_of(receiver: Any, protocol: str, scheme: str = "http", **changes: Any) -> OtlpTarget:
    """The receiver as a target."""
    if protocol == "grpc":
        endpoint = f"{scheme}://127.0.0.1:{receiver.grpc_port}"
    else:
        endpoint = f"{scheme}://127.0.0.1:{receiver.http_port}/v1/traces"
    return OtlpTarget(**{"endpoint": endpoint, "protocol": protocol, "timeout_s": 60.0, **changes})


def export_once(target: OtlpTarget) -> Answer:
    """One span to the target."""
    export = connect(target)
    try:
        return export.export([SPAN])
    finally:
        export.close()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_headers_are_sent(otlp_receiver: Any, protocol: str) -> None:
    """The target's headers arrive, whatever the case of their names."""
    answer = export_once(target_of(otlp_receiver, protocol, headers={"Api-Key": "k-1", "x-scope-orgid": "t"}))
    assert answer == Answer(Verdict.ACCEPTED)
    (request,) = otlp_receiver.requests
    assert (request["headers"]["api-key"], request["headers"]["x-scope-orgid"]) == ("k-1", "t")
    assert request["headers"]["user-agent"].startswith("OTel-OTLP-Exporter-Python/")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_environment_does_not_leak_in(
    otlp_receiver: Any, protocol: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Only the target counts: the variables of this process change no endpoint, header, timeout or compression."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "stale=1")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "stale=1,Authorization: Basic s3cr3t")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "none")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "deflate")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_INSECURE", "false")
    with caplog.at_level(logging.DEBUG):
        assert export_once(target_of(otlp_receiver, protocol, headers={"a": "1"})).verdict is Verdict.ACCEPTED
    (request,) = otlp_receiver.requests
    assert request["headers"]["a"] == "1"
    assert not {"stale", "authorization", "content-encoding", "grpc-encoding"} & set(request["headers"])
    assert "s3cr3t" not in caplog.text


@pytest.mark.parametrize(
    ("protocol", "compression"),
    [
        ("grpc", "none"),
        ("grpc", "gzip"),
        ("http/protobuf", "none"),
        ("http/protobuf", "gzip"),
        ("http/protobuf", "deflate"),
    ],
)
def test_compression(otlp_receiver: Any, protocol: str, compression: str) -> None:
    """Each compression arrives readable; `none` is no error for gRPC."""
    assert export_once(target_of(otlp_receiver, protocol, compression=compression)).verdict is Verdict.ACCEPTED
    (request,) = otlp_receiver.requests
    assert [span["name"] for span in request["spans"]] == ["one"]
    if protocol != "grpc":
        assert request["headers"].get("content-encoding", "none") == compression


def test_path_and_query_are_used_as_they_are(otlp_receiver: Any) -> None:
    """Nothing is appended to an HTTP endpoint."""
    otlp_receiver.behave(path="/v2/trace/otlp")
    endpoint = f"http://127.0.0.1:{otlp_receiver.http_port}/v2/trace/otlp?realm=us1"
    assert export_once(OtlpTarget(endpoint, "http/protobuf")).verdict is Verdict.ACCEPTED
    assert otlp_receiver.requests[0]["path"] == "/v2/trace/otlp?realm=us1"


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_certificate(
    start_otlp_receiver: Callable[..., Any], certificates: Path, protocol: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A private CA is trusted only where CERTIFICATE names it, also where requests has a bundle of its own."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", requests.certs.where())
    receiver = start_otlp_receiver(
        "--certificate", str(certificates / "server.pem"), "--key", str(certificates / "server.key")
    )
    assert export_once(target_of(receiver, protocol, "https")).verdict is not Verdict.ACCEPTED
    assert receiver.requests == []
    ca = str(certificates / "ca.pem")
    assert export_once(target_of(receiver, protocol, "https", certificate=ca)).verdict is Verdict.ACCEPTED


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_client_certificate(start_otlp_receiver: Callable[..., Any], certificates: Path, protocol: str) -> None:
    """A server that wants a client certificate gets it, and refuses without."""
    options = {"certificate": "server.pem", "key": "server.key", "client-ca": "ca.pem"}
    receiver = start_otlp_receiver(*(text for k, v in options.items() for text in (f"--{k}", str(certificates / v))))
    ca = {"certificate": str(certificates / "ca.pem")}
    assert export_once(target_of(receiver, protocol, "https", **ca)).verdict is not Verdict.ACCEPTED
    pair = {"client_certificate": str(certificates / "client.pem"), "client_key": str(certificates / "client.key")}
    assert export_once(target_of(receiver, protocol, "https", **ca, **pair)).verdict is Verdict.ACCEPTED


def test_client_certificate_without_a_ca(
    start_otlp_receiver: Callable[..., Any], certificates: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """gRPC sends the client certificate also where CERTIFICATE is not set (the stock exporter does not)."""
    options = {"certificate": "server.pem", "key": "server.key", "client-ca": "ca.pem"}
    receiver = start_otlp_receiver(*(text for k, v in options.items() for text in (f"--{k}", str(certificates / v))))
    code = (
        "import sys; from infertap.destinations.otlp_exporters import connect\n"
        "from infertap.targets import OtlpTarget\n"
        "target = OtlpTarget(sys.argv[1], 'grpc', client_certificate=sys.argv[2], client_key=sys.argv[3])\n"
        "export = connect(target); print(export.export([]).verdict); export.close()"
    )
    # gRPC's own variable stands for the system's CAs, which a test must not change.
    monkeypatch.setenv("GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", str(certificates / "ca.pem"))
    arguments = [str(certificates / "client.pem"), str(certificates / "client.key")]
    command = [sys.executable, "-c", code, f"https://127.0.0.1:{receiver.grpc_port}", *arguments]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert result.stdout.strip() == "accepted", result.stderr


def test_missing_certificate_is_an_os_error(tmp_path: Path) -> None:
    """A file that is not there is reported at once, not as a failing handshake."""
    for protocol in PROTOCOLS:
        with pytest.raises(FileNotFoundError):
            connect(OtlpTarget("https://127.0.0.1:1", protocol, certificate=str(tmp_path / "none.pem")))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_secrets_are_in_no_answer_and_no_log(
    otlp_receiver: Any, protocol: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A receiver that repeats our token does not get it into an error text; the exporters log nothing."""
    otlp_receiver.behave(
        http_status=401,
        content_type="text/plain",
        body="bad token s3cr3t-t0ken",
        grpc_code="UNAUTHENTICATED",
        details="bad token s3cr3t-t0ken",
    )
    with caplog.at_level(logging.DEBUG, logger="opentelemetry"):
        answer = export_once(target_of(otlp_receiver, protocol, headers={"authorization": "Bearer s3cr3t-t0ken"}))
    assert answer.verdict is Verdict.MISCONFIGURED
    assert "bad token ***" in answer.reason
    assert "s3cr3t" not in caplog.text
    assert caplog.records == []


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_header_that_cannot_be_sent_loses_no_span(otlp_receiver: Any, protocol: str) -> None:
    """A header with a line break is a wrong setting, not a wrong span, and is not repeated in the reason."""
    answer = export_once(target_of(otlp_receiver, protocol, headers={"api-key": "s3cr3t\nx"}))
    assert answer.verdict is Verdict.MISCONFIGURED
    assert "s3cr3t" not in answer.reason


def test_exceptions_of_requests_do_not_show_the_query() -> None:
    """The texts of requests' exceptions hold the URL; ours do not."""
    with pytest.raises(requests.ConnectionError) as raised:
        requests.post("http://127.0.0.1:1/v1/traces?api_key=s3cr3t", timeout=60)
    assert "s3cr3t" in str(raised.value)
    assert answer_of_failure(raised.value) == Answer(Verdict.UNAVAILABLE, "connection refused")


@pytest.mark.parametrize(
    ("status", "verdict"),
    [
        (200, Verdict.ACCEPTED),
        (202, Verdict.ACCEPTED),
        (204, Verdict.ACCEPTED),
        (301, Verdict.MISCONFIGURED),
        (400, Verdict.REFUSED),
        (401, Verdict.MISCONFIGURED),
        (403, Verdict.MISCONFIGURED),
        (404, Verdict.MISCONFIGURED),
        (405, Verdict.MISCONFIGURED),
        (408, Verdict.UNAVAILABLE),
        (413, Verdict.TOO_LARGE),
        (415, Verdict.MISCONFIGURED),
        (422, Verdict.REFUSED),
        (429, Verdict.UNAVAILABLE),
        (500, Verdict.UNAVAILABLE),
        (502, Verdict.UNAVAILABLE),
        (504, Verdict.UNAVAILABLE),
    ],
)
def test_meaning_of_a_status(status: int, verdict: Verdict) -> None:
    """Each status has one meaning, and the reason names it."""
    answer = answer_of_response(status, {}, b"")
    assert answer.verdict is verdict
    assert verdict is Verdict.ACCEPTED or str(status) in answer.reason


def test_retry_after_may_be_a_date() -> None:
    """A date in the past is 0 seconds, nonsense is no delay."""
    for value, seconds in (("Wed, 21 Oct 2015 07:28:00 GMT", 0.0), ("2.5", 2.5), ("soon", None), ("inf", None)):
        assert answer_of_response(503, {"retry-after": value}, b"").retry_after_s == seconds


def test_scheme_decides_over_insecure() -> None:
    """The scheme decides whatever INSECURE says; without one INSECURE does, and TLS is the default."""
    cases = [
        ("http://h:1", None, True),
        ("http://h:1", False, True),
        ("https://h:1", True, False),
        ("h:1", None, False),
        ("h:1", True, True),
        ("h:1", False, False),
    ]
    for endpoint, insecure, plain in cases:
        assert is_insecure(OtlpTarget(endpoint, "grpc", insecure=insecure)) is plain


def test_insecure_endpoint_without_a_scheme_works(otlp_receiver: Any) -> None:
    """host:port with INSECURE=true reaches a plain server; without it TLS is tried."""
    endpoint = f"127.0.0.1:{otlp_receiver.grpc_port}"
    assert export_once(OtlpTarget(endpoint, "grpc", insecure=True)).verdict is Verdict.ACCEPTED
    assert export_once(OtlpTarget(endpoint, "grpc")).verdict is Verdict.UNAVAILABLE


@pytest.mark.parametrize(
    ("protocol", "absent"), [("grpc", "requests"), ("http/protobuf", "grpc")], ids=["grpc", "http"]
)
def test_only_the_configured_exporter_is_imported(protocol: str, absent: str) -> None:
    """gRPC is not imported for HTTP, nor requests for gRPC; and neither before `open`."""
    code = (
        "import sys; from infertap.destinations.otlp import OtlpDestination; from infertap.clock import SystemClock\n"
        "from infertap.targets import OtlpTarget\n"
        f"one = OtlpDestination(OtlpTarget('http://127.0.0.1:1/v1/traces', {protocol!r}), clock=SystemClock())\n"
        "assert not {'grpc', 'requests', 'google.protobuf'} & set(sys.modules)\n"
        "one.open()\n"
        f"assert {absent!r} not in sys.modules\n"
        "assert 'google.protobuf' in sys.modules\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stderr


def test_scrub() -> None:
    """Secrets, control characters and length go."""
    assert scrub("key Basic abcd1234\x00\nnext", ["Basic abcd1234"]) == "key *** next"
    assert len(scrub("x" * 1000, [])) < 200


def test_codes_of_grpc_that_mean_too_large() -> None:
    """RESOURCE_EXHAUSTED is a matter of size only if it says so and names no delay."""

    class Error:
        def __init__(self, code: grpc.StatusCode, details: str) -> None:
            self._answer = (code, details)

        def code(self) -> grpc.StatusCode:
            return self._answer[0]

        def details(self) -> str:
            return self._answer[1]

        def trailing_metadata(self) -> tuple[()]:
            return ()

    large = "Received message larger than max (5242900 vs. 4194304)"
    assert answer_of_error(Error(grpc.StatusCode.RESOURCE_EXHAUSTED, large)).verdict is Verdict.TOO_LARGE
    rotel = "Error, decoded message length too large"
    assert answer_of_error(Error(grpc.StatusCode.OUT_OF_RANGE, rotel)).verdict is Verdict.TOO_LARGE
    assert answer_of_error(Error(grpc.StatusCode.RESOURCE_EXHAUSTED, "quota")).verdict is Verdict.UNAVAILABLE
