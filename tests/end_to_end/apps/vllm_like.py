"""Stands in for `vllm serve`: takes a middleware by its dotted name, starts and stops as vLLM's API server does.

A class goes to `add_middleware`, a coroutine function to `app.middleware("http")`, anything else is refused. On a
signal the task of uvicorn's server is cancelled, and `shutdown` is awaited after it.
"""

import argparse
import asyncio
import importlib
import inspect
import json
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import JSONResponse, Response, StreamingResponse


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    print("the engine is up", flush=True)
    try:
        yield
    finally:
        print("the engine is down", flush=True)


async def tokens() -> AsyncIterator[str]:
    for token in ("blue", " sky"):
        yield f"data: {json.dumps({'choices': [{'index': 0, 'delta': {'content': token}}]})}\n\n"
    yield "data: [DONE]\n\n"


def build_app(middleware: list[str]) -> FastAPI:
    app = FastAPI(lifespan=lifespan)

    @app.get("/health")
    async def health() -> Response:
        return Response(status_code=200)

    @app.post("/v1/chat/completions")
    async def chat(request: Request) -> Response:
        if (await request.json()).get("stream"):
            return StreamingResponse(tokens(), media_type="text/event-stream")
        return JSONResponse({"choices": [{"index": 0, "message": {"content": "blue sky"}}]})

    app.add_middleware(CORSMiddleware, allow_origins=["*"])
    for dotted in middleware:
        module, _, name = dotted.rpartition(".")
        found: Any = getattr(importlib.import_module(module), name)
        if inspect.isclass(found):
            app.add_middleware(found)
        elif inspect.iscoroutinefunction(found):
            app.middleware("http")(found)
        else:
            raise ValueError(f"{dotted} is neither a class nor a coroutine function")
    return app


async def serve(app: FastAPI, port: int) -> None:
    server = uvicorn.Server(uvicorn.Config(app, port=port))
    task = asyncio.ensure_future(server.serve())
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    try:
        await task
    except asyncio.CancelledError:
        await server.shutdown()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--middleware", action="append", default=[])
    arguments = parser.parse_args()
    asyncio.run(serve(build_app(arguments.middleware), arguments.port))
