"""What uvicorn's own protocol would lose or mistake: bodies behind an upgrade, trailer fields."""

import socket
from typing import Any

import pytest

_OFFER = b"Host: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\n"
_SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"


@pytest.fixture
def seen(servers: Any) -> Any:
    """Sends parts over one connection; what the app got: (target, header names, body) of each request."""
    requests: list[tuple[bytes, set[bytes], bytes]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        requests.append((scope["infertap.target"], {name for name, _ in scope["headers"]}, body))
        await send({"type": "http.response.start", "status": 200, "headers": [(b"connection", b"close")]})
        await send({"type": "http.response.body", "body": b"fine"})

    port = servers.app(app, lifespan="off")

    def ask(*parts: bytes) -> list[tuple[bytes, set[bytes], bytes]]:
        with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for part in parts:
                client.sendall(part)
            while client.recv(1 << 16):
                pass
        return requests

    return ask


@pytest.mark.parametrize("offer", [_OFFER, _OFFER.replace(b"h2c", b"websocket")], ids=["h2c", "websocket"])
def test_the_body_behind_an_upgrade_is_no_request(seen: Any, offer: bytes) -> None:
    """Whole, in one part or two, with a length or in chunks; the app still sees the offer."""
    head = b"POST /x HTTP/1.1\r\n" + offer
    length = b"Content-Length: %d\r\n\r\n" % len(_SMUGGLED)
    chunks = b"%x\r\n%b\r\n0\r\n\r\n" % (len(_SMUGGLED), _SMUGGLED)
    seen(head + length + _SMUGGLED)
    seen(head + length, _SMUGGLED)
    seen(head + b"Transfer-Encoding: chunked\r\n\r\n" + chunks)
    requests = seen(head + b"Transfer-Encoding: chunked\r\n\r\n", chunks)
    assert [(target, body) for target, _, body in requests] == [(b"/x", _SMUGGLED)] * 4
    assert all(b"upgrade" in names for _, names, _ in requests)


def test_a_tunnel_is_not_read_again_for_ever(seen: Any) -> None:
    """CONNECT upgrades without an offer: it is refused."""
    assert seen(b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n") == []


def test_trailers_are_no_headers(seen: Any) -> None:
    """Nobody adds header fields behind the body."""
    chunked = b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n"
    ((_, names, body),) = seen(chunked + b"Authorization: Bearer evil\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n")
    assert body == b"a"
    assert names == {b"host", b"transfer-encoding"}
