"""A small OpenAI-compatible server: chat completions, whole or streamed, with a tool call, and embeddings.

A key that is not `KEY` is refused with 401 and repeated in the error, as OpenAI's own API does.
"""

import json
from collections.abc import AsyncIterator
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

KEY = "sk-proj-the0right0key0of0this0server00"
ARGUMENTS = '{"city": "Paris", "password": "hunter2-of-the-tool"}'
USAGE = {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}
HEAD = {"id": "chatcmpl-1", "created": 1_700_000_000, "model": "small-1"}


async def chat(request: Request) -> Response:
    if (refusal := refused(request)) is not None:
        return refusal
    asked = await request.json()
    if asked.get("stream"):
        return StreamingResponse(events(), media_type="text/event-stream")
    call = {"id": "call-1", "type": "function", "function": {"name": "weather", "arguments": ARGUMENTS}}
    message: dict[str, Any] = {"role": "assistant", "content": "blue sky"}
    if asked.get("tools"):
        message |= {"content": None, "tool_calls": [call]}
    choice = {"index": 0, "message": message, "finish_reason": "tool_calls" if asked.get("tools") else "stop"}
    return JSONResponse({**HEAD, "object": "chat.completion", "choices": [choice], "usage": USAGE})


async def events() -> AsyncIterator[bytes]:
    for delta, reason in (({"role": "assistant", "content": "blue"}, None), ({"content": " sky"}, None), ({}, "stop")):
        choice = {"index": 0, "delta": delta, "finish_reason": reason}
        document = {**HEAD, "object": "chat.completion.chunk", "choices": [choice]}
        yield b"data: " + json.dumps(document).encode() + b"\n\n"
    yield b"data: [DONE]\n\n"


async def embeddings(request: Request) -> Response:
    if (refusal := refused(request)) is not None:
        return refusal
    vector = {"object": "embedding", "index": 0, "embedding": [0.25, -0.5]}
    return JSONResponse({"object": "list", "data": [vector], "model": "small-1", "usage": USAGE})


def refused(request: Request) -> Response | None:
    key = request.headers.get("authorization", "").removeprefix("Bearer ")
    if key == KEY:
        return None
    error = {"message": f"Incorrect API key provided: {key}.", "type": "invalid_request_error", "param": None}
    return JSONResponse({"error": {**error, "code": "invalid_api_key"}}, 401)


app = Starlette(
    routes=[
        Route("/v1/chat/completions", chat, methods=["POST"]),
        Route("/v1/embeddings", embeddings, methods=["POST"]),
    ]
)
