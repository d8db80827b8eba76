"""The settings that only the sidecar has, beside all those of the middleware."""

from typing import Annotated, Literal, NamedTuple
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field

from infertap.config import Config, Size
from infertap.wrong_values import shown
from infertap_sidecar.address import Address, parse_address


def _upstream(value: object) -> object:
    if not isinstance(value, str) or value.startswith("unix:/"):
        return value
    expected = "expected http://host:port, https://host:port or unix:/path"
    if "@" not in value and "?" not in value:
        expected = f"{shown(value)} is no address of a server; {expected}"
    try:
        parts = urlsplit(value)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
        parts = urlsplit("")
    if not usable or "@" in parts.netloc:
        raise ValueError(expected)
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ValueError(f"{expected}, without a path: requests keep theirs")
    return f"{parts.scheme}://{parts.netloc}"


def _one(value: object) -> object:
    if str(value) != "1":
        raise ValueError("more than one worker is not built yet; leave it out")
    return value


def _address(value: object) -> object:
    if isinstance(value, str):
        parse_address(value)
    return value


OTLP_HTTP, OTLP_GRPC = "127.0.0.1:4318", "127.0.0.1:4317"

AddressText = Annotated[str, BeforeValidator(_address)]


class SidecarConfig(Config):
    """Everything that an environment or a TOML file for the sidecar may say; no command needs all of it."""

    upstream: Annotated[str | None, BeforeValidator(_upstream)] = Field(
        None,
        description="The model server: http://host:port, https://host:port or unix:/path; without a port, 80 or 443.",
    )
    listen: AddressText = Field("127.0.0.1:8900", description="Where clients connect: host:port or unix:/path.")
    admin: AddressText = Field("127.0.0.1:8901", description="Operator's port: /livez, /readyz, /metrics.")
    otlp_http: AddressText | None = Field(
        None,
        description="Where OTLP over HTTP is taken (/v1/traces); by default nowhere in serve, and 127.0.0.1:4318 in "
        "collect.",
    )
    otlp_grpc: AddressText | None = Field(
        None,
        description="Where OTLP over gRPC is taken; by default nowhere in serve, and 127.0.0.1:4317 in collect.",
    )
    otlp_bytes_max: Size = Field(20 << 20, ge=512, description="Largest OTLP request that is taken, compressed or not.")
    workers: Annotated[int, BeforeValidator(_one)] = Field(
        1, description="Proxy processes; more than 1 is not built yet."
    )
    upstream_connect_timeout_s: float = Field(5.0, gt=0, le=600, description="Longest wait for a connection.")
    upstream_read_timeout_s: float = Field(
        600.0, gt=0, le=86_400, description="Longest silence of the model server, before or within an answer."
    )
    upstream_client: Literal["native", "httpx"] = Field(
        "native", description="What speaks to the model server: infertap's own HTTP/1.1 client, or httpx."
    )
    upstream_host_header: Literal["client", "upstream"] = Field(
        "client", description="Whose Host the model server sees; the client's is in x-forwarded-host as well."
    )
    connection_drain_s: float = Field(
        15.0, ge=0, le=3600, description="Seconds that a stop waits for answers under way, before drain_s."
    )
    log_format: Literal["text", "json"] = Field("text", description="How the sidecar logs, to standard error.")

    @property
    def listen_address(self) -> Address:
        """`listen`, parsed."""
        return parse_address(self.listen)

    @property
    def admin_address(self) -> Address:
        """`admin`, parsed."""
        return parse_address(self.admin)

    def _problems(self) -> list[str]:
        problems = super()._problems()
        taken: dict[str, str] = {}
        for name in self._listens():
            text = getattr(self, name)
            if text is None or parse_address(text)[1:] == (0, None):
                continue
            other = taken.setdefault(text, name)
            if other != name:
                problems.append(f"{self.where(other)} and {self.where(name)} are both {text}; they need two addresses")
        return problems

    @property
    def receiver_addresses(self) -> "ReceiverAddresses":
        """`otlp_http` and `otlp_grpc`, parsed."""
        return ReceiverAddresses(
            parse_address(self.otlp_http) if self.otlp_http is not None else None,
            parse_address(self.otlp_grpc) if self.otlp_grpc is not None else None,
        )

    def _listens(self) -> tuple[str, ...]:
        return ("listen", "admin", "otlp_http", "otlp_grpc")


class ReceiverAddresses(NamedTuple):
    """Where OTLP is taken; None where it is not."""

    http: Address | None
    grpc: Address | None

    def __bool__(self) -> bool:
        return self.http is not None or self.grpc is not None


class ServeConfig(SidecarConfig):
    """What `infertap serve` runs with. Raises: ConfigError with every problem at once."""

    @property
    def upstream_url(self) -> str:
        """The upstream, which a valid `ServeConfig` has."""
        assert self.upstream is not None
        return self.upstream

    def _problems(self) -> list[str]:
        missing = ["upstream: not set; name the model server: --upstream http://127.0.0.1:8000"]
        return [*(missing if self.upstream is None else ()), *super()._problems()]


class CollectConfig(SidecarConfig):
    """What `infertap collect` runs with. Raises: ConfigError with every problem at once."""

    @property
    def receiver_addresses(self) -> ReceiverAddresses:
        """Both standard ports, unless one is named: then only that one."""
        given = super().receiver_addresses
        return given or ReceiverAddresses(parse_address(OTLP_HTTP), parse_address(OTLP_GRPC))

    def _listens(self) -> tuple[str, ...]:
        return ("admin", "otlp_http", "otlp_grpc")
