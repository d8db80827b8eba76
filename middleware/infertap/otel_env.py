"""The standard `OTEL_*` variables that have a meaning here, read once and checked all at once.

The stock Python exporters differ from the specification in places that lose data (a colon in a header, a timeout in
milliseconds, `none` as gRPC compression); here a mistake is a problem with a name, and what is merely odd is a warning.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from urllib.parse import unquote, urlsplit

from infertap.targets import OtlpTarget

PROTOCOLS = ("grpc", "http/protobuf")
_DEFAULT_ENDPOINTS = {"grpc": "http://localhost:4317", "http/protobuf": "http://localhost:4318/v1/traces"}
_SAMPLERS_WITH_RATIO = ("traceidratio", "parentbased_traceidratio")
_MILLISECONDS_FROM = 600.0
"""A timeout above this is taken for the specification's milliseconds: nobody means ten minutes and more."""

_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]+")
_HEADER_VALUE = re.compile(r"[\t -~]*")

_MEANINGLESS = (
    "OTEL_CONFIG_FILE",
    "OTEL_BSP_SCHEDULE_DELAY",
    "OTEL_BSP_MAX_QUEUE_SIZE",
    "OTEL_BSP_MAX_EXPORT_BATCH_SIZE",
    "OTEL_BSP_EXPORT_TIMEOUT",
)


@dataclass(frozen=True, slots=True)
class OtelEnvironment:
    """What the environment says about traces."""

    endpoint_variable: str | None = None
    """Name of the variable that holds the traces endpoint, None where there is none."""
    exporter_off_variable: str | None = None
    """`OTEL_SDK_DISABLED` or `OTEL_TRACES_EXPORTER` where it switches the export off."""
    sdk_disabled: bool = False
    mlflow_dual_export: bool = False
    mlflow_exporter_off: bool = False
    otlp: OtlpTarget | None = None
    """The exporter's settings, defaults filled in; None only where `problems` is not empty."""
    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> "OtelEnvironment":
        """Never raises: mistakes are in `problems`, each with the variable's name and never with a secret."""
        reader = _Reader(environ)
        otlp = reader.target()
        return cls(
            endpoint_variable=reader.endpoint_variable,
            exporter_off_variable=reader.exporter_off(),
            sdk_disabled=_is_true(environ.get("OTEL_SDK_DISABLED")),
            mlflow_dual_export=_is_true(environ.get("MLFLOW_TRACE_ENABLE_OTLP_DUAL_EXPORT")),
            mlflow_exporter_off=environ.get("MLFLOW_ENABLE_OTLP_EXPORTER", "").strip().lower() in ("false", "0"),
            otlp=None if reader.problems else otlp,
            problems=tuple(reader.problems),
            warnings=tuple(reader.warnings),
        )


@dataclass(slots=True)
class _Reader:
    environ: Mapping[str, str]
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    endpoint_variable: str | None = None

    def get(self, suffix: str) -> tuple[str, str | None]:
        """The traces form of a variable wins over the generic one; an empty value counts as unset."""
        for variable in (f"OTEL_EXPORTER_OTLP_TRACES_{suffix}", f"OTEL_EXPORTER_OTLP_{suffix}"):
            value = self.environ.get(variable, "").strip()
            if value:
                return variable, value
        return f"OTEL_EXPORTER_OTLP_{suffix}", None

    def target(self) -> OtlpTarget:
        protocol = self._protocol()
        self._sampler()
        self._propagators()
        for variable in _MEANINGLESS:
            if self.environ.get(variable):
                self.warnings.append(f"{variable} has no effect on infertap")
        return OtlpTarget(
            endpoint=self._endpoint(protocol),
            protocol=protocol,
            headers=self._headers(),
            timeout_s=self._timeout(),
            compression=self._compression(protocol),
            certificate=self.get("CERTIFICATE")[1],
            client_key=self.get("CLIENT_KEY")[1],
            client_certificate=self.get("CLIENT_CERTIFICATE")[1],
            insecure=self._insecure(),
            value_length_max=self._value_length(),
        )

    def exporter_off(self) -> str | None:
        if _is_true(self.environ.get("OTEL_SDK_DISABLED")):
            return "OTEL_SDK_DISABLED"
        exporters = [part.strip() for part in self.environ.get("OTEL_TRACES_EXPORTER", "").split(",") if part.strip()]
        return "OTEL_TRACES_EXPORTER" if exporters == ["none"] else None

    def _protocol(self) -> str:
        variable, value = self.get("PROTOCOL")
        if value is None:
            return "grpc"
        if value not in PROTOCOLS:
            self.problems.append(f"{variable}: {value!r} is not supported; expected grpc or http/protobuf")
            return "grpc"
        return value

    def _endpoint(self, protocol: str) -> str:
        variable, value = self.get("ENDPOINT")
        if value is None:
            return _DEFAULT_ENDPOINTS[protocol]
        self.endpoint_variable = variable
        try:
            parts = urlsplit(value if "://" in value else f"//{value}")
            usable = bool(parts.hostname) and parts.port != 0  # reading the port raises where it is none
        except ValueError:
            usable = False
        if usable and "@" in parts.netloc:
            self.problems.append(
                f"{variable}: credentials in the URL would show up in error texts; put them into HEADERS"
            )
        if not usable:
            self.problems.append(f"{variable}: not a URL with a host")
            return _DEFAULT_ENDPOINTS[protocol]
        if protocol == "grpc":
            if parts.scheme not in ("", "http", "https"):
                self.problems.append(f"{variable}: scheme {parts.scheme!r}; expected http or https")
            return f"{parts.scheme}://{parts.netloc}" if parts.scheme else parts.netloc
        if parts.scheme not in ("http", "https"):
            self.problems.append(f"{variable}: http/protobuf needs a URL that begins with http:// or https://")
            return _DEFAULT_ENDPOINTS[protocol]
        if "TRACES" in variable:
            return value
        return f"{value.removesuffix('/')}/v1/traces"

    def _headers(self) -> dict[str, str]:
        variable, value = self.get("HEADERS")
        headers: dict[str, str] = {}
        for position, pair in enumerate((value or "").split(","), start=1):
            if not pair.strip():
                continue
            raw_name, equals, raw_text = pair.partition("=")
            name, text = unquote(raw_name).strip().lower(), unquote(raw_text).strip()
            if not equals or not _HEADER_NAME.fullmatch(name) or not _HEADER_VALUE.fullmatch(text):
                self.problems.append(
                    f"{variable}: entry {position} is not name=value (its text is not shown: it may be a secret)"
                )
                continue
            headers[name] = text
        return headers

    def _timeout(self) -> float:
        variable, value = self.get("TIMEOUT")
        if value is None:
            return 10.0
        try:
            timeout_s = float(value)
        except ValueError:
            timeout_s = -1.0
        if not 0 < timeout_s < float("inf"):
            self.problems.append(f"{variable}: {value!r} is not a positive number of seconds")
            return 10.0
        if timeout_s > _MILLISECONDS_FROM:
            self.warnings.append(f"{variable}={value} is taken for milliseconds; Python's OpenTelemetry reads seconds")
            return timeout_s / 1000
        return timeout_s

    def _compression(self, protocol: str) -> str:
        variable, value = self.get("COMPRESSION")
        allowed = ("none", "gzip") if protocol == "grpc" else ("none", "gzip", "deflate")
        if value is None:
            return "none"
        if value.lower() not in allowed:
            self.problems.append(f"{variable}: {value!r}; expected {' or '.join(allowed)}")
            return "none"
        return value.lower()

    def _insecure(self) -> bool | None:
        _, value = self.get("INSECURE")
        return None if value is None else _is_true(value)

    def _value_length(self) -> int | None:
        for variable in ("OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT", "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT"):
            value = self.environ.get(variable, "").strip()
            if value:
                if value.isdecimal():
                    return int(value)
                self.problems.append(f"{variable}: {value!r} is not a number of characters")
        return None

    def _propagators(self) -> None:
        for name in map(str.strip, self.environ.get("OTEL_PROPAGATORS", "").split(",")):
            if name not in ("", "none") and not entry_points(group="opentelemetry_propagator", name=name):
                self.problems.append(f"OTEL_PROPAGATORS: {name!r} is not installed")

    def _sampler(self) -> None:
        sampler = self.environ.get("OTEL_TRACES_SAMPLER", "").strip().lower()
        argument = self.environ.get("OTEL_TRACES_SAMPLER_ARG", "").strip()
        if sampler not in _SAMPLERS_WITH_RATIO or not argument:
            return
        try:
            valid = 0.0 <= float(argument) <= 1.0
        except ValueError:
            valid = False
        if not valid:
            self.problems.append(f"OTEL_TRACES_SAMPLER_ARG: {argument!r} is not a ratio between 0 and 1")


def _is_true(value: str | None) -> bool:
    return (value or "").strip().lower() in ("true", "1")
