"""An app whose spans hold what each platform refuses in its own way: long texts, long lists, maps of objects."""

from collections.abc import Awaitable, Callable
from typing import Any

from starlette.responses import JSONResponse
from zoo import body_of

from infertap import InferenceMiddleware, annotate, start_span


async def app(scope: dict[str, Any], receive: Callable[[], Any], send: Callable[[Any], Awaitable[None]]) -> None:
    if scope["type"] == "lifespan":
        for _ in range(2):
            message = await receive()
            await send({"type": f"{message['type']}.complete"})
        return
    if scope["path"] == "/health":
        await JSONResponse({})(scope, receive, send)
        return
    body = await body_of(receive)
    annotate(user="u-17")
    with start_span("retrieve") as span:
        span.set_attribute("documents", [f"document {number}" for number in range(100)])
        span.set_attribute("text", "é" * 50_000)
        for part in range(4):
            span.set_attribute(f"part {part}", "p" * 20_000)
        span.set_attribute("n" * 300, 1)
        span.set_inputs({"messages": [{"role": "user", "content": "x" * 3000}]})
        span.set_outputs({"size": len(body)})
    await JSONResponse({"size": len(body), "answer": "a" * 3000})(scope, receive, send)


recorded = InferenceMiddleware(app)
