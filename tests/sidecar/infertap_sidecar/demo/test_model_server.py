"""The demo's model server, through its ASGI interface."""

import asyncio
import subprocess
import sys
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette

from infertap_sidecar.demo.model_server import make_app
from infertap_sidecar.demo.wine import WineModel


@pytest.fixture(scope="module")
def app() -> Starlette:
    """The server's app, with its own trained model."""
    return make_app()


def ask(app: Starlette, method: str, path: str, **arguments: Any) -> httpx.Response:
    """One request."""

    async def send() -> httpx.Response:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://model") as client:
            return await client.request(method, path, **arguments)

    return asyncio.run(send())


def test_it_scores(app: Starlette, model: WineModel) -> None:
    """The predictions of `/invocations` are the model's."""
    rows = [model.sample(0), model.sample(70), model.sample(150)]
    response = ask(app, "POST", "/invocations", json={"inputs": rows})
    assert response.status_code == 200
    assert response.json() == {"predictions": model.predict(rows)}


@pytest.mark.parametrize(
    ("path", "arguments", "status"),
    [
        ("/invocations", {"json": {"input": []}}, 400),
        ("/invocations", {"content": b"x", "headers": {"content-type": "image/png"}}, 415),
        ("/v1/chat/completions", {"json": {"model": "wine-explainer", "messages": []}}, 400),
        ("/v1/chat/completions", {"json": {"model": "other", "messages": [{"content": "wine 1"}]}}, 404),
    ],
)
def test_bad_requests_have_the_status_of_their_contract(
    app: Starlette, path: str, arguments: dict[str, Any], status: int
) -> None:
    """And a JSON body that says what was wrong."""
    response = ask(app, "POST", path, **arguments)
    assert response.status_code == status
    assert response.json()


def test_an_unknown_wine_is_a_real_crash(app: Starlette, model: WineModel) -> None:
    """Known ones are answered; the unguarded handler raises for others, and the connection is not to be used again."""
    assert ask(app, "GET", "/wines/3").json() == dict(zip(model.features, model.sample(3), strict=True))
    crashed = ask(app, "GET", "/wines/1000")
    assert crashed.status_code == 500
    assert crashed.headers["connection"] == "close"


@pytest.mark.parametrize("path", ["/ping", "/health", "/version", "/v1/models"])
def test_the_small_paths_answer(app: Starlette, path: str) -> None:
    """What orchestrators and clients ask before they send work."""
    assert ask(app, "GET", path).status_code == 200


def test_it_knows_nothing_of_infertap() -> None:
    """Importing the server loads no module of the recorder."""
    script = (
        "import sys, infertap_sidecar.demo.model_server; print('infertap' in {m.split('.')[0] for m in sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=300)
    assert done.stdout.strip() == "False"
