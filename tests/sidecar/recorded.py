"""Records a few requests into a folder's spool: the real middleware around a tiny app, driven without a server."""

import asyncio
import sys
from collections.abc import MutableMapping
from typing import Any

from infertap import Config, InferenceMiddleware

ANSWERS = {"/v1/good": 200, "/v1/missing": 404, "/v1/broken": 500}


async def app(scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    await receive()
    status = ANSWERS[scope["path"]]
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b'{"answer": "[b]%d[/b]"}' % status})


async def record(tables: str, header_count: int) -> None:
    """One request a path, with so many headers, then a clean stop that delivers nothing."""
    wrapped = InferenceMiddleware(app, config=Config(tables=tables, drainer="external", drain_s=0))
    inbox: asyncio.Queue[Any] = asyncio.Queue()
    started = asyncio.Event()

    async def answered(message: Any) -> None:
        started.set()

    lifespan = asyncio.create_task(wrapped({"type": "lifespan"}, inbox.get, answered))
    await inbox.put({"type": "lifespan.startup"})
    await started.wait()
    for path in ANSWERS:
        await ask(wrapped, path, [(b"x-%d" % number, b"v") for number in range(header_count)])
    await inbox.put({"type": "lifespan.shutdown"})
    await lifespan


async def ask(wrapped: InferenceMiddleware, path: str, headers: list[tuple[bytes, bytes]]) -> None:
    async def receive() -> Any:
        return {"type": "http.request", "body": b'{"question": 1}', "more_body": False}

    async def send(message: Any) -> None:
        return

    scope = {
        "type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "query_string": b"",
        "headers": headers,
        "http_version": "1.1", "scheme": "http", "client": ("10.0.0.1", 1), "server": ("h", 80), "root_path": "",
    }  # fmt: skip
    await wrapped(scope, receive, send)


if __name__ == "__main__":
    asyncio.run(record(sys.argv[1], int(sys.argv[2])))
