"""An app that asks an OpenAI-compatible server by the `openai` client, whose calls somebody's instrumentation traces.

`INSTRUMENTATION` names it; `PROVIDER`: `installed` (the app has none), `own` (one without an exporter), `exporting`.
"""

import os
from collections.abc import AsyncIterator
from importlib import import_module
from typing import Any

import openai
from fastapi import FastAPI
from fastapi.responses import JSONResponse, StreamingResponse
from openai_server import KEY
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from infertap import InferenceMiddleware

MODULES = {
    "openinference": "openinference.instrumentation.openai",
    "openllmetry": "opentelemetry.instrumentation.openai",
    "contrib": "opentelemetry.instrumentation.openai_v2",
}
WRONG_KEY = "sk-proj-the0wrong0key0that0is0repeated0"
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}
QUESTION: list[Any] = [
    {"role": "system", "content": '{"api_key": "s3cret-of-the-prompt"}'},
    {"role": "user", "content": "why is the sky blue?"},
]
TOOLS: list[Any] = [TOOL]

if os.environ["PROVIDER"] != "installed":
    provider = TracerProvider(shutdown_on_exit=False)
    if os.environ["PROVIDER"] == "exporting":
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
import_module(MODULES[os.environ["INSTRUMENTATION"]]).OpenAIInstrumentor().instrument()

web = FastAPI(telemetry={"tracing": False})
tracer = trace.get_tracer("app")
arguments = {"base_url": os.environ["MODEL_URL"], "max_retries": 0, "timeout": 60.0}
client = openai.OpenAI(**arguments, api_key=KEY)
async_client = openai.AsyncOpenAI(**arguments, api_key=KEY)
stranger = openai.OpenAI(**arguments, api_key=WRONG_KEY)


@web.get("/health")
def health() -> dict[str, Any]:
    return {}


@web.post("/sync")
def sync_handler() -> dict[str, Any]:
    with tracer.start_as_current_span("answer"):
        answer = client.chat.completions.create(
            model="small-1",
            messages=QUESTION,
            tools=TOOLS,
            extra_headers={"authorization": f"Bearer {KEY}", "x-session": "session-of-the-caller"},
        )
        return {"calls": len(answer.choices[0].message.tool_calls or [])}


@web.post("/async")
async def async_handler() -> dict[str, Any]:
    with tracer.start_as_current_span("answer"):
        answer = await async_client.chat.completions.create(model="small-1", messages=QUESTION)
        return {"text": answer.choices[0].message.content}


@web.post("/stream")
async def stream_handler() -> StreamingResponse:
    async def tokens() -> AsyncIterator[str]:
        with tracer.start_as_current_span("answer"):
            stream = await async_client.chat.completions.create(model="small-1", messages=QUESTION, stream=True)
            async for chunk in stream:
                yield f"data: {chunk.choices[0].delta.content or ''}\n\n"

    return StreamingResponse(tokens(), media_type="text/event-stream")


@web.post("/embed")
async def embedding_handler() -> dict[str, Any]:
    with tracer.start_as_current_span("answer"):
        answer = await async_client.embeddings.create(model="small-1", input="the sky")
        return {"dimensions": len(answer.data[0].embedding)}


@web.post("/refused")
def refused_handler() -> JSONResponse:
    with tracer.start_as_current_span("answer"):
        try:
            stranger.chat.completions.create(model="small-1", messages=QUESTION)
        except openai.AuthenticationError as error:
            return JSONResponse({"refused": error.status_code}, 502)
    raise AssertionError("the server took a wrong key")


app = InferenceMiddleware(web)
