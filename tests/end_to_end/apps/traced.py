"""An ASGI app that makes a child span for each request and answers with the headers it was sent."""

import json
from collections.abc import Awaitable, Callable
from typing import Any

from infertap import InferenceMiddleware, start_span

JSON = (b"content-type", b"application/json")


async def app(
    scope: dict[str, Any], receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]
) -> None:
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                return
    await receive()
    with start_span("model") as span:
        span.set_outputs({"y": 1})
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
    await send({"type": "http.response.start", "status": 200, "headers": [JSON]})
    await send({"type": "http.response.body", "body": json.dumps(headers).encode()})


recorded = InferenceMiddleware(app)
twice = InferenceMiddleware(recorded)
