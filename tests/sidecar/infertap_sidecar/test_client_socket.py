"""What the kernel knows of a client that nobody reads from, on real sockets."""

import socket
import struct
import time
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from infertap_sidecar.client_socket import ClientSocket

CHUNKED = None


class Pair(NamedTuple):
    """Both ends of a TCP connection."""

    client: socket.socket
    server: socket.socket

    def gone(self, missing_bytes: int | None) -> bool:
        """Asked until true, but no longer than news take."""
        asked = ClientSocket(self.server.fileno())
        deadline_s = time.monotonic() + 0.5
        while not (gone := asked.gone(missing_bytes)) and time.monotonic() < deadline_s:
            time.sleep(0.01)
        return gone


@pytest.fixture
def pair() -> Iterator[Pair]:
    """A client and its server."""
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as client:
        server, _ = listener.accept()
        with server:
            yield Pair(client, server)


def test_who_is_there_is_not_gone(pair: Pair) -> None:
    """Whatever has been sent."""
    assert not pair.gone(9)
    pair.client.sendall(b"abc")
    assert not pair.gone(9)
    assert not pair.gone(CHUNKED)


def test_who_resets_is_gone(pair: Pair) -> None:
    """Even with the whole rest sent: it went with the reset."""
    pair.client.sendall(b"abc")
    pair.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    pair.client.close()
    assert pair.gone(3)
    assert pair.gone(CHUNKED)


@pytest.mark.skipif(not hasattr(__import__("select"), "POLLRDHUP"), reason="this system cannot tell")
def test_who_ends_is_gone_unless_the_rest_is_there(pair: Pair) -> None:
    """By the length, or by the last chunk; nothing is taken from the connection by asking."""
    pair.client.sendall(b"1\r\na\r\n0\r\n\r\n")
    pair.client.shutdown(socket.SHUT_WR)
    assert pair.gone(12)
    assert not pair.gone(11)
    assert not pair.gone(CHUNKED)
    assert pair.server.recv(6) == b"1\r\na\r\n"
    assert not pair.gone(CHUNKED)
    assert pair.server.recv(100) == b"0\r\n\r\n"
    assert pair.gone(CHUNKED)
