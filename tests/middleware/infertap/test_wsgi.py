"""A WSGI app in `InferenceMiddleware`: one clear error, at once."""

from typing import Any

import pytest

from infertap import InferenceMiddleware


class FlaskLike:
    """Called as Flask's and Django's applications are."""

    def __call__(self, environ: Any, start_response: Any) -> Any:
        return [b""]


def plain(environ: Any, start_response: Any) -> Any:
    return [b""]


@pytest.mark.parametrize("app", [FlaskLike(), plain])
def test_a_wsgi_app_is_refused_with_the_way_out(app: Any) -> None:
    """It would fail at every request with a TypeError about arguments."""
    with pytest.raises(TypeError, match=r"is a WSGI app.*infertap serve"):
        InferenceMiddleware(app)


class AsgiLike:
    wsgi_app = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        return


@pytest.mark.parametrize("app", [AsgiLike(), lambda *arguments: None, print, None])
def test_everything_else_is_taken(app: Any) -> None:
    """Whatever its signature is, or where it has none."""
    assert InferenceMiddleware(app).app is app
