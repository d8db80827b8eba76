"""The platforms: endpoint, protocol, headers and limits from each vendor's own variables, below `OTEL_*`."""

import base64
import re
from pathlib import Path
from typing import Any, get_args

import pytest

from infertap.choice import Choice, choose
from infertap.config import Config, Platform
from infertap.errors import ConfigError, OtelConfigError
from infertap.otel_env import OtelEnvironment
from infertap.platforms import PLATFORMS
from infertap.targets import OtlpTarget, Targets

KEY = "k3y-nobody-may-see"
BASIC = f"Basic {base64.b64encode(f'123456:{KEY}'.encode()).decode()}"
COLLECTOR = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4317"}
_NEW_RELIC = {"NEW_RELIC_LICENSE_KEY": KEY}
_GRAFANA = {
    "GRAFANA_CLOUD_ZONE": "prod-eu-west-2", "GRAFANA_CLOUD_INSTANCE_ID": "123456", "GRAFANA_CLOUD_API_KEY": KEY,
}  # fmt: skip
_SPLUNK = {"SPLUNK_REALM": "us1", "SPLUNK_ACCESS_TOKEN": KEY}
_GRPC = {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}
_HTTP = {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}
_STATS = {"compute_stats": "true"}

TARGETS: list[tuple[str, dict[str, str], str, str, dict[str, str]]] = [
    # platform, variables, endpoint, protocol, headers
    ("datadog", {"DD_API_KEY": KEY}, "https://otlp.datadoghq.com/v1/traces", "http/protobuf",
     {"dd-api-key": KEY, **_STATS}),
    ("datadog", {"DD_API_KEY": KEY, "DD_SITE": "ap2.datadoghq.com"}, "https://otlp.ap2.datadoghq.com/v1/traces",
     "http/protobuf", {"dd-api-key": KEY, **_STATS}),
    ("newrelic", _NEW_RELIC, "https://otlp.nr-data.net:443/v1/traces", "http/protobuf", {"api-key": KEY}),
    ("newrelic", {"NEW_RELIC_LICENSE_KEY": f"eu01xx{KEY}"}, "https://otlp.eu01.nr-data.net:443/v1/traces",
     "http/protobuf", {"api-key": f"eu01xx{KEY}"}),
    ("newrelic", {**_NEW_RELIC, **_GRPC, "NEW_RELIC_REGION": "JP"}, "https://otlp.jp.nr-data.net:443", "grpc",
     {"api-key": KEY}),
    ("signoz", {"SIGNOZ_REGION": "in", "SIGNOZ_INGESTION_KEY": KEY}, "https://ingest.in.signoz.cloud:443/v1/traces",
     "http/protobuf", {"signoz-ingestion-key": KEY}),
    ("splunk", _SPLUNK, "https://ingest.us1.observability.splunkcloud.com/v2/trace/otlp", "http/protobuf",
     {"x-sf-token": KEY}),
    ("splunk", {**_SPLUNK, **_GRPC}, "https://ingest.us1.signalfx.com:443", "grpc", {"x-sf-token": KEY}),
    ("grafana", _GRAFANA, "https://otlp-gateway-prod-eu-west-2.grafana.net/otlp/v1/traces", "http/protobuf",
     {"authorization": BASIC}),
    ("servicenow", {"LS_ACCESS_TOKEN": KEY}, "https://ingest.lightstep.com:443", "grpc",
     {"lightstep-access-token": KEY}),
    ("servicenow", {"LIGHTSTEP_ACCESS_TOKEN": KEY, "LS_REGION": "eu", **_HTTP},
     "https://ingest.eu.lightstep.com:443/traces/otlp/v0.9", "http/protobuf", {"lightstep-access-token": KEY}),
    ("mlflow", {}, "http://localhost:5000/v1/traces", "http/protobuf", {"x-mlflow-experiment-id": "0"}),
    ("mlflow", {"MLFLOW_TRACKING_URI": "https://m:1/p/", "MLFLOW_EXPERIMENT_ID": "7", "MLFLOW_TRACKING_TOKEN": KEY},
     "https://m:1/p/v1/traces", "http/protobuf",
     {"x-mlflow-experiment-id": "7", "authorization": f"Bearer {KEY}"}),
    ("mlflow", {"MLFLOW_TRACKING_USERNAME": "123456", "MLFLOW_TRACKING_PASSWORD": KEY},
     "http://localhost:5000/v1/traces", "http/protobuf", {"x-mlflow-experiment-id": "0", "authorization": BASIC}),
    ("phoenix", {}, "http://localhost:6006/v1/traces", "http/protobuf", {}),
    ("phoenix", {"PHOENIX_COLLECTOR_ENDPOINT": "https://p/v1/traces", "PHOENIX_API_KEY": KEY}, "https://p/v1/traces",
     "http/protobuf", {"authorization": f"Bearer {KEY}"}),
    ("jaeger", {}, "http://localhost:4317", "grpc", {}),
    ("collector", _HTTP, "http://localhost:4318/v1/traces", "http/protobuf", {}),
]  # fmt: skip


@pytest.fixture(autouse=True)
def _no_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("TABLES", "DESTINATION", "PLATFORM", "CONFIG"):
        monkeypatch.delenv(f"INFERTAP_{name}", raising=False)


def chosen(platform: str, variables: dict[str, str], **settings: Any) -> Choice:
    return choose(Config(platform=platform, **settings), OtelEnvironment.read(variables), cwd=Path.cwd())


def target(platform: str, variables: dict[str, str], **settings: Any) -> OtlpTarget:
    otlp = chosen(platform, variables, **settings).targets.otlp
    assert otlp is not None
    return otlp


def test_every_value_of_the_setting_is_a_platform() -> None:
    """The setting's words and the table's keys are the same."""
    assert get_args(Platform) == tuple(PLATFORMS)


@pytest.mark.parametrize(("platform", "variables", "endpoint", "protocol", "headers"), TARGETS)
def test_vendors_variables_give_the_target(
    platform: str, variables: dict[str, str], endpoint: str, protocol: str, headers: dict[str, str]
) -> None:
    """Endpoint, protocol and headers, and nothing shows a key."""
    choice = chosen(platform, variables)
    otlp = choice.targets.otlp
    assert otlp is not None
    assert (otlp.endpoint, otlp.protocol, dict(otlp.headers)) == (endpoint, protocol, headers)
    assert otlp.limits == PLATFORMS[platform].limits
    assert KEY not in repr(choice)
    assert f"because platform = '{platform}' (argument) is set" in choice.start_line("full")


@pytest.mark.parametrize(
    ("platform", "missing"),
    [
        ("datadog", "DD_API_KEY"),
        ("newrelic", "NEW_RELIC_LICENSE_KEY"),
        ("signoz", "SIGNOZ_REGION, SIGNOZ_INGESTION_KEY"),
        ("splunk", "SPLUNK_REALM, SPLUNK_ACCESS_TOKEN"),
        ("grafana", "GRAFANA_CLOUD_ZONE, GRAFANA_CLOUD_INSTANCE_ID, GRAFANA_CLOUD_API_KEY"),
        ("servicenow", "LS_ACCESS_TOKEN"),
    ],
)
def test_what_is_missing_is_named_at_once(platform: str, missing: str) -> None:
    """One problem with all names; mistakes in `OTEL_*` come in the same list."""
    with pytest.raises(ConfigError) as raised:
        chosen(platform, {"OTEL_EXPORTER_OTLP_TIMEOUT": "soon"})
    assert not isinstance(raised.value, OtelConfigError)
    first, second = raised.value.problems
    assert first == f"platform = '{platform}' needs {missing}, not set here"
    assert second.startswith("OTEL_EXPORTER_OTLP_TIMEOUT")


@pytest.mark.parametrize(
    ("platform", "variables", "word"),
    [
        ("datadog", {"DD_API_KEY": KEY, "DD_SITE": "ddog-gov.com"}, "DD_SITE"),
        ("datadog", {"DD_API_KEY": KEY, **_GRPC}, "takes no grpc"),
        ("grafana", {**_GRAFANA, **_GRPC}, "takes no grpc"),
        ("grafana", {**_GRAFANA, "GRAFANA_CLOUD_ZONE": "x.evil.example/"}, "GRAFANA_CLOUD_ZONE"),
        ("splunk", {**_SPLUNK, "SPLUNK_REALM": "us1.evil.example"}, "SPLUNK_REALM"),
        ("signoz", {"SIGNOZ_REGION": "us@evil", "SIGNOZ_INGESTION_KEY": KEY}, "SIGNOZ_REGION"),
        ("newrelic", {**_NEW_RELIC, "NEW_RELIC_REGION": "mars"}, "NEW_RELIC_REGION"),
        ("servicenow", {"LS_ACCESS_TOKEN": KEY, "LS_REGION": "mars"}, "LS_REGION"),
        ("mlflow", {"MLFLOW_TRACKING_URI": "databricks"}, "MLFLOW_TRACKING_URI"),
        ("mlflow", {"MLFLOW_TRACKING_URI": f"http://u:{KEY}@m"}, "MLFLOW_TRACKING_URI"),
        ("mlflow", {"MLFLOW_TRACKING_USERNAME": "u"}, "MLFLOW_TRACKING_PASSWORD"),
        ("phoenix", {"PHOENIX_API_KEY": f"{KEY}\nx"}, "no header can carry"),
    ],
)
def test_what_cannot_be_is_a_problem_without_the_key(platform: str, variables: dict[str, str], word: str) -> None:
    """No key leaves for a host that somebody slipped into a region, and none stands in the words."""
    with pytest.raises(ConfigError, match=re.escape(word)) as raised:
        chosen(platform, variables)
    assert KEY not in str(raised.value)


def test_plain_variables_always_win() -> None:
    """Each of them beats the platform's part, and the rest stays."""
    variables = {
        **_SPLUNK,
        "OTEL_EXPORTER_OTLP_HEADERS": "x-sf-token=mine,x-more=1",
        "OTEL_EXPORTER_OTLP_COMPRESSION": "none",
        "OTEL_EXPORTER_OTLP_TIMEOUT": "3",
    }
    otlp = target("splunk", variables)
    assert dict(otlp.headers) == {"x-sf-token": "mine", "x-more": "1"}
    assert (otlp.compression, otlp.timeout_s) == ("none", 3.0)
    assert target("splunk", _SPLUNK).compression == "gzip"


@pytest.mark.parametrize("platform", PLATFORMS)
def test_an_endpoint_of_the_standard_variables_gets_no_vendors_key(platform: str) -> None:
    """Of the platform the limits stay, nothing is missing, and the start says which key is not sent."""
    variables = {**COLLECTOR, **dict.fromkeys(PLATFORMS[platform].secrets, KEY)}
    choice = chosen(platform, variables)
    otlp = choice.targets.otlp
    assert otlp is not None
    assert (otlp.endpoint, otlp.protocol, otlp.headers) == ("http://collector:4317", "grpc", {})
    assert otlp.limits == PLATFORMS[platform].limits
    assert KEY not in str(otlp.headers)
    said = [warning for warning in choice.warnings if "is not sent there" in warning]
    assert len(said) == bool(PLATFORMS[platform].secrets)
    assert chosen(platform, COLLECTOR).kind == "otlp"


def test_a_key_that_comes_by_other_means_is_not_missing() -> None:
    """A header of the standard variables, or a file of headers, stands in for the vendor's key."""
    realm = {"SPLUNK_REALM": "us1"}
    assert target("splunk", {**realm, "OTEL_EXPORTER_OTLP_HEADERS": "x-sf-token=mine"}).headers == {
        "x-sf-token": "mine"
    }
    otlp = target("splunk", realm, otlp_headers_file="headers")
    assert (otlp.headers, otlp.headers_file) == ({}, str(Path.cwd() / "headers"))
    zone = {"GRAFANA_CLOUD_ZONE": "prod-eu-west-2", "OTEL_EXPORTER_OTLP_HEADERS": f"authorization={BASIC}"}
    assert target("grafana", zone).headers == {"authorization": BASIC}


def test_tables_beside_a_platform_are_a_conflict() -> None:
    """OTLP wins under `auto`, and the warning names both settings."""
    choice = chosen("jaeger", {}, tables="./t")
    assert (choice.kind, choice.targets.table) == ("otlp", None)
    assert choice.conflict is not None
    assert "platform = 'jaeger' (argument) wins" in choice.conflict
    assert "tables = './t'" in choice.conflict


@pytest.mark.parametrize(
    ("settings", "variables", "kind", "warned"),
    [
        ({"destination": "table"}, {}, "table", True),
        ({"destination": "both"}, {}, "both", False),
        ({}, {"OTEL_TRACES_EXPORTER": "none"}, "table", False),
        ({}, {"MLFLOW_ENABLE_OTLP_EXPORTER": "false"}, "otlp", False),
        ({}, {"MLFLOW_TRACE_ENABLE_OTLP_DUAL_EXPORT": "true"}, "both", False),
    ],
)
def test_the_destination_rule_with_a_platform(
    settings: dict[str, Any], variables: dict[str, str], kind: str, warned: bool
) -> None:
    """An explicit destination wins; what switches OTLP off switches it off; MLflow's own switch is not about us."""
    choice = chosen("jaeger", variables, **settings)
    assert choice.kind == kind
    assert any("platform = 'jaeger' has no effect" in warning for warning in choice.warnings) is warned


def test_with_tables_only_nothing_is_missing() -> None:
    """The platform's variables do not matter where nothing goes there."""
    assert chosen("grafana", {}, destination="table").kind == "table"


def test_resource_attributes_of_the_vendors_variables() -> None:
    """What a platform groups by goes along where the process itself says nothing."""
    variables = {"DD_API_KEY": KEY, "DD_ENV": "prod", "DD_SERVICE": "ranker"}
    assert target("datadog", variables).resource == {
        "service.name": "ranker", "deployment.environment.name": "prod", "deployment.environment": "prod",
    }  # fmt: skip
    assert target("phoenix", {"PHOENIX_PROJECT_NAME": "p"}).resource == {"openinference.project.name": "p"}


def test_another_instance_of_grafana_is_another_folder() -> None:
    """Its number tells tenants apart and is no secret; a new token finds the same folder."""
    spool = Path("/spool")

    def folder(instance: str, token: str) -> str:
        variables = {**_GRAFANA, "GRAFANA_CLOUD_INSTANCE_ID": instance, "GRAFANA_CLOUD_API_KEY": token}
        return Targets(otlp=target("grafana", variables)).fingerprint(spool)

    assert folder("1", "a") == folder("1", "b")
    assert folder("1", "a") != folder("2", "a")


@pytest.mark.parametrize("platform", PLATFORMS)
def test_the_drainer_is_told_everything(platform: str) -> None:
    """A target survives the way through the pipe, limits included."""
    variables = {**_GRAFANA, **_SPLUNK, **_NEW_RELIC, "DD_API_KEY": KEY, "LS_ACCESS_TOKEN": KEY}
    signoz = {"SIGNOZ_REGION": "us", "SIGNOZ_INGESTION_KEY": KEY}
    targets = chosen(platform, {**variables, **signoz}).targets
    assert Targets.from_json(targets.to_json()) == targets
