"""Whether an OTLP endpoint in the environment is the sidecar's own receiver."""

import pytest

from infertap_sidecar.address import parse_address
from infertap_sidecar.own_endpoint import points_at, unset_own_endpoints
from infertap_sidecar.settings import ReceiverAddresses

LOOPBACK = ReceiverAddresses(parse_address("127.0.0.1:4318"), parse_address("127.0.0.1:4317"))


@pytest.mark.parametrize(
    ("endpoint", "listens", "own"),
    [
        ("http://127.0.0.1:4317", "127.0.0.1:4317", True),
        ("http://localhost:4317", "127.0.0.1:4317", True),
        ("localhost:4317", "127.0.0.1:4317", True),
        ("http://localhost:4317/v1/traces", "localhost:4317", True),
        ("http://0.0.0.0:4317", "127.0.0.1:4317", True),
        ("http://127.0.0.1:4317", "0.0.0.0:4317", True),
        ("http://127.0.0.2:4317", "0.0.0.0:4317", True),
        ("http://[::1]:4317", "[::]:4317", True),
        ("http://127.0.0.1", "127.0.0.1:80", True),
        ("http://127.0.0.1:4318", "127.0.0.1:4317", False),
        ("http://127.0.0.2:4317", "127.0.0.1:4317", False),
        ("http://192.0.2.7:4317", "0.0.0.0:4317", False),
        ("http://collector.invalid:4317", "0.0.0.0:4317", False),
        ("http://127.0.0.1:nonsense", "127.0.0.1:4317", False),
        ("http://127.0.0.1:4317", "unix:/run/otlp.sock", False),
        ("unix:/run/otlp.sock", "unix:/run/otlp.sock", True),
        ("unix:///run/otlp.sock", "unix:/run/otlp.sock", True),
        ("unix:/run/other.sock", "unix:/run/otlp.sock", False),
        ("unix:/run/otlp.sock", "127.0.0.1:4317", False),
    ],
)
def test_an_endpoint_is_ours_where_a_connection_would_reach_us(endpoint: str, listens: str, own: bool) -> None:
    """Loopback by name and number, wildcards on both sides, and the right port."""
    assert points_at(endpoint, [parse_address(listens)]) is own


def test_own_endpoints_count_as_unset_and_others_stay() -> None:
    """Each variable by itself, and a line for each that is taken out, without its value."""
    environ = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:4318",
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://192.0.2.7:4318/v1/traces",
        "OTEL_SERVICE_NAME": "s",
    }
    (line,) = unset_own_endpoints(environ, LOOPBACK)
    assert line.startswith("OTEL_EXPORTER_OTLP_ENDPOINT points at this receiver")
    assert sorted(environ) == ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_SERVICE_NAME"]


def test_without_a_receiver_nothing_is_ours() -> None:
    """`serve` without the flags leaves the environment as it is."""
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:4318"}
    assert unset_own_endpoints(environ, ReceiverAddresses(None, None)) == []
    assert environ
