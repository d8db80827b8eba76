"""Where a spool folder's records go: plain values that both processes share, and the folder's fingerprint.

Rules: the fingerprint holds no credentials (rotated keys must find the same folder), but it holds what tells one
tenant from another, so that no record ever leaves under somebody else's key.
"""

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from infertap.urls import without_credentials, without_password

TENANT_HEADERS = frozenset(
    {"x-scope-orgid", "dataset", "x-honeycomb-dataset", "x-mlflow-experiment-id", "x-sf-realm", "tenant", "x-tenant"}
)
"""OTLP headers that name a tenant or a data set and are no secret. Part of the fingerprint, by value."""

_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]+")
_HEADER_VALUE = re.compile(r"[\t -~]*")

_TENANT_STORAGE_OPTIONS = (
    "aws_endpoint_url", "aws_endpoint", "aws_region", "aws_default_region", "endpoint_url", "region",
    "azure_storage_account_name", "account_name", "azure_endpoint", "google_base_url",
)  # fmt: skip


_PUBLIC_STORAGE_OPTIONS = frozenset(
    {
        *_TENANT_STORAGE_OPTIONS, "allow_http", "aws_allow_http", "aws_conditional_put", "conditional_put",
        "aws_s3_allow_unsafe_rename", "aws_s3_locking_provider", "delta_dynamo_table_name", "dynamo_table_name",
        "aws_virtual_hosted_style_request", "virtual_hosted_style_request", "aws_skip_signature", "skip_signature",
        "azure_container_name", "container_name", "azure_use_azure_cli", "use_azure_cli", "allow_invalid_certificates",
        "timeout", "connect_timeout", "azure_storage_use_emulator", "azure_use_fabric_endpoint",
        "google_skip_signature",
    }
)  # fmt: skip
"""Storage options that say where and how, and never who: whatever is not known here may be a credential."""

_NOT_DELIVERY = frozenset({"endpoint", "protocol", "headers", "tenant", "endpoint_variable"})
"""Fields of `OtlpTarget` that are part of the identity, or secrets, or of no use to another process's settings."""


@dataclass(frozen=True, slots=True)
class TableTarget:
    """A root of Delta tables.

    `uri` is an absolute path, or a URI that delta-rs understands (s3, gs, az, abfss, file, memory ...).
    `storage_options` go to delta-rs as they are and may hold credentials.
    """

    uri: str
    storage_options: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def local_path(self) -> Path | None:
        """The folder, where the root is a local one."""
        parts = urlsplit(self.uri)
        if parts.scheme == "file":
            return Path(parts.path)
        return Path(self.uri) if "://" not in self.uri else None


@dataclass(frozen=True, slots=True)
class OtlpLimits:
    """What a platform takes; None is no limit. Bytes are those of UTF-8 and of the encoded request, uncompressed."""

    request_bytes_max: int | None = None
    span_bytes_max: int | None = None
    attribute_bytes_max: int | None = None
    """One value, in an array one item."""
    name_bytes_max: int | None = None
    """An attribute's name."""
    array_items_max: int | None = None
    plain_values: bool = False
    """Whether maps and arrays of anything but one sort of scalar are refused; they go as JSON text then."""


@dataclass(frozen=True, slots=True)
class OtlpTarget:
    """An OTLP traces endpoint, as the standard variables name it. `headers` may hold credentials."""

    endpoint: str
    """http/protobuf: the full URL, `/v1/traces` included. grpc: scheme and authority, or `unix:/path`."""
    protocol: str
    """`grpc` or `http/protobuf`."""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    timeout_s: float = 10.0
    compression: str = "none"
    """`none`, `gzip` or (http/protobuf only) `deflate`."""
    certificate: str | None = None
    client_key: str | None = None
    client_certificate: str | None = None
    insecure: bool | None = None
    """grpc without a scheme only; None leaves it to the scheme."""
    value_length_max: int | None = None
    """Longest attribute value in characters; a longer one is withheld and marked, never cut."""
    headers_file: str | None = None
    """A file with further headers, one `name=value` a line, read again when it changes."""
    platform: str | None = None
    """Name of the vendor or product, where one was chosen."""
    tenant: str | None = None
    """Whose account it is, where the credentials say so with something that is no secret. Part of the fingerprint."""
    limits: OtlpLimits = field(default_factory=OtlpLimits)
    content_style: str = "openinference"
    """Names of the attributes that hold bodies: `openinference` or `mlflow`."""
    advice: str = ""
    """What to look at where the platform refuses the credentials."""
    resource: Mapping[str, str] = field(default_factory=dict)
    """Resource attributes that go along where a record's own resource lacks them."""
    endpoint_variable: str | None = field(default=None, compare=False)
    """Name of the variable that holds the endpoint, where one does; only errors speak of it."""


@dataclass(frozen=True, slots=True)
class Targets:
    """All destinations of one spool folder: one, or with `both` two."""

    table: TableTarget | None = None
    otlp: OtlpTarget | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The destinations' names, as cursors, ledger and metrics use them."""
        return tuple(name for name, target in (("table", self.table), ("otlp", self.otlp)) if target is not None)

    def identity(self, spool_dir: Path) -> dict[str, Any]:
        """What makes this destination this one, without secrets. A local table is named relative to `spool_dir`."""
        identity: dict[str, Any] = {}
        if self.table is not None:
            local = self.table.local_path
            uri = os.path.relpath(local, spool_dir) if local is not None else without_password(self.table.uri)
            options = {key.lower(): value for key, value in self.table.storage_options.items()}
            identity["table"] = {
                "uri": uri,
                **{key: without_credentials(options[key]) for key in _TENANT_STORAGE_OPTIONS if key in options},
            }
        if self.otlp is not None:
            headers = {key.lower(): value for key, value in self.otlp.headers.items()}
            identity["otlp"] = {
                "endpoint": without_credentials(self.otlp.endpoint),
                "protocol": self.otlp.protocol,
                "headers": {key: headers[key] for key in sorted(headers) if key in TENANT_HEADERS},
                **({"tenant": self.otlp.tenant} if self.otlp.tenant is not None else {}),
            }
        return identity

    def description(self, spool_dir: Path, *, content: str = "full") -> dict[str, Any]:
        """`identity`, and under the key `delivery` what else a delivery needs: all but secrets, for a disk."""
        delivery: dict[str, Any] = {"content": content}
        if self.table is not None:
            options = self.table.storage_options.items()
            delivery["table"] = {key: without_credentials(value) for key, value in options if _is_public(key)}
        if self.otlp is not None:
            delivery["otlp"] = {key: value for key, value in asdict(self.otlp).items() if key not in _NOT_DELIVERY}
        return {**self.identity(spool_dir), "delivery": delivery}

    def fingerprint(self, spool_dir: Path) -> str:
        """Name of the folder below `spool_dir`: readable kind, then 12 hex digits."""
        digest = hashlib.sha256(repr(sorted(_flatten(self.identity(spool_dir)))).encode()).hexdigest()[:12]
        return f"{'-'.join(self.names)}-{digest}"

    def to_json(self) -> dict[str, Any]:
        """All of it, secrets included: for the drainer's standard input, never for a disk."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`; unknown keys raise TypeError."""
        table, otlp = data.get("table"), data.get("otlp")
        return cls(
            table=TableTarget(**table) if table else None,
            otlp=OtlpTarget(**{**otlp, "limits": OtlpLimits(**otlp.get("limits", {}))}) if otlp else None,
        )


def _is_public(option: str) -> bool:
    return option.lower() in _PUBLIC_STORAGE_OPTIONS


def is_header(name: str, value: str) -> bool:
    """Whether HTTP and gRPC can carry it: a lower-case name, printable ASCII."""
    return bool(_HEADER_NAME.fullmatch(name) and _HEADER_VALUE.fullmatch(value))


def _flatten(value: Any, path: str = "") -> list[str]:
    if isinstance(value, dict):
        return [line for key in value for line in _flatten(value[key], f"{path}/{key}")]
    return [f"{path}={value}"]
