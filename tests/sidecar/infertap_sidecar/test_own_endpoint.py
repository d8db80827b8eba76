"""Whether an OTLP endpoint in the environment is the sidecar's own receiver."""

import pytest

from infertap.errors import ConfigError
from infertap_sidecar.address import parse_address
from infertap_sidecar.own_endpoint import points_at, refuse_own_upstream, unset_own_endpoints
from infertap_sidecar.settings import ReceiverAddresses, ServeConfig

LOOPBACK = ReceiverAddresses(parse_address("127.0.0.1:4318"), parse_address("127.0.0.1:4317"))


@pytest.mark.parametrize(
    ("endpoint", "listens", "own"),
    [
        ("http://127.0.0.1:4317", "127.0.0.1:4317", True),
        ("http://localhost:4317", "127.0.0.1:4317", True),
        ("localhost:4317", "127.0.0.1:4317", True),
        ("http://localhost:4317/v1/traces", "localhost:4317", True),
        ("http://0.0.0.0:4317", "127.0.0.1:4317", True),
        ("http://0.0.0.0:4317", "localhost:4317", True),
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


@pytest.mark.parametrize(
    ("upstream", "listens", "own"),
    [
        ("http://127.0.0.1:7875", "127.0.0.1:7875", True),
        ("http://localhost:7875", "127.0.0.1:7875", True),
        ("https://localhost:7875", "0.0.0.0:7875", True),
        ("http://0.0.0.0:7875", ":7875", True),
        ("http://[::1]:7875", "[::]:7875", True),
        ("http://127.0.0.1", "127.0.0.1:80", True),
        ("unix:/run/model.sock", "unix:/run/model.sock", True),
        ("http://127.0.0.1:8901", "127.0.0.1:7875", True),
        ("http://127.0.0.1:7876", "127.0.0.1:7875", False),
        ("http://192.0.2.7:7875", "0.0.0.0:7875", False),
        ("http://model.invalid:7875", "0.0.0.0:7875", False),
    ],
)
def test_an_upstream_that_is_the_sidecar_itself_is_refused(upstream: str, listens: str, own: bool) -> None:
    """By every name of where it listens, the operator's port 8901 included; a model server elsewhere is not."""
    config = ServeConfig(upstream=upstream, listen=listens)
    if not own:
        refuse_own_upstream(config)
        return
    with pytest.raises(ConfigError, match="is this sidecar itself"):
        refuse_own_upstream(config)
