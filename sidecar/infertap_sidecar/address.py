"""Addresses as people type them: `host:port`, `[::1]:port`, `unix:/path`; and the sockets behind them."""

import os
import re
import socket
import stat
from contextlib import suppress
from typing import NamedTuple

_ADDRESS = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.%]+)\]|(?P<host>[^:\[\]/\s]*)):(?P<port>\d{1,5})")

BACKLOG = 2048


class Address(NamedTuple):
    """Where to listen: a host and a port, or the path of a unix socket."""

    host: str
    port: int
    path: str | None = None

    def __str__(self) -> str:
        if self.path is not None:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str) -> Address:
    """Raises: ValueError, with what was expected. An empty host (`:8900`) means all interfaces."""
    if text.startswith("unix:/"):
        return Address("", 0, text.removeprefix("unix:"))
    match = _ADDRESS.fullmatch(text)
    if match is None or int(match["port"]) > 65_535:
        raise ValueError(f"{text!r} is no address; expected host:port, [::1]:port or unix:/path")
    return Address(match["v6"] or match["host"] or "0.0.0.0", int(match["port"]))


def listen(address: Address, flag: str) -> socket.socket:
    """A listening socket.

    Args:
        flag: What names another address on the command line: `--listen`.

    Raises:
        OSError: its text names the address, the reason and the flag.
    """
    try:
        return _listen_unix(address.path) if address.path is not None else _listen_tcp(address)
    except OSError as error:
        reason = error.strerror or str(error)
        words = f"cannot listen on {address}: {reason[:1].lower()}{reason[1:]} ({flag} takes another one)"
        raise OSError(error.errno, words) from error


def bound(listener: socket.socket) -> Address:
    """Where a socket really listens: the port that the system chose for port 0."""
    name = listener.getsockname()
    return Address("", 0, name) if isinstance(name, str) else Address(name[0], name[1])


def _listen_tcp(address: Address) -> socket.socket:
    family, _, _, _, target = socket.getaddrinfo(
        address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(target)
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def _listen_unix(path: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with suppress(FileNotFoundError):
            # Only what a former run left behind; a plain file of that name is somebody else's.
            if stat.S_ISSOCK(os.stat(path).st_mode):
                os.unlink(path)
        listener.bind(path)
        os.chmod(path, 0o600)
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener
