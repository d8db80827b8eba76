"""What each observability platform wants: endpoint, protocol, headers and limits, from that vendor's own variables.

1. A platform is a layer of defaults below the standard `OTEL_*` variables, which always win.
2. A vendor's key goes to that vendor's endpoint only: where `OTEL_*` names the endpoint, just the limits are left.
3. Nothing here is sent or read but the given environment, and no text holds a key.
"""

import base64
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from infertap.targets import OtlpLimits

DATADOG_SITES = ("datadoghq.com", "us3.datadoghq.com", "us5.datadoghq.com", "datadoghq.eu", "ap1.datadoghq.com",
                 "ap2.datadoghq.com")  # fmt: skip
_NEW_RELIC_HOSTS = {
    "us": "otlp.nr-data.net", "eu": "otlp.eu01.nr-data.net", "jp": "otlp.jp.nr-data.net", "gov": "gov-otlp.nr-data.net",
}  # fmt: skip
_SERVICENOW_HOSTS = {"us": "ingest.lightstep.com:443", "eu": "ingest.eu.lightstep.com:443"}

_LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?")


@dataclass(slots=True)
class Draft:
    """What one platform makes of the environment."""

    environ: Mapping[str, str]
    protocol: str
    has_headers: Callable[[str], bool]
    """Whether the user brings this header (lower case) by other means, so that no key is missing."""
    endpoint: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    tenant: str | None = None
    problems: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    def get(self, *variables: str) -> str:
        """The first of the variables that is set, or nothing."""
        return next((value for name in variables if (value := self.environ.get(name, "").strip())), "")

    def need(self, *variables: str) -> str:
        """As `get`; where none is set, the first one is missing."""
        value = self.get(*variables)
        if not value:
            self.missing.append(variables[0])
        return value

    def key(self, header: str, *variables: str) -> None:
        """A header whose value is the vendor's key."""
        if not self.has_headers(header):
            self.headers[header] = self.need(*variables)

    def label(self, value: str, variable: str, default: str) -> str:
        """A part of a host name; anything else would send the key to another host."""
        if value and not _LABEL.fullmatch(value):
            self.problems.append(f"{variable}: {value!r} cannot be part of a host name")
            return default
        return value or default

    def region(self, hosts: Mapping[str, str], value: str, variable: str) -> str:
        """The host of a region; an unknown one is a problem."""
        if value.lower() not in hosts:
            self.problems.append(f"{variable}: {value!r} is none of {', '.join(hosts)}")
        return hosts.get(value.lower(), next(iter(hosts.values())))


@dataclass(frozen=True, slots=True)
class Platform:
    """One vendor or product."""

    fill: Callable[[Draft], None]
    """Sets endpoint, headers and tenant."""
    secrets: tuple[str, ...] = ()
    """Variables that hold credentials."""
    variables: tuple[str, ...] = ()
    """Further variables that count."""
    protocols: tuple[str, ...] = ("http/protobuf", "grpc")
    """What the vendor's own endpoint takes, the default first."""
    compression: str = "gzip"
    limits: OtlpLimits = field(default_factory=OtlpLimits)
    resource: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Variable to the resource attributes that it fills."""
    content_style: str = "openinference"
    """See `OtlpTarget.content_style`."""
    advice: str = ""
    """What to look at where the platform refuses the credentials."""
    warning: str = ""
    """Said at every start."""


def _datadog(draft: Draft) -> None:
    site = draft.get("DD_SITE") or DATADOG_SITES[0]
    if site not in DATADOG_SITES:
        draft.problems.append(
            f"DD_SITE: {site!r} has no OTLP intake that is known; known are {', '.join(DATADOG_SITES)}"
        )
    draft.endpoint = f"https://otlp.{site}/v1/traces"
    draft.headers["compute_stats"] = "true"
    draft.key("dd-api-key", "DD_API_KEY")


def _newrelic(draft: Draft) -> None:
    key = draft.get("NEW_RELIC_LICENSE_KEY")
    # A license key of another region than the US begins with that region's name and an x.
    from_key = "eu" if key.startswith("eu01x") else "jp" if key.startswith("jp") and "x" in key[:6] else "us"
    host = draft.region(_NEW_RELIC_HOSTS, draft.get("NEW_RELIC_REGION") or from_key, "NEW_RELIC_REGION")
    draft.endpoint = f"https://{host}:443" + ("/v1/traces" if draft.protocol == "http/protobuf" else "")
    draft.key("api-key", "NEW_RELIC_LICENSE_KEY")


def _signoz(draft: Draft) -> None:
    region = draft.label(draft.need("SIGNOZ_REGION"), "SIGNOZ_REGION", "us")
    base = f"https://ingest.{region}.signoz.cloud:443"
    draft.endpoint = base + ("/v1/traces" if draft.protocol == "http/protobuf" else "")
    draft.key("signoz-ingestion-key", "SIGNOZ_INGESTION_KEY")


def _splunk(draft: Draft) -> None:
    realm = draft.label(draft.need("SPLUNK_REALM"), "SPLUNK_REALM", "us0")
    if draft.protocol == "grpc":
        draft.endpoint = f"https://ingest.{realm}.signalfx.com:443"
    else:
        draft.endpoint = f"https://ingest.{realm}.observability.splunkcloud.com/v2/trace/otlp"
    draft.key("x-sf-token", "SPLUNK_ACCESS_TOKEN")


def _grafana(draft: Draft) -> None:
    zone = draft.label(draft.need("GRAFANA_CLOUD_ZONE"), "GRAFANA_CLOUD_ZONE", "prod-us-central-0")
    draft.endpoint = f"https://otlp-gateway-{zone}.grafana.net/otlp/v1/traces"
    if not draft.has_headers("authorization"):
        instance, token = draft.need("GRAFANA_CLOUD_INSTANCE_ID"), draft.need("GRAFANA_CLOUD_API_KEY")
        draft.headers["authorization"] = _basic(instance, token)
        draft.tenant = instance or None


def _servicenow(draft: Draft) -> None:
    host = draft.region(_SERVICENOW_HOSTS, draft.get("LS_REGION") or "us", "LS_REGION")
    path = "/traces/otlp/v0.9" if draft.protocol == "http/protobuf" else ""
    draft.endpoint = f"https://{host}{path}"
    draft.key("lightstep-access-token", "LS_ACCESS_TOKEN", "LIGHTSTEP_ACCESS_TOKEN")


def _mlflow(draft: Draft) -> None:
    draft.endpoint = f"{_base_url(draft, 'MLFLOW_TRACKING_URI', 'http://localhost:5000')}/v1/traces"
    if not draft.has_headers("x-mlflow-experiment-id"):
        draft.headers["x-mlflow-experiment-id"] = draft.get("MLFLOW_EXPERIMENT_ID") or "0"
    if draft.has_headers("authorization"):
        return
    token, user = draft.get("MLFLOW_TRACKING_TOKEN"), draft.get("MLFLOW_TRACKING_USERNAME")
    if token:
        draft.headers["authorization"] = f"Bearer {token}"
    elif user:
        draft.headers["authorization"] = _basic(user, draft.need("MLFLOW_TRACKING_PASSWORD"))


def _phoenix(draft: Draft) -> None:
    port = 4317 if draft.protocol == "grpc" else 6006
    base = _base_url(draft, "PHOENIX_COLLECTOR_ENDPOINT", f"http://localhost:{port}").removesuffix("/v1/traces")
    draft.endpoint = base if draft.protocol == "grpc" else f"{base}/v1/traces"
    if draft.get("PHOENIX_API_KEY") and not draft.has_headers("authorization"):
        draft.headers["authorization"] = f"Bearer {draft.get('PHOENIX_API_KEY')}"


def _local(draft: Draft) -> None:
    draft.endpoint = "http://localhost:4317" if draft.protocol == "grpc" else "http://localhost:4318/v1/traces"


def _base_url(draft: Draft, variable: str, default: str) -> str:
    url = draft.get(variable) or default
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
        parts = urlsplit("")
    if not usable or "@" in parts.netloc:
        draft.problems.append(f"{variable}: expected http://host:port or https://host:port, without credentials")
        return default
    return url.rstrip("/")


def _basic(user: str, password: str) -> str:
    # One line, without the newline that a shell's `base64` would leave in it.
    return f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"


PLATFORMS: Mapping[str, Platform] = {
    "datadog": Platform(
        _datadog,
        secrets=("DD_API_KEY",),
        variables=("DD_SITE", "DD_SERVICE", "DD_ENV", "DD_VERSION"),
        protocols=("http/protobuf",),
        limits=OtlpLimits(request_bytes_max=3_000_000),
        resource={
            "DD_SERVICE": ("service.name",),
            "DD_ENV": ("deployment.environment.name", "deployment.environment"),
            "DD_VERSION": ("service.version",),
        },
        advice="the key belongs to another DD_SITE, or the organisation is not enabled for OTLP traces",
    ),
    "newrelic": Platform(
        _newrelic,
        secrets=("NEW_RELIC_LICENSE_KEY",),
        variables=("NEW_RELIC_REGION", "NEW_RELIC_APP_NAME"),
        limits=OtlpLimits(
            request_bytes_max=950_000,
            attribute_bytes_max=4095,
            name_bytes_max=255,
            array_items_max=64,
            plain_values=True,
        ),
        resource={"NEW_RELIC_APP_NAME": ("service.name",)},
        advice="NEW_RELIC_LICENSE_KEY must be an ingest license key (no user key), and NEW_RELIC_REGION its region",
    ),
    "signoz": Platform(
        _signoz,
        secrets=("SIGNOZ_INGESTION_KEY",),
        variables=("SIGNOZ_REGION",),
        limits=OtlpLimits(request_bytes_max=15_000_000),
        advice="SIGNOZ_INGESTION_KEY must be of the region SIGNOZ_REGION",
    ),
    "splunk": Platform(
        _splunk,
        secrets=("SPLUNK_ACCESS_TOKEN",),
        variables=("SPLUNK_REALM",),
        limits=OtlpLimits(span_bytes_max=60_000),
        advice="SPLUNK_ACCESS_TOKEN must be an ingest token of the organisation's realm SPLUNK_REALM",
    ),
    "grafana": Platform(
        _grafana,
        secrets=("GRAFANA_CLOUD_API_KEY",),
        variables=("GRAFANA_CLOUD_ZONE", "GRAFANA_CLOUD_INSTANCE_ID"),
        protocols=("http/protobuf",),
        limits=OtlpLimits(attribute_bytes_max=2048),
        advice="GRAFANA_CLOUD_INSTANCE_ID is the number on the stack's OpenTelemetry tile, and GRAFANA_CLOUD_API_KEY "
        "a token with the scope traces:write of the same stack",
    ),
    "servicenow": Platform(
        _servicenow,
        secrets=("LS_ACCESS_TOKEN", "LIGHTSTEP_ACCESS_TOKEN"),
        variables=("LS_REGION",),
        protocols=("grpc", "http/protobuf"),
        advice="LS_ACCESS_TOKEN must be an access token of the project",
        warning="ServiceNow Cloud Observability (Lightstep) may have been retired; nobody could verify its intake",
    ),
    "mlflow": Platform(
        _mlflow,
        secrets=("MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_PASSWORD"),
        variables=("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_ID", "MLFLOW_TRACKING_USERNAME"),
        protocols=("http/protobuf",),
        content_style="mlflow",
        advice="MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, must be the server's",
    ),
    "phoenix": Platform(
        _phoenix,
        secrets=("PHOENIX_API_KEY",),
        variables=("PHOENIX_COLLECTOR_ENDPOINT", "PHOENIX_PROJECT_NAME"),
        resource={"PHOENIX_PROJECT_NAME": ("openinference.project.name",)},
        advice="PHOENIX_API_KEY must be a key of that Phoenix",
    ),
    "jaeger": Platform(_local, protocols=("grpc", "http/protobuf"), compression="none"),
    "collector": Platform(_local, protocols=("grpc", "http/protobuf"), compression="none"),
}
"""Every value of the setting `platform`."""
