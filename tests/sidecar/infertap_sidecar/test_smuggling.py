"""Odd requests at random: the model server, with a parser of its own, sees the requests that the proxy saw."""

import contextlib
import random
import socket
from concurrent.futures import ThreadPoolExecutor
from typing import Any

SEEDS = range(60)
REQUESTS_MAX = 6
SILENCE_S_MAX = 3.0
"""Longer than a server here takes for anything, so that who is silent waits for more of the stream."""


class Seen:
    """An app that keeps each request's target and body, and says `ok`."""

    def __init__(self) -> None:
        self.requests: list[tuple[bytes, bytes]] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] != "http.request":
                return
            body += message.get("body", b"")
            more = message.get("more_body", False)
        query = scope["query_string"]
        self.requests.append((scope["raw_path"] + (b"?" + query if query else b""), body))
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})


def often(chance: random.Random, usual: bytes, *others: bytes) -> bytes:
    return usual if chance.random() < 0.95 else chance.choice(others)


def chunked(chance: random.Random, body: bytes) -> bytes:
    cut = chance.randrange(len(body) + 1)
    pieces = [piece for piece in (body[:cut], body[cut:]) if piece]
    style = often(chance, b"%x", b"%X", b"000%x", b"%x;a=b", b'%x;a="\\r"', b"%x ", b" %x", b"0x%x", b"+%x")
    end = often(chance, b"\r\n", b"\n")
    trailer = often(chance, b"", b"X-T: 1\r\n", b"Content-Length: 3\r\n", b"Host: evil\r\n")
    framed = b"".join([style % len(piece) + end + piece + b"\r\n" for piece in pieces])
    return framed + b"0\r\n" + trailer + b"\r\n"


LENGTHS = (b"0%d", b"+%d", b"%d, %d", b" %d ", b"%d\x0b")
CODINGS = (
    b"Chunked", b" chunked ", b"\tchunked", b"gzip, chunked", b"chunked, gzip", b"xchunked", b"chunked;a=b",
    b"identity", b"\x0bchunked", b"chunked,", b"chunked, chunked", b"",
)  # fmt: skip
FIELDS = (
    b"Connection: keep-alive", b"Connection: content-length", b"Connection: transfer-encoding, host", b"Host: other",
    b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: x", b"X-A: 1\r\n folded", b"X-B: a\rb",
    b"X-C:", b"TE: trailers", b"Expect: 100-continue", b"Keep-Alive: 5", b"X-Forwarded-For: 1.2.3.4", b"Trailer: X-T",
    b"Proxy-Connection: close", b"Content_Length: 3", b"Transfer-Encoding\x00: chunked",
)  # fmt: skip


def odd_request(chance: random.Random, seed: int, number: int) -> bytes:
    """One that is valid more often than not, with a body that looks like a request."""
    hidden = b"GET /%d/hidden HTTP/1.1\r\nHost: h\r\n\r\n" % seed
    target = chance.choice([b"/%d/%d", b"/%d/%d?q", b"/%d//%d/..", b"http://other/%d/%d", b"/%d/%d%%2f"]) % (
        seed,
        number,
    )
    body = chance.choice([b"", b"x", hidden, hidden * 2, b"0\r\n\r\n" + hidden])
    framing = often(chance, chance.choice([b"length", b"chunks"]), b"length, chunks", b"length, length", b"")
    fields = [b"Host: h"]
    for kind in framing.split(b", "):
        if kind == b"length":
            style = often(chance, b"%d", *LENGTHS)
            size = len(body) if len(fields) == 1 else chance.choice([len(body), 0, 1])
            name = often(chance, b"Content-Length: ", b"content-length:", b"Content-Length : ")
            fields.append(name + style % ((size,) * style.count(b"%d")))
        elif kind == b"chunks":
            name = often(chance, b"Transfer-Encoding: ", b"transfer-encoding:", b"Transfer-Encoding : ")
            fields.append(name + often(chance, b"chunked", *CODINGS))
    fields += chance.sample(FIELDS, chance.choice([0, 0, 0, 1, 2]))
    chance.shuffle(fields)
    method = chance.choice([b"POST", b"POST", b"PUT", b"GET", b"HEAD", b"OPTIONS"])
    version = often(chance, b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.0")
    head = often(chance, b"\r\n", b"\n").join([b" ".join((method, target, version)), *fields, b"", b""])
    return head + (chunked(chance, body) if b"chunks" in framing else body)


def stream(seed: int) -> bytes:
    chance = random.Random(seed)
    return b"".join(odd_request(chance, seed, number) for number in range(chance.randint(1, REQUESTS_MAX)))


def talk(port: int, seed: int) -> None:
    """Send a stream in pieces, and read until the server is done with it."""
    chance, rest = random.Random(seed), stream(seed)
    with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with contextlib.suppress(TimeoutError, ConnectionError):
            while rest:
                size = chance.choice([1, 3, 50, 1_000, 10_000])
                client.sendall(rest[:size])
                rest = rest[size:]
            client.settimeout(SILENCE_S_MAX)
            while client.recv(1 << 16):
                pass


def is_within(part: list[tuple[bytes, bytes]], whole: list[tuple[bytes, bytes]]) -> bool:
    rest = iter(whole)
    return all(request in rest for request in part)


def test_the_model_server_sees_what_the_proxy_saw(servers: Any) -> None:
    """Whatever the framing, each request behind the proxy is one that was in front of it, with the same body; h11 reads
    them behind it, httptools in front of it."""
    front, behind = Seen(), Seen()
    ports = servers.app(front, lifespan="off"), servers.proxy(servers.app(behind, lifespan="off", http="h11"))
    with ThreadPoolExecutor(32) as clients:
        list(clients.map(talk, [port for port in ports for _ in SEEDS], [*SEEDS, *SEEDS]))
    for seed in SEEDS:
        own = b"/%d/" % seed
        seen = [request for request in front.requests if request[0].startswith(own)]
        passed = [request for request in behind.requests if request[0].startswith(own)]
        # A request that the proxy refuses is missing behind it; none is new there, larger, or out of order.
        assert is_within(passed, seen), (seed, stream(seed), seen, passed)
    assert len(SEEDS) < len(behind.requests) <= len(front.requests)
