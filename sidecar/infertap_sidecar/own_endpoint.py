"""Keeps the sidecar from sending to itself: for ever, were its upstream or its destination an address of its own.

An OTLP endpoint in the environment may be meant for the app beside it: the app sends its spans to the receiver, the
receiver's destination is what is configured otherwise.
"""

import os
import socket
from collections.abc import Iterable, MutableMapping
from urllib.parse import urlsplit

from infertap.choice import Choice
from infertap.errors import ConfigError
from infertap_sidecar.address import Address
from infertap_sidecar.settings import ReceiverAddresses, SidecarConfig

_VARIABLES = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_ITSELF = (
    "the destination would be the receiver itself; name another one with OTEL_EXPORTER_OTLP_ENDPOINT, "
    "or take the tables (destination = 'table')"
)
_WILDCARDS = frozenset({"0.0.0.0", "::"})
_DEFAULT_PORTS = {"http": 80, "https": 443}


def unset_own_endpoints(environ: MutableMapping[str, str], receiver: ReceiverAddresses) -> list[str]:
    """Take the variables that point at the receiver out of the environment; one line about each."""
    own = [address for address in receiver if address is not None]
    lines = []
    for variable in _VARIABLES:
        value = environ.get(variable, "").strip()
        if value and points_at(value, own):
            del environ[variable]
            lines.append(f"{variable} points at this receiver, so it is taken as meant for the app and as unset here")
    return lines


def refuse_own_endpoint(choice: Choice, receiver: ReceiverAddresses) -> None:
    """Raises: ConfigError, where the destination is the receiver itself all the same."""
    own = [address for address in receiver if address is not None]
    if choice.targets.otlp is not None and points_at(choice.targets.otlp.endpoint, own):
        raise ConfigError([_ITSELF])


def refuse_own_upstream(config: SidecarConfig) -> None:
    """Raises: ConfigError, where the model server is the sidecar itself: one request would go round until it broke."""
    if config.upstream is None:
        return
    for name, address in (("listen", config.listen_address), ("admin", config.admin_address)):
        if points_at(config.upstream, [address]):
            itself = f"upstream: {config.upstream} is this sidecar itself ({name} = {address})"
            raise ConfigError(
                [f"{itself}; name the model server's own address, or give the sidecar another one with --{name}"]
            )


def points_at(endpoint: str, own: Iterable[Address]) -> bool:
    """Whether a connection to that endpoint would reach one of these addresses of this machine."""
    if endpoint.startswith("unix:"):
        path = os.path.realpath(endpoint.removeprefix("unix:").removeprefix("//"))
        return any(address.path is not None and os.path.realpath(address.path) == path for address in own)
    try:
        parts = urlsplit(endpoint if "://" in endpoint else f"//{endpoint}")
        host, port = parts.hostname, parts.port or _DEFAULT_PORTS.get(parts.scheme, 4317)
    except ValueError:
        return False
    candidates = [address for address in own if address.path is None and address.port == port]
    if not candidates or host is None:
        return False
    wanted = _resolved(host)
    for address in candidates:
        if address.host in _WILDCARDS:
            if any(ip in _WILDCARDS or _is_local(ip) for ip in wanted):
                return True
            continue
        # A connection to a wildcard goes to the loopback interface.
        own_ips = _resolved(address.host)
        if wanted & own_ips or (wanted & _WILDCARDS and any(ip.startswith(("127.", "::1")) for ip in own_ips)):
            return True
    return False


def _resolved(host: str) -> set[str]:
    try:
        return {str(found[4][0]) for found in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
    except OSError:
        return {host}


def _is_local(ip: str) -> bool:
    """Only an address of this machine can be bound."""
    family = socket.AF_INET6 if ":" in ip else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.bind((ip, 0))
    except OSError:
        return False
    return True
