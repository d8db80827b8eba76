"""Every standard variable has its effect on what a real receiver gets, or the start names it as having none here."""

import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from infertap.choice import choose
from infertap.clock import SystemClock
from infertap.config import Config
from infertap.destinations.otlp import OtlpDestination
from infertap.errors import RetryableError
from infertap.otel_env import OtelEnvironment
from infertap.spool.reader import Segment

FORMS = ("OTEL_EXPORTER_OTLP_", "OTEL_EXPORTER_OTLP_TRACES_")
SPAN = {
    "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736", "span_id": "00f067aa0ba902b7", "name": "n", "kind": "INTERNAL",
    "start_ns": 1, "end_ns": 2, "attributes": {"text": "x" * 3000},
}  # fmt: skip

WITHOUT_EFFECT = (
    "OTEL_BSP_SCHEDULE_DELAY",
    "OTEL_BSP_MAX_QUEUE_SIZE",
    "OTEL_BSP_MAX_EXPORT_BATCH_SIZE",
    "OTEL_BSP_EXPORT_TIMEOUT",
    "OTEL_CONFIG_FILE",
    "OTEL_ATTRIBUTE_COUNT_LIMIT",
    "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT",
    "OTEL_SPAN_EVENT_COUNT_LIMIT",
    "OTEL_SPAN_LINK_COUNT_LIMIT",
    "OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT",
    "OTEL_LINK_ATTRIBUTE_COUNT_LIMIT",
    "OTEL_PYTHON_ID_GENERATOR",
    "OTEL_PYTHON_TRACER_CONFIGURATOR",
    "OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED",
    "OTEL_PYTHON_EXPORTER_OTLP_GRPC_CREDENTIAL_PROVIDER",
    "OTEL_PYTHON_EXPORTER_OTLP_GRPC_TRACES_CREDENTIAL_PROVIDER",
    "OTEL_PYTHON_EXPORTER_OTLP_HTTP_CREDENTIAL_PROVIDER",
    "OTEL_PYTHON_EXPORTER_OTLP_HTTP_TRACES_CREDENTIAL_PROVIDER",
    "OTEL_PYTHON_EXPORTER_OTLP_GRPC_RETRYABLE_ERROR_CODES",
)

Deliver = Callable[[Mapping[str, str]], None]


@pytest.fixture
def deliver() -> Iterator[Deliver]:
    """Sends one span as the given variables say."""
    made: list[OtlpDestination] = []

    def run(variables: Mapping[str, str]) -> None:
        environment = OtelEnvironment.read(variables)
        assert environment.problems == ()
        assert environment.otlp is not None
        made.append(OtlpDestination(environment.otlp, clock=SystemClock()))
        made[-1].deliver([Segment("slot", 1, {"resource": {}}, (), (SPAN,), (), 1, 0, ())], {})

    yield run
    for destination in made:
        destination.close(deadline_s=1)


@pytest.fixture(params=FORMS, ids=["generic", "traces"])
def form(request: pytest.FixtureRequest) -> str:
    """Beginning of the variable under test."""
    return str(request.param)


def http(receiver: Any, scheme: str = "http") -> dict[str, str]:
    return {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"{scheme}://127.0.0.1:{receiver.http_port}",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
    }


def grpc(receiver: Any, scheme: str = "http://") -> dict[str, str]:
    return {"OTEL_EXPORTER_OTLP_ENDPOINT": f"{scheme}127.0.0.1:{receiver.grpc_port}"}


def test_endpoint_of_http(otlp_receiver: Any, deliver: Deliver) -> None:
    """The generic one gets the path, the traces one is used as it is and wins."""
    url = f"http://127.0.0.1:{otlp_receiver.http_port}"
    protocol = {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}
    deliver({**protocol, "OTEL_EXPORTER_OTLP_ENDPOINT": url})
    otlp_receiver.behave(path="/mine")
    deliver({**protocol, "OTEL_EXPORTER_OTLP_ENDPOINT": url, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{url}/mine"})
    assert [request["path"] for request in otlp_receiver.requests] == ["/v1/traces", "/mine"]


def test_endpoint_of_grpc(otlp_receiver: Any, deliver: Deliver, form: str) -> None:
    """Host and port count; the path that MLflow's page writes does no harm."""
    deliver({f"{form}ENDPOINT": f"http://127.0.0.1:{otlp_receiver.grpc_port}/v1/traces"})
    assert [request["transport"] for request in otlp_receiver.requests] == ["grpc"]


@pytest.mark.parametrize("scheme", ["unix:", "unix://"])
def test_endpoint_of_grpc_on_a_unix_socket(
    start_otlp_receiver: Any, deliver: Deliver, tmp_path: Path, form: str, scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As gRPC writes it, in plain text; relative to where the app was started. The probe says who does not listen."""
    with tempfile.TemporaryDirectory() as short:
        path = Path(short) / "otlp.sock"
        receiver = start_otlp_receiver("--grpc-socket", str(path))
        deliver({f"{form}ENDPOINT": f"{scheme}{path}"})
        monkeypatch.chdir(short)
        deliver({f"{form}ENDPOINT": "unix:otlp.sock"})
        assert [request["transport"] for request in receiver.requests] == ["grpc", "grpc"]
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RetryableError, match=r"No such file or directory at unix:/.*: start the receiver"):
        deliver({f"{form}ENDPOINT": "unix:nobody.sock"})


def test_protocol(otlp_receiver: Any, deliver: Deliver, form: str) -> None:
    """gRPC unless something else is said."""
    deliver(grpc(otlp_receiver))
    endpoint = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{otlp_receiver.http_port}"}
    deliver({**endpoint, f"{form}PROTOCOL": "http/protobuf"})
    assert [request["transport"] for request in otlp_receiver.requests] == ["grpc", "http"]


@pytest.mark.parametrize("of", [http, grpc])
def test_headers(otlp_receiver: Any, deliver: Deliver, form: str, of: Any) -> None:
    """Decoded, with lower-case names."""
    deliver({**of(otlp_receiver), f"{form}HEADERS": "X-Key=a%20b,authorization=Basic eA=="})
    (request,) = otlp_receiver.requests
    assert request["headers"]["x-key"] == "a b"
    assert request["headers"]["authorization"] == "Basic eA=="


@pytest.mark.parametrize("of", [http, grpc])
def test_timeout(otlp_receiver: Any, deliver: Deliver, form: str, of: Any) -> None:
    """Seconds, for one request: a receiver that never answers ends it (the test itself would wait ten minutes)."""
    otlp_receiver.behave(hang=True)
    with pytest.raises(RetryableError):
        deliver({"OTEL_EXPORTER_OTLP_TIMEOUT": "600", **of(otlp_receiver), f"{form}TIMEOUT": "1"})
    # None where a busy machine took longer to connect than the timeout.
    assert len(otlp_receiver.requests) <= 1


def test_compression(otlp_receiver: Any, deliver: Deliver, form: str) -> None:
    """gzip is asked for by name, and readable at the other end."""
    deliver(http(otlp_receiver))
    deliver({**http(otlp_receiver), f"{form}COMPRESSION": "gzip"})
    assert [request["headers"].get("content-encoding") for request in otlp_receiver.requests] == [None, "gzip"]
    assert len(otlp_receiver.spans) == 2


@pytest.mark.parametrize("of", [http, grpc])
def test_certificate(start_otlp_receiver: Any, deliver: Deliver, certificates: Path, form: str, of: Any) -> None:
    """The CA of the server; without it the server is not trusted."""
    pair = ("--certificate", str(certificates / "server.pem"), "--key", str(certificates / "server.key"))
    receiver = start_otlp_receiver(*pair)
    variables = of(receiver, "https" if of is http else "https://")
    with pytest.raises(RetryableError):
        deliver(variables)
    deliver({**variables, f"{form}CERTIFICATE": str(certificates / "ca.pem")})
    assert len(receiver.spans) == 1


@pytest.mark.parametrize("of", [http, grpc])
def test_client_certificate(start_otlp_receiver: Any, deliver: Deliver, certificates: Path, form: str, of: Any) -> None:
    """A server that wants one refuses a client without it."""
    pair = ("--certificate", str(certificates / "server.pem"), "--key", str(certificates / "server.key"))
    receiver = start_otlp_receiver(*pair, "--client-ca", str(certificates / "ca.pem"))
    variables = {
        **of(receiver, "https" if of is http else "https://"),
        "OTEL_EXPORTER_OTLP_CERTIFICATE": str(certificates / "ca.pem"),
    }
    with pytest.raises(RetryableError):
        deliver(variables)
    client = {
        f"{form}CLIENT_CERTIFICATE": str(certificates / "client.pem"),
        f"{form}CLIENT_KEY": str(certificates / "client.key"),
    }
    deliver({**variables, **client})
    assert len(receiver.spans) == 1


def test_insecure(otlp_receiver: Any, deliver: Deliver, form: str) -> None:
    """Without a scheme TLS is tried unless this is true."""
    with pytest.raises(RetryableError):
        deliver(grpc(otlp_receiver, ""))
    deliver({**grpc(otlp_receiver, ""), f"{form}INSECURE": "true"})
    assert len(otlp_receiver.spans) == 1


@pytest.mark.parametrize("variable", ["OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT", "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT"])
def test_value_length(otlp_receiver: Any, deliver: Deliver, variable: str) -> None:
    """Withheld and named where the SDK would cut."""
    deliver({**grpc(otlp_receiver), variable: "2999"})
    (span,) = otlp_receiver.spans
    assert span["attributes"]["infertap.withheld_attributes"] == ["text"]
    deliver({**grpc(otlp_receiver), variable: "3000"})
    assert otlp_receiver.spans[1]["attributes"] == {"text": "x" * 3000}


@pytest.mark.parametrize("variable", WITHOUT_EFFECT)
def test_what_has_no_effect_is_named_at_start(variable: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One warning with the variable's name, whatever the destination, and nothing else changes."""
    monkeypatch.chdir(tmp_path)
    value = "UNAVAILABLE" if variable.endswith("CODES") else "1"
    assert choose(Config(), OtelEnvironment.read({variable: value}), cwd=tmp_path).warnings == (
        f"{variable} has no effect on infertap",
    )
    endpoint = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4317"}
    choice = choose(Config(), OtelEnvironment.read({**endpoint, variable: value}), cwd=tmp_path)
    assert choice.warnings == (f"{variable} has no effect on infertap",)
    assert choice.targets == choose(Config(), OtelEnvironment.read(endpoint), cwd=tmp_path).targets


@pytest.mark.parametrize("of", [http, grpc])
def test_what_has_no_effect_does_no_harm(
    otlp_receiver: Any, deliver: Deliver, of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The exporters read these by themselves; a provider that does not exist would end them."""
    for variable in WITHOUT_EFFECT:
        if variable.endswith("CREDENTIAL_PROVIDER"):
            monkeypatch.setenv(variable, "nobody")
    monkeypatch.setenv("OTEL_PYTHON_EXPORTER_OTLP_GRPC_RETRYABLE_ERROR_CODES", "UNAVAILABLE")
    deliver(of(otlp_receiver))
    assert len(otlp_receiver.spans) == 1


def test_an_exporter_that_is_not_ours_is_named_at_start() -> None:
    """`console` beside `otlp` is the app's own business; alone it would be a misunderstanding."""
    assert OtelEnvironment.read({"OTEL_TRACES_EXPORTER": "otlp,console"}).warnings == ()
    (warning,) = OtelEnvironment.read({"OTEL_TRACES_EXPORTER": "console"}).warnings
    assert warning.startswith("OTEL_TRACES_EXPORTER")
