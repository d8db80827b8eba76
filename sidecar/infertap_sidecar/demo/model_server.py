"""A model server as people run them: it scores, it chats, it fails at times, and it knows nothing of infertap."""

from functools import partial

import sklearn  # type: ignore[import-untyped]  # scikit-learn ships no types
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from infertap_sidecar.demo.chat import MODEL_NAME, Answer, ChatError, parse_chat
from infertap_sidecar.demo.scoring import ScoringError, parse_rows
from infertap_sidecar.demo.wine import WineModel


def make_app() -> Starlette:
    """An ASGI app around a freshly trained model: `uvicorn --factory infertap_sidecar.demo.model_server:make_app`."""
    model = WineModel()
    return Starlette(
        routes=[
            Route("/invocations", partial(_invocations, model), methods=["POST"]),
            Route("/v1/chat/completions", partial(_chat_completions, model), methods=["POST"]),
            Route("/v1/models", _models),
            Route("/wines/{number:int}", partial(_wine, model)),
            Route("/ping", _alive),
            Route("/health", _alive),
            Route("/version", _version),
        ],
        exception_handlers={Exception: _crashed},
    )


async def _invocations(model: WineModel, request: Request) -> Response:
    try:
        rows = parse_rows(request.headers.get("content-type", ""), await request.body(), model.features)
    except ScoringError as error:
        return JSONResponse(error.body(), error.status)
    return JSONResponse({"predictions": await run_in_threadpool(model.predict, rows)})


async def _chat_completions(model: WineModel, request: Request) -> Response:
    try:
        chat = parse_chat(await request.body(), model)
    except ChatError as error:
        return JSONResponse(error.body(), error.status)
    answer = Answer(chat, model)
    if chat.stream:
        return StreamingResponse(answer.events(), media_type="text/event-stream", headers={"cache-control": "no-cache"})
    return JSONResponse(await answer.completion())


async def _wine(model: WineModel, request: Request) -> Response:
    """One wine of the data set. It trusts the number, as too many handlers do: an unknown one is a 500."""
    measurements = model.sample(request.path_params["number"])
    return JSONResponse(dict(zip(model.features, measurements, strict=True)))


async def _crashed(_request: Request, error: Exception) -> Response:
    # Starlette raises on after this answer, and uvicorn then drops the connection: say so, or it would be used again.
    return JSONResponse({"error": type(error).__name__}, 500, headers={"connection": "close"})


async def _models(_request: Request) -> Response:
    return JSONResponse({"object": "list", "data": [{"id": MODEL_NAME, "object": "model", "owned_by": "demo"}]})


async def _alive(_request: Request) -> Response:
    return PlainTextResponse("\n")


async def _version(_request: Request) -> Response:
    return PlainTextResponse(str(sklearn.__version__))
