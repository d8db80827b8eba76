"""The probe names the classic mistakes and their fix, against real servers."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from infertap.destinations.otlp_probe import Wire, probe, wire_of
from infertap.otel_env import OtelEnvironment
from infertap.targets import OtlpTarget, Targets


def http_target(port: int, path: str = "/v1/traces", scheme: str = "http", **changes: Any) -> OtlpTarget:
    """http/protobuf at a port of this machine."""
    return OtlpTarget(f"{scheme}://127.0.0.1:{port}{path}", "http/protobuf", timeout_s=60, **changes)


def grpc_target(port: int, scheme: str = "http://", **changes: Any) -> OtlpTarget:
    """grpc at a port of this machine."""
    return OtlpTarget(f"{scheme}127.0.0.1:{port}", "grpc", timeout_s=60, **changes)


def test_good_endpoints_are_accepted(otlp_receiver: Any) -> None:
    """Both protocols answer an empty request."""
    for target in (http_target(otlp_receiver.http_port), grpc_target(otlp_receiver.grpc_port)):
        assert probe(target).ok
    assert otlp_receiver.spans == []


def test_http_to_the_grpc_port(otlp_receiver: Any) -> None:
    """MLflow's own sample has this mistake: http/protobuf to 4317."""
    result = probe(http_target(otlp_receiver.grpc_port))
    assert not result.ok
    assert "speaks gRPC: set OTEL_EXPORTER_OTLP_PROTOCOL=grpc" in result.fix


def test_grpc_to_an_http_port(otlp_receiver: Any) -> None:
    """And the other way around."""
    result = probe(grpc_target(otlp_receiver.http_port))
    assert not result.ok
    assert "speaks HTTP/1.1: set OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf" in result.fix


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/v1/traces/v1/traces", "holds /v1/traces twice"),
        ("/", "let it end in /v1/traces"),
        ("", "let it end in /v1/traces"),
        ("/otlp", "let it end in /v1/traces"),
        ("/other/v1/traces", "is no OTLP receiver, or its path is another one: correct"),
    ],
)
def test_wrong_path(otlp_receiver: Any, path: str, words: str) -> None:
    """A doubled or missing /v1/traces is named."""
    result = probe(http_target(otlp_receiver.http_port, path))
    assert not result.ok
    assert "404" in result.problem
    assert words in result.fix


@contextmanager
def file_server() -> Iterator[int]:
    """`python -m http.server`; its port."""
    with ThreadingHTTPServer(("127.0.0.1", 0), SimpleHTTPRequestHandler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def test_a_server_that_is_no_receiver_will_not_recover() -> None:
    """A server of files answers 501 to any POST: another address is wanted, in the variable that holds this one."""
    name = "OTEL_EXPORTER_OTLP_ENDPOINT"
    with file_server() as port:
        result = probe(http_target(port, endpoint_variable=name))
    url = f"http://127.0.0.1:{port}/v1/traces"
    assert result.line == f"HTTP 501; {url} is no OTLP receiver, or its path is another one: correct {name}"


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (404, "is no OTLP receiver, or its path is another one"),
        (405, "is no OTLP receiver, or its path is another one"),
        (501, "is no OTLP receiver, or its path is another one"),
        (415, "the receiver's own log says"),
        (429, "the receiver is there and may recover"),
        (500, "the receiver is there and may recover"),
        (503, "the receiver is there and may recover"),
    ],
)
def test_who_may_recover_and_who_will_not(otlp_receiver: Any, status: int, words: str) -> None:
    """By the status alone; what is tried again is decided elsewhere, and was before."""
    otlp_receiver.behave(http_status=status)
    assert words in probe(http_target(otlp_receiver.http_port)).fix


def test_a_grpc_server_of_something_else(otlp_receiver: Any) -> None:
    """It knows no such service; where it only does not know the compression, that is said."""
    otlp_receiver.behave(grpc_code="UNIMPLEMENTED", details="unknown service")
    fix = probe(grpc_target(otlp_receiver.grpc_port)).fix
    assert "speaks gRPC, but is no OTLP receiver of traces: correct OTEL_EXPORTER_OTLP_TRACES_ENDPOINT (or" in fix
    otlp_receiver.behave(grpc_code="UNIMPLEMENTED", details="Decompressor is not installed for grpc-encoding gzip")
    fix = probe(grpc_target(otlp_receiver.grpc_port, compression="gzip")).fix
    assert fix == "set OTEL_EXPORTER_OTLP_COMPRESSION=none"


@pytest.mark.parametrize("name", ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"])
@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_the_variable_that_was_set_is_the_one_to_correct(
    free_port: Callable[[], int], name: str, protocol: str
) -> None:
    """As the environment says it, also where a platform stands beside; without one, a platform's own, or both names."""
    environ = {"OTEL_EXPORTER_OTLP_PROTOCOL": protocol, name: f"http://127.0.0.1:{free_port()}"}
    for platform in (None, "grafana"):
        target = OtelEnvironment.read(environ, platform=platform).otlp
        assert target is not None
        assert probe(target).fix.endswith(f"start the receiver, or correct {name}")
    unset = http_target(free_port())
    assert probe(unset).fix.endswith("correct OTEL_EXPORTER_OTLP_TRACES_ENDPOINT (or OTEL_EXPORTER_OTLP_ENDPOINT)")
    assert probe(replace(unset, platform="phoenix")).fix.endswith("correct what phoenix is told by its own variables")


def test_the_name_of_a_variable_makes_no_other_destination(tmp_path: Path) -> None:
    """The same endpoint by the other variable finds the same spool, with the same `destination.json`."""
    one, other = (Targets(otlp=http_target(4318, endpoint_variable=name)) for name in ("A", "B"))
    assert one == other
    assert one.fingerprint(tmp_path) == other.fingerprint(tmp_path)
    assert one.description(tmp_path) == other.description(tmp_path)


@pytest.mark.parametrize("status", [401, 403])
def test_credentials(otlp_receiver: Any, status: int) -> None:
    """The names of the headers are given, never their values."""
    code = {401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED"}[status]
    otlp_receiver.behave(http_status=status, grpc_code=code)
    for target in (
        http_target(otlp_receiver.http_port, headers={"api-key": "s3cr3t"}),
        grpc_target(otlp_receiver.grpc_port, headers={"api-key": "s3cr3t"}),
    ):
        result = probe(target)
        assert result.fix == "correct OTEL_EXPORTER_OTLP_HEADERS; the names sent are: api-key"
        assert "s3cr3t" not in result.line


def test_no_header_is_said(otlp_receiver: Any) -> None:
    """Without any header the fix says so."""
    otlp_receiver.behave(http_status=401)
    assert probe(http_target(otlp_receiver.http_port)).fix.endswith("no header is set")


def test_redirect_and_login_page(otlp_receiver: Any) -> None:
    """Both are seen for what they are."""
    otlp_receiver.behave(http_status=308, headers={"location": "https://h/v1/traces"})
    result = probe(http_target(otlp_receiver.http_port))
    assert "redirected to https://h/v1/traces; redirects are not followed" in result.line
    otlp_receiver.behave(content_type="text/html", body="<html>")
    assert "HTML page" in probe(http_target(otlp_receiver.http_port)).problem


def test_tls_to_a_plain_port(otlp_receiver: Any) -> None:
    """https:// or no scheme at a plain port."""
    for target in (
        http_target(otlp_receiver.http_port, scheme="https"),
        grpc_target(otlp_receiver.grpc_port, "https://"),
        grpc_target(otlp_receiver.grpc_port, ""),
    ):
        assert "speaks plain text: write http://" in probe(target).fix
    assert "INSECURE=true" in probe(grpc_target(otlp_receiver.grpc_port, "")).fix


def test_plain_to_a_tls_port(start_otlp_receiver: Callable[..., Any], certificates: Path) -> None:
    """http:// at a TLS port, and a CA that nobody trusts."""
    receiver = start_otlp_receiver(
        "--certificate", str(certificates / "server.pem"), "--key", str(certificates / "server.key")
    )
    for target in (http_target(receiver.http_port), grpc_target(receiver.grpc_port)):
        assert "speaks TLS: write https://" in probe(target).fix
    for target in (http_target(receiver.http_port, scheme="https"), grpc_target(receiver.grpc_port, "https://")):
        assert "OTEL_EXPORTER_OTLP_CERTIFICATE" in probe(target).fix


def test_nobody_listens(free_port: Callable[[], int]) -> None:
    """A closed port is named as such."""
    for target in (http_target(free_port()), grpc_target(free_port())):
        assert "nobody listens at 127.0.0.1:" in probe(target).fix


def test_host_that_does_not_exist() -> None:
    """A name that cannot be resolved is named as such."""
    for target in (
        OtlpTarget("http://no-such-host.invalid:4318/v1/traces", "http/protobuf", timeout_s=60),
        OtlpTarget("http://no-such-host.invalid:4317", "grpc", timeout_s=60),
    ):
        assert "cannot be resolved" in probe(target).fix


def test_missing_certificate(tmp_path: Path) -> None:
    """A certificate file that is not there is a result, not an exception."""
    result = probe(http_target(1, scheme="https", certificate=str(tmp_path / "none.pem")))
    assert not result.ok
    assert "none.pem" in result.fix


def test_port_that_speaks_something_else() -> None:
    """A port that accepts and hangs up speaks nothing that we know."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def hang_up() -> None:
            for _ in range(3):
                server.accept()[0].close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        assert wire_of("127.0.0.1", server.getsockname()[1]) is Wire.SILENT
        thread.join()


def test_a_receiver_that_refuses_an_empty_request_is_reached(otlp_receiver: Any) -> None:
    """MLflow answers 400 to a request without spans: no false alarm; 422 (a header is missing there) is one."""
    target = OtlpTarget(f"http://127.0.0.1:{otlp_receiver.http_port}/v1/traces", "http/protobuf")
    otlp_receiver.behave(http_status=400)
    assert (probe(target).ok, probe(target).line) == (True, "reached (HTTP 400 to an empty request)")
    otlp_receiver.behave(http_status=422)
    assert not probe(target).ok
