"""What recording costs the event loop: in process, no network, one core, thread CPU, medians of interleaved rounds."""

import asyncio
import os
import random
import statistics
import time
from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from measure import pinned, show
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
from opentelemetry.sdk.trace import TracerProvider
from starlette.middleware.base import BaseHTTPMiddleware

from infertap import Config, InferenceMiddleware, start_span
from infertap.build import build_pipeline
from infertap.choice import choose
from infertap.events import EventLog
from infertap.otel_env import OtelEnvironment
from infertap.pipeline import Pipeline

App = Callable[[MutableMapping[str, Any], Any, Any], Awaitable[None]]
BODY = b"x" * 1024
CHUNK = b'data: {"choices":[{"delta":{"content":"tok"}}]}\n\n'
CHUNKS = 200
ROUNDS = 25
HEADERS = [
    (b"host", b"localhost:8000"), (b"user-agent", b"python-httpx/0.28"), (b"accept", b"*/*"),
    (b"accept-encoding", b"gzip, deflate"), (b"connection", b"keep-alive"), (b"content-type", b"application/json"),
    (b"content-length", b"1024"), (b"x-request-id", b"abc"),
]  # fmt: skip
TRACEPARENT = (b"traceparent", b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")


async def answers(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"1024")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": BODY})


async def streams(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    headers = [(b"content-type", b"text/event-stream")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    for _ in range(CHUNKS):
        await send({"type": "http.response.body", "body": CHUNK, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def starts_a_span(scope: Any, receive: Any, send: Any) -> None:
    with start_span("predict"):
        pass
    # As `answers`, which would cost another coroutine.
    await receive()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"1024")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": BODY})


def bare_tee(app: App) -> App:
    """Both bodies kept and thrown away: the floor of anything that records."""

    async def tee(scope: Any, receive: Any, send: Any) -> None:
        kept: list[bytes] = []

        async def receive_tee() -> Any:
            message = await receive()
            kept.append(message.get("body", b""))
            return message

        async def send_tee(message: Any) -> None:
            if message["type"] == "http.response.body":
                kept.append(message["body"])
            await send(message)

        await app(scope, receive_tee, send_tee)

    return tee


class _Dispatch(BaseHTTPMiddleware):
    async def dispatch(self, request: Any, call_next: Any) -> Any:
        return await call_next(request)


def recorded(app: App, pipeline: Pipeline) -> App:
    middleware = InferenceMiddleware(app)
    middleware._adopt(pipeline)
    return middleware


def build() -> Pipeline:
    config = Config(tables="./never_written", queue_bytes_max="1TiB")
    pipeline = build_pipeline(config, choose(config, OtelEnvironment.read({}), cwd=_cwd()), EventLog())
    # Stands in the place of the worker, whose cost is `worker.py`'s question: what is submitted is dropped.
    pipeline.inbox.queue = deque(maxlen=0)
    return pipeline


def _cwd() -> Any:
    from pathlib import Path

    return Path.cwd()


async def once(app: App, requests: int, headers: list[tuple[bytes, bytes]]) -> float:
    async def receive() -> Any:
        return {"type": "http.request", "body": BODY, "more_body": False}

    async def send(_: Any) -> None:
        return

    began = time.thread_time_ns()
    for _ in range(requests):
        scope = {
            "type": "http", "method": "POST", "path": "/v1/chat/completions", "raw_path": b"/v1/chat/completions",
            "query_string": b"", "http_version": "1.1", "scheme": "http", "root_path": "", "headers": headers,
            "client": ("127.0.0.1", 5000), "server": ("127.0.0.1", 8000), "state": {}, "asgi": {"version": "3.0"},
        }  # fmt: skip
        await app(scope, receive, send)
    return (time.thread_time_ns() - began) / requests / 1000


async def measure() -> None:
    provider = TracerProvider()
    pipeline = build()

    def otel(app: App, lean: bool) -> App:
        return OpenTelemetryMiddleware(
            app, tracer_provider=provider, exclude_spans=["send", "receive"] if lean else None
        )

    def wrappers(app: App) -> dict[str, App]:
        return {
            "bare app": app,
            "bare tee": bare_tee(app),
            "infertap": recorded(app, pipeline),
            "OpenTelemetry, lean": otel(app, True),
            "OpenTelemetry, as it comes": otel(app, False),
            "BaseHTTPMiddleware": _Dispatch(app),
        }

    traced = [*HEADERS, TRACEPARENT]
    cases: dict[str, tuple[App, int, list[tuple[bytes, bytes]]]] = {}
    for name, app in wrappers(answers).items():
        cases[f"request | {name}"] = (app, 300, HEADERS)
        cases[f"traced | {name}"] = (app, 300, traced)
    for name, app in wrappers(streams).items():
        cases[f"stream | {name}"] = (app, 8, HEADERS)
    cases["child | infertap"] = (recorded(starts_a_span, pipeline), 300, HEADERS)
    figures: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(ROUNDS):
        for name in random.sample(list(cases), len(cases)):
            app, requests, headers = cases[name]
            figures[name].append(await once(app, requests, headers))
            pipeline.budget.release(pipeline.budget.held)
    median = {name: statistics.median(values) for name, values in figures.items()}
    report(median)


def report(median: dict[str, float]) -> None:
    lean = median["request | OpenTelemetry, lean"] - median["request | bare app"]
    rows = []
    names = [name.partition(" | ")[2] for name in median if name.startswith("request |")]
    for name in names:
        over = median[f"request | {name}"] - median["request | bare app"]
        traced = median[f"traced | {name}"] - median["traced | bare app"]
        chunk = (median[f"stream | {name}"] - median["stream | bare app"]) / (CHUNKS + 1)
        rows.append((name, f"{over:.1f}", f"{traced:.1f}", f"{over / lean:.3f}", f"{chunk:.2f}"))
    child = median["child | infertap"] - median["request | bare app"]
    rows.append(("infertap + one child span", f"{child:.1f}", "", f"{child / lean:.3f}", ""))
    show(
        "Event loop: thread CPU over the bare app (1 KB in, 1 KB out; stream of 200 chunks)",
        ("", "us/request", "us, traceparent", "x OTel lean", "us/chunk"),
        rows,
    )


if __name__ == "__main__":
    with pinned():
        os.environ.pop("OTEL_EXPORTER_OTLP_ENDPOINT", None)
        asyncio.run(measure())
