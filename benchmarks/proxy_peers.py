"""The two ends of `proxy.py`: a model server that costs next to nothing, and a client that is always busy."""

import asyncio
import sys

import uvloop
from measure import take_core

BODY = b'{"prompt": "' + b"x" * 1010 + b'"}'
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(BODY), BODY)
HEAD = (
    b"POST /v1/chat/completions HTTP/1.1\r\nhost: model\r\naccept: */*\r\naccept-encoding: gzip, deflate\r\n"
    b"user-agent: bench\r\ncontent-type: application/json\r\nauthorization: Bearer none\r\ncontent-length: %d\r\n\r\n"
)
REQUEST = HEAD % len(BODY) + BODY


class Model(asyncio.Protocol):
    """Answers each request with the same bytes, once its body has come."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._rest = b""

    def data_received(self, data: bytes) -> None:
        self._rest += data
        while (end := self._rest.find(b"\r\n\r\n")) >= 0 and len(self._rest) >= end + 4 + len(BODY):
            self._rest = self._rest[end + 4 + len(BODY) :]
            self._transport.write(ANSWER)


class Caller(asyncio.Protocol):
    """Sends the next request as soon as an answer has come."""

    answers = 0
    stopping = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._got = b""
        transport.write(REQUEST)

    def data_received(self, data: bytes) -> None:
        self._got += data
        if not self._got.endswith(BODY):
            return
        if not self._got.startswith(b"HTTP/1.1 200"):
            raise SystemExit("the proxy failed")
        self._got = b""
        Caller.answers += 1
        if not Caller.stopping:
            self._transport.write(REQUEST)


async def serve() -> None:
    server = await asyncio.get_running_loop().create_server(Model, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


async def call(port: int, connections: int, duration_s: float) -> None:
    loop = asyncio.get_running_loop()
    for _ in range(connections):
        await loop.create_connection(Caller, "127.0.0.1", port)
    await asyncio.sleep(duration_s)
    Caller.stopping = True
    await asyncio.sleep(0.2)
    print(Caller.answers, flush=True)


if __name__ == "__main__":
    take_core(int(sys.argv[2]))
    uvloop.run(serve() if sys.argv[1] == "serve" else call(int(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5])))
