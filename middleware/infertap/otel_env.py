"""The standard `OTEL_EXPORTER_*` variables, read once and checked all at once, beside those of `sdk_env`.

The stock Python exporters differ from the specification in places that lose data (a colon in a header, a timeout in
milliseconds, `none` as gRPC compression); here a mistake is a problem with a name, and what is merely odd is a warning.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from infertap.otel_names import misspelt_lines
from infertap.platforms import PLATFORMS, Draft, Platform
from infertap.sdk_env import VALUE_LENGTH_LIMITS, is_boolean, is_true, mistakes, sdk_disabled, without_effect
from infertap.targets import OtlpLimits, OtlpTarget, is_header

PROTOCOLS = ("grpc", "http/protobuf")
_DEFAULT_ENDPOINTS = {"grpc": "http://localhost:4317", "http/protobuf": "http://localhost:4318/v1/traces"}
_MILLISECONDS_FROM = 600.0
"""A timeout above this is taken for the specification's milliseconds: nobody means ten minutes and more."""


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
    """The exporter's settings, defaults filled in; None where a mistake leaves none."""
    problems: tuple[str, ...] = ()
    """Every mistake that counts: those of a switched-off exporter do not."""
    platform_problems: tuple[str, ...] = ()
    """What is wrong or missing in the variables of the platform."""
    warnings: tuple[str, ...] = ()
    """What is odd about the exporter's variables; it matters where something is exported."""
    without_effect: tuple[str, ...] = ()
    """Variables that are set and mean nothing here, whatever the destination."""
    misspelt: tuple[str, ...] = ()
    """One line for each variable whose name is nearly one that counts."""
    environ: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def read(
        cls, environ: Mapping[str, str], *, platform: str | None = None, headers_file: str | None = None
    ) -> "OtelEnvironment":
        """Never raises: mistakes are in `problems`, each with the variable's name and never with a secret.

        Args:
            platform: A name of `PLATFORMS`, whose variables give what the standard ones do not.
            headers_file: Where further headers stand.
        """
        reader = _Reader(environ, platform, headers_file)
        otlp = reader.target()
        off = reader.exporter_off()
        problems = [*mistakes(environ), *(reader.problems if off is None else ())]
        return cls(
            endpoint_variable=reader.endpoint_variable,
            exporter_off_variable=off,
            sdk_disabled=sdk_disabled(environ),
            mlflow_dual_export=is_true(environ.get("MLFLOW_TRACE_ENABLE_OTLP_DUAL_EXPORT")),
            mlflow_exporter_off=environ.get("MLFLOW_ENABLE_OTLP_EXPORTER", "").strip().lower() in ("false", "0"),
            otlp=None if problems or reader.problems or reader.platform_problems else otlp,
            problems=tuple(problems),
            platform_problems=tuple(reader.platform_problems),
            warnings=tuple(reader.warnings),
            without_effect=tuple(without_effect(environ)),
            misspelt=tuple(misspelt_lines(environ)),
            environ=environ,
        )

    def with_settings(self, *, platform: str | None, headers_file: str | None) -> "OtelEnvironment":
        """The same environment, read with these settings of infertap."""
        if platform is None and headers_file is None:
            return self
        return self.read(self.environ, platform=platform, headers_file=headers_file)


@dataclass(slots=True)
class _Reader:
    environ: Mapping[str, str]
    platform_name: str | None = None
    headers_file: str | None = None
    problems: list[str] = field(default_factory=list)
    platform_problems: list[str] = field(default_factory=list)
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
        platform = PLATFORMS[self.platform_name] if self.platform_name is not None else None
        own_endpoint = self.get("ENDPOINT")[1] is not None
        # An endpoint of the standard variables is somebody else's than the vendor's, so the vendor's part ends there.
        vendor = platform if not own_endpoint else None
        protocol = self._protocol(vendor.protocols[0] if vendor is not None else "grpc")
        headers = self._headers()
        draft = self._draft(vendor, protocol, headers) if vendor is not None else None
        self._warn(platform, own_endpoint=own_endpoint)
        return OtlpTarget(
            endpoint=draft.endpoint if draft is not None else self._endpoint(protocol),
            protocol=protocol,
            headers={**draft.headers, **headers} if draft is not None else headers,
            timeout_s=self._timeout(),
            compression=self._compression(protocol, vendor.compression if vendor is not None else "none"),
            certificate=self.get("CERTIFICATE")[1],
            client_key=self.get("CLIENT_KEY")[1],
            client_certificate=self.get("CLIENT_CERTIFICATE")[1],
            insecure=self._insecure(),
            value_length_max=self._value_length(),
            headers_file=self.headers_file,
            platform=self.platform_name,
            tenant=draft.tenant if draft is not None else None,
            limits=platform.limits if platform is not None else OtlpLimits(),
            content_style=platform.content_style if platform is not None else "openinference",
            advice=vendor.advice if vendor is not None else "",
            resource=self._resource(platform),
            endpoint_variable=self.endpoint_name() if own_endpoint else None,
        )

    def _draft(self, platform: Platform, protocol: str, headers: Mapping[str, str]) -> Draft:
        """What the vendor's own variables say; `headers` are those that the user gives by the standard ones."""
        said = f"platform = {self.platform_name!r}"
        if protocol not in platform.protocols:
            self.platform_problems.append(f"{said}: its intake takes no {protocol}; unset OTEL_EXPORTER_OTLP_PROTOCOL")
        draft = Draft(self.environ, protocol, lambda name: self.headers_file is not None or name in headers)
        platform.fill(draft)
        if draft.missing:
            self.platform_problems.append(f"{said} needs {', '.join(draft.missing)}, not set here")
        self.platform_problems.extend(f"{said}: {problem}" for problem in draft.problems)
        if not all(is_header(name, value) for name, value in draft.headers.items()):
            self.platform_problems.append(f"{said}: a credential has characters that no header can carry")
        return draft

    def _resource(self, platform: Platform | None) -> dict[str, str]:
        variables = platform.resource if platform is not None else {}
        values = {variable: self.environ.get(variable, "").strip() for variable in variables}
        return {name: values[variable] for variable, names in variables.items() if values[variable] for name in names}

    def _warn(self, platform: Platform | None, *, own_endpoint: bool) -> None:
        exporters = {part.strip() for part in self.environ.get("OTEL_TRACES_EXPORTER", "").split(",")} - {""}
        if exporters and not exporters & {"otlp", "none"}:
            self.warnings.append("OTEL_TRACES_EXPORTER: infertap exports by OTLP only, whatever else is named there")
        if platform is None:
            return
        if platform.warning:
            self.warnings.append(platform.warning)
        keys = [variable for variable in platform.secrets if self.environ.get(variable)]
        if own_endpoint and keys:
            self.warnings.append(
                f"the endpoint is {self.endpoint_name()}'s, so {', '.join(keys)} is not sent there; of "
                f"platform = {self.platform_name!r} only the limits count"
            )

    def endpoint_name(self) -> str:
        """The variable that names the endpoint."""
        return self.get("ENDPOINT")[0]

    def exporter_off(self) -> str | None:
        if sdk_disabled(self.environ):
            return "OTEL_SDK_DISABLED"
        exporters = [part.strip() for part in self.environ.get("OTEL_TRACES_EXPORTER", "").split(",") if part.strip()]
        return "OTEL_TRACES_EXPORTER" if exporters == ["none"] else None

    def _protocol(self, default: str) -> str:
        variable, value = self.get("PROTOCOL")
        if value is None:
            return default
        if value not in PROTOCOLS:
            self.problems.append(f"{variable}: {value!r} is not supported; expected grpc or http/protobuf")
            return default
        return value

    def _endpoint(self, protocol: str) -> str:
        variable, value = self.get("ENDPOINT")
        if value is None:
            return _DEFAULT_ENDPOINTS[protocol]
        self.endpoint_variable = variable
        if protocol == "grpc" and value.startswith("unix:"):
            return self._socket(variable, value)
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

    def _socket(self, variable: str, value: str) -> str:
        """`unix:path` and `unix:///path`, as gRPC writes them; absolute, because the drainer may live elsewhere."""
        path = value.removeprefix("unix:").removeprefix("//")
        if not path or "\0" in path:
            self.problems.append(f"{variable}: unix: needs the path of a socket, as in unix:///run/otlp.sock")
        return f"unix:{os.path.abspath(path)}"

    def _headers(self) -> dict[str, str]:
        variable, value = self.get("HEADERS")
        headers: dict[str, str] = {}
        for position, pair in enumerate((value or "").split(","), start=1):
            if not pair.strip():
                continue
            raw_name, equals, raw_text = pair.partition("=")
            name, text = unquote(raw_name).strip().lower(), unquote(raw_text).strip()
            if not equals or not is_header(name, text):
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

    def _compression(self, protocol: str, default: str) -> str:
        variable, value = self.get("COMPRESSION")
        allowed = ("none", "gzip") if protocol == "grpc" else ("none", "gzip", "deflate")
        if value is None:
            return default
        if value.lower() not in allowed:
            self.problems.append(f"{variable}: {value!r}; expected {' or '.join(allowed)}")
            return "none"
        return value.lower()

    def _insecure(self) -> bool | None:
        variable, value = self.get("INSECURE")
        if value is None:
            return None
        if not is_boolean(value):
            self.problems.append(f"{variable}: {value!r}; expected true or false")
        return is_true(value)

    def _value_length(self) -> int | None:
        """What is no number is said by `mistakes`."""
        values = (self.environ.get(variable, "").strip() for variable in VALUE_LENGTH_LIMITS)
        return next((int(value) for value in values if value.isdecimal()), None)
