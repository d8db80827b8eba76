"""The operator's port: is it alive, should it get traffic, what does it count."""

from typing import Protocol

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from infertap.asgi_types import ASGIApp, Receive, Scope, Send


class Health(Protocol):
    """What the rest of the process says about itself."""

    def problems(self) -> list[str]:
        """Why this process should get no traffic now; empty means ready."""


def admin_app(health: Health, metrics: ASGIApp) -> Starlette:
    """`/livez`, `/readyz` and `/metrics`, none behind a token.

    A destination that cannot be reached makes nobody unready: requests are answered and spooled all the same.
    """

    async def livez(_: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(_: Request) -> Response:
        problems = health.problems()
        if problems:
            return JSONResponse({"ready": False, "problems": problems}, status_code=503)
        return JSONResponse({"ready": True})

    return Starlette(routes=[Route("/livez", livez), Route("/readyz", readyz), Route("/metrics", _Whole(metrics))])


class _Whole:
    """An ASGI app under one exact path: Starlette takes a plain function for a request handler."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)
