"""Apps whose start fails, each bare and behind the middleware: `FAILS` says how."""

import os
from typing import Any

from infertap import InferenceMiddleware


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        way = os.environ["FAILS"]
        if way == "before-asking":
            raise RuntimeError("no model here")
        await receive()
        if way == "after-asking":
            raise RuntimeError("no model here")
        await send({"type": "lifespan.startup.failed", "message": "no model here"})
        return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


recorded = InferenceMiddleware(app)
