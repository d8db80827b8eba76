"""One FastAPI app, and the makers of spans that may be in it: `MAKER` names one, `RECORDED=1` wraps it in infertap.

`MAKER`: `none`; `asgi` and `instrumentor` (OpenTelemetry's, outside of the app), `fastapi` and `starlette` (the
frameworks' own), `mlflow` (isolated or shared, by MLflow's own variable; `UNTAGGED=1` sets no tag on the trace).
"""

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from infertap import InferenceMiddleware, annotate, start_span

MAKER = os.environ["MAKER"]
PREDICT = "predict"
"""The name of the one span that each handler makes with its maker."""

if MAKER == "mlflow":
    import mlflow
elif MAKER not in ("none", "installed"):
    provider = TracerProvider(shutdown_on_exit=False)
    if os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT"):
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor

        provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)


def predict() -> dict[str, Any]:
    if MAKER == "mlflow":
        # The snippet of MLflow's page on OpenTelemetry export.
        with mlflow.start_span(PREDICT) as span:
            span.set_inputs({"a": 1})
            span.set_outputs({"b": 2})
            if not os.environ.get("UNTAGGED"):
                mlflow.update_current_trace(tags={"team": "red"})
    elif MAKER == "none":
        with start_span(PREDICT):
            annotate(user="u-1")
    else:
        with trace.get_tracer("library").start_as_current_span(PREDICT):
            annotate(user="u-1")
    return {"done": True}


web = FastAPI(telemetry={"tracing": MAKER == "fastapi" or bool(os.environ.get("FASTAPI_TRACING"))})


@web.get("/health")
def health() -> dict[str, Any]:
    return {}


@web.post("/sync")
def sync_handler() -> dict[str, Any]:
    return predict()


@web.post("/async")
async def async_handler() -> dict[str, Any]:
    return predict()


@web.post("/joined")
def joined_handler(request: Request) -> dict[str, Any]:
    """What an app without infertap writes so that MLflow's spans join the caller's trace."""
    with mlflow.tracing.set_tracing_context_from_http_request_headers(dict(request.headers)):
        return predict()


@web.post("/pool")
async def pool_handler() -> dict[str, Any]:
    return await asyncio.to_thread(predict)


@web.post("/stream")
async def stream_handler() -> StreamingResponse:
    async def answer() -> AsyncIterator[str]:
        yield "data: first\n\n"
        predict()
        yield "data: last\n\n"

    return StreamingResponse(answer(), media_type="text/event-stream")


@web.post("/raises")
def raising_handler() -> None:
    predict()
    raise RuntimeError("the model is out of order")


@web.post("/meet/{count}")
async def meeting_handler(request: Request, count: int) -> dict[str, Any]:
    """Waits until `count` requests are here, so that they overlap; then each ends in its turn and traces on."""
    room = request.app.state.__dict__.setdefault(
        "room", {"here": 0, "all": asyncio.Event(), "turn": asyncio.Condition()}
    )
    place = room["here"]
    room["here"] += 1
    if room["here"] == count:
        room["all"].set()
    await asyncio.wait_for(room["all"].wait(), 90)
    async with room["turn"]:
        await asyncio.wait_for(room["turn"].wait_for(lambda: room.get("left", 0) == place), 90)
        predict()
        room["left"] = place + 1
        room["turn"].notify_all()
    return {"place": place}


if MAKER == "starlette":
    from starlette.middleware.opentelemetry import OpenTelemetryMiddleware as StarletteTracing

    web.add_middleware(StarletteTracing)
recorded = bool(os.environ.get("RECORDED"))
if MAKER == "instrumentor":
    if recorded:
        web.add_middleware(InferenceMiddleware)
        recorded = False
    from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor

    FastAPIInstrumentor.instrument_app(web)

app: Any = InferenceMiddleware(web) if recorded else web
if MAKER == "asgi":
    from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware

    app = OpenTelemetryMiddleware(app, exclude_spans=["receive", "send"])
