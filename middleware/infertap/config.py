"""The settings: one flat, typed, frozen tree, read once at start from arguments, environment and a TOML file.

1. Argument beats environment beats TOML file beats default.
2. All problems are reported at once, in one `ConfigError`.
3. Names are the same everywhere: `queue_bytes_max`, `INFERTAP_QUEUE_BYTES_MAX`, `--queue-bytes-max`.
4. A value that is documented but not built yet is an error, never ignored.
"""

import contextlib
import json
import os
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr, ValidationError
from pydantic.fields import FieldInfo

from infertap.errors import ConfigError
from infertap.header_names import not_for_answers, not_for_requester, not_names
from infertap.paths import useless
from infertap.words import nearest
from infertap.wrong_values import MAP_WORDS, SIZE_WORDS, describe, shown

ENV_PREFIX = "INFERTAP_"
CONFIG_FILE_VARIABLE = "INFERTAP_CONFIG"
_ARGUMENT = "argument"

_KUBERNETES_LINK = re.compile(
    r"INFERTAP_(PORT(_\d+_(TCP|UDP)(_(PROTO|PORT|ADDR))?)?|SERVICE_HOST|SERVICE_PORT(_\w+)?)$"
)
"""Variables that Kubernetes puts into every pod beside a Service called `infertap`."""

SIDECAR_SETTINGS = frozenset(
    {
        "upstream",
        "listen",
        "admin",
        "workers",
        "log_format",
        "upstream_connect_timeout_s",
        "upstream_client",
        "upstream_read_timeout_s",
        "upstream_host_header",
        "connection_drain_s",
        "otlp_http",
        "otlp_grpc",
        "otlp_bytes_max",
    }
)
"""Names that only `infertap serve` knows; inside an app their variables are no mistake."""

_URI_SCHEMES = (
    "file", "s3", "s3a", "gs", "az", "adl", "abfs", "abfss", "azure", "wasb", "wasbs", "hdfs", "viewfs",
    "uc", "lakefs", "r2",
)  # fmt: skip

_RECORD_BYTES = 1 << 10
"""An ordinary record without its bodies takes so much of the spool."""
_SPOOL_BYTES_MIN = 2 * _RECORD_BYTES
_QUEUE_BYTES_MIN = 8 << 10
"""What a capture takes at once; of less, some or all requests would be lost for want of room."""

_SECRET = re.compile(r"[!-~]{16,1024}")
_SIZE = re.compile(r"(\d+)\s*(B|KIB|MIB|GIB|TIB)?", re.IGNORECASE)
_UNITS = {"": 1, "B": 1, "KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30, "TIB": 1 << 40}


def _parse_size(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError(SIZE_WORDS)  # Python counts True as 1
    if isinstance(value, str):
        match = _SIZE.fullmatch(value.strip())
        if match is None:
            raise ValueError(f"{shown(value)} is no size; {SIZE_WORDS}")
        return int(match[1]) * _UNITS[(match[2] or "").upper()]
    return value


def _split_list(value: object) -> object:
    if isinstance(value, str):
        return tuple(item.strip() for item in value.split(",") if item.strip())
    return value


def _split_names(value: object) -> object:
    names = _split_list(value)
    if names == () and isinstance(value, str) and value.strip():
        raise ValueError("there is no name in it; leave it out, or write name,name")
    return names


def _split_map(value: object) -> object:
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("{"):
        return _read_object(value)
    pairs = [item.split("=", 1) for item in value.split(",") if item.strip()]
    if any(len(pair) != 2 for pair in pairs):
        raise ValueError(f"{MAP_WORDS}, where a value holds a comma")
    return {name.strip(): text.strip() for name, text in pairs}


def _read_object(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        # Nothing of the text, and not the library's words, which may quote it.
        raise ValueError(f"it begins like a JSON object and is none; {MAP_WORDS}") from error


Size = Annotated[int, BeforeValidator(_parse_size)]
Platform = Literal[
    "datadog", "newrelic", "signoz", "splunk", "grafana", "servicenow", "mlflow", "phoenix", "jaeger", "collector"
]
Names = Annotated[tuple[str, ...], BeforeValidator(_split_list)]
"""A comma alone is the empty list, for settings with a default that is none."""
GivenNames = Annotated[tuple[str, ...], BeforeValidator(_split_names)]
Options = Annotated[dict[str, str], BeforeValidator(_split_map)]

DEFAULT_EXCLUDE_PATHS = (
    "/health", "/healthz", "/health/*", "/livez", "/readyz", "/ping", "/metrics", "/metrics/*",
    "/docs", "/docs/*", "/redoc", "/openapi.json", "/favicon.ico", "/v2/health/*",
)  # fmt: skip
DEFAULT_CAPTURE_HEADERS = (
    "accept", "accept-encoding", "accept-language", "cache-control", "content-encoding", "content-language",
    "content-length", "content-type", "date", "etag", "forwarded", "host", "location", "openai-organization",
    "openai-processing-ms", "openai-project", "origin", "ratelimit-limit", "ratelimit-remaining", "referer",
    "retry-after", "server", "traceparent", "tracestate", "transfer-encoding", "user-agent", "vary", "via",
    "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-request-id",
)  # fmt: skip

_PLANNED = ("payload_store", "require_destination", "sample_rate", "sample_rules", "worker")
"""Settings that the documentation announces; giving one today stops the start instead of being ignored."""

_NOT_BUILT: Mapping[str, tuple[object, ...]] = {
    "durability": ("strict",),
}


class Config(BaseModel):
    """What `InferenceMiddleware` and the sidecar are told.

    Settings that are not given as arguments come from `INFERTAP_*` variables, then from the TOML file named by
    `INFERTAP_CONFIG`, then from the defaults. `config_file` names another file; `flags` says for messages
    by which flag of a command line an argument came, by the setting's name.

    Raises:
        ConfigError: with every problem at once.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, allow_inf_nan=False)

    tables: str = Field("./inference_tables", description="Root of the Delta tables: a folder or a URI delta-rs knows.")
    storage_options: Options = Field(
        {},
        description="Options passed to delta-rs (credentials, region, endpoint): a table in TOML, elsewhere "
        "name=value,name=value or a JSON object, whose values may hold commas.",
        repr=False,
    )
    destination: Literal["auto", "table", "otlp", "both", "none"] = Field(
        "auto", description="Where records go; auto is OTLP if an endpoint is in the environment, else the tables."
    )
    content: Literal["full", "metadata"] = Field(
        "full", description="What is kept of a request; metadata keeps every column but bodies and headers."
    )
    platform: Platform | None = Field(
        None, description="Where OTLP goes and what fits there, by the vendor's own variables (docs/platforms.md)."
    )
    otlp_headers_file: Path | None = Field(
        None, description="Further OTLP headers, one name=value a line; read again when the file changes."
    )
    spool_dir: Path | None = Field(
        None,
        description="Where records wait; by default <tables>/.spool, and ./.infertap_spool without local tables.",
    )
    spool_bytes_max: Size = Field(
        1 << 30, ge=_SPOOL_BYTES_MIN, description="Cap of the spool on disk, per destination folder."
    )
    segment_bytes_max: Size = Field(8 << 20, ge=_RECORD_BYTES, description="A spool segment is sealed at this size.")
    spool_flush_ms: int = Field(50, ge=1, le=60_000, description="Records reach the disk at least this often.")
    queue_bytes_max: Size = Field(
        64 << 20,
        ge=_QUEUE_BYTES_MIN,
        description="Bytes captured or queued in memory, per process; at most an eighth of the container's memory, "
        "which the workers of `infertap run` share.",
    )
    capture_bytes_max: Size = Field(16 << 20, ge=0, description="Largest body that is kept at all.")
    inline_bytes_max: Size = Field(1 << 20, ge=0, description="Largest body that is stored in the row itself.")
    commit_bytes_max: Size = Field(
        16 << 20, ge=_RECORD_BYTES, description="Spool bytes that the drainer delivers at once."
    )
    commit_interval_s: float = Field(10.0, gt=0, le=3600, description="Seconds between commits or exports.")
    drain_s: float = Field(10.0, ge=0, le=600, description="Seconds that a stop waits for delivery.")
    drainer: Literal["process", "thread", "external"] = Field(
        "process", description="Who carries the spool to the destination."
    )
    durability: Literal["batched", "strict"] = Field(
        "batched",
        description="How sure a record is when its answer goes out; strict, where it is on disk, is not built yet.",
    )
    server_span: Literal["light", "otel"] = Field(
        "light", description="Who makes the server span; otel nests OpenTelemetry's own ASGI middleware."
    )
    install_tracer_provider: bool = Field(
        False,
        description="Where the app sets no OpenTelemetry tracer provider, set one, so that its instrumentations' spans "
        "are recorded. `infertap run` sets it.",
    )
    binary_bodies: Literal["withhold"] = Field(
        "withhold",
        description="What happens to bodies that are no text: withhold, which keeps their size, is the only way yet.",
    )
    served_entity_id: str | None = Field(
        None, description="Column served_entity_id; by default the service name, which OTEL_SERVICE_NAME sets."
    )
    request_id_header: str | None = Field(None, description="Response header that tells the caller the row's id.")
    requester_header: str | None = Field(None, description="Request header whose value fills the column requester.")
    outer_secret: str | None = Field(
        None,
        description="What a sidecar and the middleware behind it both know, so that only the sidecar writes the row; "
        "at least 16 visible ASCII characters.",
        repr=False,
    )
    include_paths: GivenNames = Field(
        (), description="Globs, such as /v1/* or */predict; where given, only these paths are recorded."
    )
    exclude_paths: Names = Field(
        DEFAULT_EXCLUDE_PATHS,
        description="Globs of paths that are not recorded; what you give replaces the default list, a comma alone "
        "empties it.",
    )
    capture_headers: Names = Field(
        DEFAULT_CAPTURE_HEADERS,
        description="Headers that are stored, all others are not; what you give replaces the default list, a comma "
        "alone empties it.",
    )
    redact_keys: GivenNames = Field(
        (),
        description="Names (JSON keys, fields, parameters, headers) redacted beside the built-in ones.",
    )
    redact_except: GivenNames = Field(
        (),
        description="Names whose values stay, such as token where it is a language model's; other rules still apply.",
    )

    _sources: dict[str, str] = PrivateAttr(default_factory=dict)
    _warnings: tuple[str, ...] = PrivateAttr(default=())
    _throws_away: bool = PrivateAttr(default=False)

    def __init__(self, **arguments: Any) -> None:
        layers = _Layers(type(self).model_fields, arguments, os.environ)
        problems = list(layers.problems)
        try:
            super().__init__(**layers.values)
        except ValidationError as error:
            problems += [_problem(details, layers.sources, type(self).model_fields) for details in error.errors()]
            # What is wrong beside it shall be heard in the same start.
            wrong = {str(details["loc"][0]) for details in error.errors() if details["loc"]}
            rest = {name: value for name, value in layers.values.items() if name not in wrong}
            with contextlib.suppress(ValidationError):
                super().__init__(**rest)
                self._sources = layers.sources
                problems += [line for line in self._problems() if re.split("[ :]", line, maxsplit=1)[0] not in wrong]
        else:
            self._sources = layers.sources
            problems += self._problems()
        if problems:
            raise ConfigError(problems, layers.warnings)
        self._warnings = layers.warnings

    @property
    def sources(self) -> Mapping[str, str]:
        """Setting name to where it came from; a name that is absent has its default."""
        return self._sources

    def where(self, name: str) -> str:
        """A setting's name for a message, with where its value came from: `tables (--tables)`."""
        return _where(name, self._sources)

    @property
    def warnings(self) -> tuple[str, ...]:
        """One line each for variables that look like ours and are not."""
        return self._warnings

    @property
    def throws_away(self) -> bool:
        """Whether the spool is thrown away at the end, and nothing in it waits for anybody."""
        return self._throws_away

    def thrown_away(self) -> Self:
        """The same settings for a spool that is thrown away."""
        self._throws_away = True
        return self

    def _problems(self) -> list[str]:
        """What the types alone cannot say."""
        problems = [
            f"{self.where(name)}: {getattr(self, name)!r} is not built yet; leave it out"
            for name, values in _NOT_BUILT.items()
            if getattr(self, name) in values
        ]
        if self.inline_bytes_max > self.capture_bytes_max:
            problems.append(f"{self.where('inline_bytes_max')} must not be larger than capture_bytes_max")
        if self.segment_bytes_max > self.spool_bytes_max:
            problems.append(f"{self.where('segment_bytes_max')} must not be larger than spool_bytes_max")
        if self.outer_secret is not None and not _SECRET.fullmatch(self.outer_secret):
            words = "expected at least 16 visible ASCII characters (its text is not shown)"
            problems.append(f"{self.where('outer_secret')}: {words}")
        problems += [f"{self.where('tables')}: {problem}" for problem in _root_problems(self.tables)]
        paths = (
            ("tables", Path(self.tables)),
            ("spool_dir", self.spool_dir),
            ("otlp_headers_file", self.otlp_headers_file),
        )
        for name, folder in paths:
            try:
                _ = folder and folder.expanduser()
            except RuntimeError:
                problems.append(f"{self.where(name)}: nobody's home is {folder}")
        return problems + self._header_problems() + self._name_problems()

    def _name_problems(self) -> list[str]:
        """Entries of lists that could never match anything."""
        problems = [
            f"{self.where(name)}: {problem}"
            for name in ("include_paths", "exclude_paths")
            for problem in useless(getattr(self, name))
        ]
        problems += [
            f"{self.where(name)}: entry {number} has neither a letter nor a digit, so it is no name"
            for name in ("redact_keys", "redact_except")
            for number, key in enumerate(getattr(self, name), start=1)
            if not any(map(str.isalnum, key))
        ]
        return problems

    def _header_problems(self) -> list[str]:
        answers, requester = self.request_id_header, self.requester_header
        found = {
            "request_id_header": None if answers is None else not_for_answers(answers),
            "requester_header": None if requester is None else not_for_requester(requester),
            "capture_headers": not_names(self.capture_headers),
        }
        return [f"{self.where(name)}: {problem}" for name, problem in found.items() if problem is not None]


def _root_problems(tables: str) -> Iterable[str]:
    """What is wrong with the tables' root."""
    scheme, separator, _ = tables.partition("://")
    half = tables.partition(":")[0]
    if not separator and half != tables and half.lower() in _URI_SCHEMES:
        meant = "file:///folder" if half.lower() == "file" else f"{half}://bucket/path"
        yield f"{half}: is no folder, and a URI looks like {meant}"
    if separator and scheme.lower() not in _URI_SCHEMES:
        yield f"unknown scheme {scheme!r}; known are {', '.join(_URI_SCHEMES)}, or a plain path"
    elif separator and (problem := _uri_problem(tables)) is not None:
        yield problem
    if not tables.strip():
        yield "expected a folder or a URI"


def _uri_problem(uri: str) -> str | None:
    """What is wrong with a URI of a known scheme, without showing it."""
    try:
        parts = urlsplit(uri)
    except ValueError:
        return "not a valid URI"
    if parts.password is not None or parts.query:
        return "delta-rs reads no credentials from a URI; put them into storage_options"
    return None


class _Layers:
    """The given settings by precedence, with the source of each."""

    def __init__(self, fields: Iterable[str], arguments: Mapping[str, Any], environ: Mapping[str, str]) -> None:
        self.problems: list[str] = []
        self.values: dict[str, Any] = {}
        self.sources: dict[str, str] = {}
        known = set(fields)
        given = dict(arguments)
        flags: Mapping[str, str] = given.pop("flags", None) or {}
        file = given.pop("config_file", None) or environ.get(CONFIG_FILE_VARIABLE)
        if file:
            self._add(self._read_toml(Path(file)), lambda _: str(file))
        variables = {
            name: environ[ENV_PREFIX + name.upper()]
            for name in known
            if environ.get(ENV_PREFIX + name.upper(), "") != ""
        }
        self._add(variables, lambda name: f"{ENV_PREFIX}{name.upper()}")
        self._add(given, lambda name: flags.get(name, _ARGUMENT))
        for name in _PLANNED:
            if name in self.values or environ.get(ENV_PREFIX + name.upper()):
                self.values.pop(name, None)
                self.problems.append(f"{_where(name, self.sources)} is not built yet; leave it out")
        self.warnings = tuple(_unknown_variables(environ, known | SIDECAR_SETTINGS | set(_PLANNED)))

    def _add(self, values: Mapping[str, Any], source_of: Callable[[str], str]) -> None:
        self.values.update(values)
        self.sources.update({name: source_of(name) for name in values})

    def _read_toml(self, path: Path) -> dict[str, Any]:
        try:
            return tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            self.problems.append(f"configuration file {path}: {(error.strerror or str(error)).lower()}")
        except UnicodeDecodeError:
            self.problems.append(f"configuration file {path}: it is not UTF-8")
        except tomllib.TOMLDecodeError as error:
            self.problems.append(f"configuration file {path}: no TOML: {error}")
        return {}


def _unknown_variables(environ: Mapping[str, str], known: set[str] | frozenset[str]) -> Iterable[str]:
    names = sorted(name.upper() for name in known)
    for variable in sorted(environ):
        name = variable.removeprefix(ENV_PREFIX)
        if name == variable or name in names or variable == CONFIG_FILE_VARIABLE:
            continue
        if _KUBERNETES_LINK.match(variable):
            continue
        meant = nearest(name, names)
        hint = f"; did you mean {ENV_PREFIX}{meant}?" if meant else ""
        yield f"{variable} is no setting of infertap and is ignored{hint}"


def _where(name: str, sources: Mapping[str, str]) -> str:
    source = sources.get(name)
    return name if source in (None, _ARGUMENT) else f"{name} ({source})"


def _problem(details: Any, sources: Mapping[str, str], fields: Mapping[str, FieldInfo]) -> str:
    name = str(details["loc"][0])
    if details["type"] == "extra_forbidden":
        meant = nearest(name, fields)
        return f"{_where(name, sources)}: no such setting" + (f"; did you mean {meant}?" if meant else "")
    return f"{_where(name, sources)}: {describe(name, fields[name], details)}"
