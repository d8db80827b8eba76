"""Addresses as text, and as sockets that really listen."""

import os
import re
import socket
import stat
from pathlib import Path

import pytest

from infertap_sidecar.address import Address, bound, listen, parse_address


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:8900", Address("127.0.0.1", 8900)),
        ("localhost:0", Address("localhost", 0)),
        ("[::1]:8900", Address("::1", 8900)),
        (":8900", Address("0.0.0.0", 8900)),
        ("unix:/run/x.sock", Address("", 0, "/run/x.sock")),
    ],
)
def test_addresses_are_understood(text: str, address: Address) -> None:
    """Every documented form gives host and port, or a path."""
    assert parse_address(text) == address


@pytest.mark.parametrize("text", ["8900", "host", "host:", "host:99999", "::1:80", "http://a:1", "unix:x", "a b:1", ""])
def test_anything_else_is_refused_with_the_forms(text: str) -> None:
    """The error says what was expected."""
    with pytest.raises(ValueError, match="expected host:port"):
        parse_address(text)


def test_a_chosen_port_is_told() -> None:
    """Port 0 is replaced by the one that the system gave."""
    with listen(Address("127.0.0.1", 0), "--listen") as listener:
        address = bound(listener)
        assert address.port > 0
        socket.create_connection(("127.0.0.1", address.port), timeout=60).close()


def test_a_taken_address_is_named() -> None:
    """The error text holds the address, the reason, and the flag that takes another one."""
    with listen(Address("127.0.0.1", 0), "--listen") as listener:
        taken = bound(listener)
        words = f"cannot listen on {taken}: address already in use (--admin takes another one)"
        with pytest.raises(OSError, match=re.escape(words)):
            listen(taken, "--admin")


def test_a_unix_socket_replaces_a_dead_one_and_is_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a former run left is replaced; others cannot connect."""
    # From the folder itself: the whole path may be longer than a socket's may be.
    monkeypatch.chdir(tmp_path)
    path = Path("s")
    listen(Address("", 0, str(path)), "--listen").close()
    with listen(Address("", 0, str(path)), "--listen") as listener:
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
        assert str(bound(listener)) == f"unix:{path}"


def test_a_plain_file_is_never_replaced_by_a_socket(tmp_path: Path) -> None:
    """Somebody else's file stays."""
    path = tmp_path / "s"
    path.write_text("mine")
    with pytest.raises(OSError, match="cannot listen"):
        listen(Address("", 0, str(path)), "--listen")
    assert path.read_text() == "mine"
