"""Where the upstream is, and how a new connection gets there: TCP, TLS or a unix socket."""

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Callable
from typing import TypeVar
from urllib.parse import urlsplit

from infertap_sidecar.upstream import failures

P = TypeVar("P", bound=asyncio.Protocol)

_DEFAULT_PORTS = {"http": 80, "https": 443}


def authority_of(url: str) -> bytes:
    """`Host` for the upstream at `url`: lower case, no default port; `localhost` for a unix socket."""
    if url.startswith("unix:"):
        return b"localhost"
    parts = urlsplit(url)
    host = _ascii(parts.hostname or "")
    if ":" in host:
        host = f"[{host}]"
    port = "" if parts.port in (None, _DEFAULT_PORTS[parts.scheme]) else f":{parts.port}"
    return f"{host}{port}".encode("ascii")


class Dialer:
    """Makes connections to one upstream.

    Args:
        url: `http://host:port`, `https://host:port` or `unix:/path`.
        connect_timeout_s: Longest wait for a connection, name and TLS included.
    """

    def __init__(self, url: str, connect_timeout_s: float) -> None:
        self._timeout_s = connect_timeout_s
        self._path = url.removeprefix("unix:") if url.startswith("unix:") else None
        parts = urlsplit("http://localhost" if self._path else url)
        self._tls = parts.scheme == "https"
        self._host = _ascii(parts.hostname or "")
        self._port = parts.port or _DEFAULT_PORTS[parts.scheme]
        self._context: ssl.SSLContext | None = None
        self._last_good = ""

    def open(self) -> None:
        """Read the certificates to trust, where TLS is spoken; that takes 20 ms and more."""
        if self._tls and self._context is None:
            # httpx's own choice (SSL_CERT_FILE, SSL_CERT_DIR, else certifi), so that both clients trust the same.
            from httpx import create_ssl_context

            self._context = create_ssl_context()
            self._context.set_alpn_protocols(["http/1.1"])

    async def dial(self, make: Callable[[], P]) -> P:
        """A new connection. Raises: UpstreamError."""
        self.open()
        try:
            async with asyncio.timeout(self._timeout_s):
                return await (self._dial_unix(make) if self._path is not None else self._dial_tcp(make))
        except TimeoutError as error:
            raise failures.connect_timed_out(self._timeout_s) from error
        except (OSError, UnicodeError) as error:
            # UnicodeError: a label of the host's name is too long, or empty.
            raise failures.cannot_connect(error) from error

    async def _dial_unix(self, make: Callable[[], P]) -> P:
        _, protocol = await asyncio.get_running_loop().create_unix_connection(make, self._path)
        return protocol

    async def _dial_tcp(self, make: Callable[[], P]) -> P:
        loop = asyncio.get_running_loop()
        addresses = await self._addresses()
        for number, address in enumerate(addresses):
            try:
                # A share of the time each, so that an address that swallows packets leaves the others some.
                async with asyncio.timeout(self._timeout_s / len(addresses)):
                    _, protocol = await loop.create_connection(
                        make,
                        address,
                        self._port,
                        ssl=self._context,
                        server_hostname=self._host if self._tls else None,
                    )
            except OSError:
                if number + 1 == len(addresses):
                    raise
            else:
                self._last_good = address
                return protocol
        raise socket.gaierror(socket.EAI_NONAME, "no address")

    async def _addresses(self) -> list[str]:
        """All of the host's, the one that worked last first."""
        try:
            ipaddress.ip_address(self._host)
        except ValueError:
            found = await asyncio.get_running_loop().getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
            names = dict.fromkeys(str(address[0]) for *_, address in found)
            return sorted(names, key=lambda name: name != self._last_good)
        return [self._host]


def _ascii(host: str) -> str:
    return host if host.isascii() else host.encode("idna").decode("ascii")
