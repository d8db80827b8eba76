"""An ASGI app with one path per way in which an answer can go: served bare behind the sidecar, or wrapped.

`app` knows nothing of infertap; `recorded` is the same behind the middleware.
"""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from starlette.responses import StreamingResponse

from infertap import InferenceMiddleware

Send = Callable[[dict[str, Any]], Awaitable[None]]
Receive = Callable[[], Awaitable[dict[str, Any]]]
JSON = (b"content-type", b"application/json")


async def body_of(receive: Receive) -> bytes:
    body = b""
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return body
        body += message.get("body", b"")
        if not message.get("more_body", False):
            return body


async def answer(send: Send, status: int, body: bytes = b"", *headers: tuple[bytes, bytes]) -> None:
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [length, *headers]})
    await send({"type": "http.response.body", "body": body})


async def stream(send: Send, chunks: list[bytes], media_type: bytes) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", media_type)]})
    for chunk in chunks:
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def ticks() -> AsyncIterator[bytes]:
    for _ in range(2_000):
        yield b"data: tick\n\n"
        await asyncio.sleep(0.05)


async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                return
    assert scope["type"] == "http"
    path = scope["path"]
    name = path.partition("/")[2].partition("/")[0]
    if name == "echo":
        await answer(send, 200, await body_of(receive), *[(k, v) for k, v in scope["headers"] if k == b"content-type"])
    elif name == "status":
        status = int(path.rpartition("/")[2])
        extra = [(b"location", b"/echo?token=abc")] if 300 <= status < 400 else []
        body = b"" if status in (204, 304) else json.dumps({"status": status}).encode()
        await body_of(receive)
        await answer(send, status, body, JSON, *extra)
    elif name == "stream":
        count = int(path.rpartition("/")[2])
        await body_of(receive)
        await stream(send, [f'data: {{"token": {n}}}\n\n'.encode() for n in range(count)], b"text/event-stream")
    elif name == "slow-stream":
        await body_of(receive)
        # A framework's streaming answer asks its server whether the client is still there.
        await StreamingResponse(ticks(), media_type="text/event-stream")(scope, receive, send)
    elif name == "binary":
        await answer(send, 200, bytes(range(256)), (b"content-type", b"application/octet-stream"))
    elif name == "latin":
        await answer(send, 200, b"caf\xe9", (b"content-type", b"text/plain; charset=latin-1"), (b"x-name", b"caf\xe9"))
    elif name == "not-utf8":
        await answer(send, 200, b'{"a": "\xff\xfe"}', JSON)
    elif name == "not-json":
        await answer(send, 200, b'{"password": "hunter2", oops', JSON)
    elif name == "twice":
        await answer(send, 200, b"{}", JSON, (b"vary", b"accept"), (b"vary", b"origin"))
    elif name == "raise-before":
        raise RuntimeError("api_key=sk-secretsecretsecret was wrong")
    elif name == "raise-after":
        await send({"type": "http.response.start", "status": 200, "headers": [JSON]})
        await send({"type": "http.response.body", "body": b'{"half":', "more_body": True})
        await asyncio.sleep(0.05)
        raise RuntimeError("half way")
    elif name == "nothing":
        return
    elif name == "after-the-end":
        await answer(send, 200, b"{}", JSON)
        await send({"type": "http.response.body", "body": b"more"})
    elif name == "large":
        size = int(path.rpartition("/")[2])
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
        for _ in range(size // 65536):
            await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
    elif name == "pid":
        await answer(send, 200, json.dumps({"pid": os.getpid()}).encode(), JSON)
    else:
        await answer(send, 404, b'{"error": "no such path"}', JSON)


recorded = InferenceMiddleware(app)
