"""How `infertap run` finds the user's `module:app` by its server's rules, and wraps it.

`run_app` and `run_factory` stand in its place. The original's name is in the environment, so that forked and spawned
workers find it, too. Nothing is imported here that the server would not import itself, except infertap.
"""

import inspect
import logging
import os
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from infertap import InferenceMiddleware
from infertap.asgi import made_middlewares
from infertap.events import say
from infertap_sidecar.launch import APP_VARIABLE, NAME_VARIABLE, PATH_VARIABLE

_LAYERS_MAX = 32
"""Middlewares around an app that are looked through."""


def app_of_server(server: str) -> Any:
    """The user's app, found as `server` would find it."""
    loaders: dict[str, Callable[[], Any]] = {
        "uvicorn": _load_for_uvicorn,
        "gunicorn": _load_for_gunicorn,
        "fastapi": _load_for_fastapi,
    }
    return loaders[server]()


def _load_for_uvicorn() -> Any:
    from uvicorn.importer import import_from_string

    loaded = import_from_string(os.environ[APP_VARIABLE])
    if inspect.isclass(loaded):
        return loaded
    try:
        # uvicorn takes whatever can be called without arguments for a factory, `--factory` or not.
        return loaded()
    except TypeError:
        return loaded


def _load_for_gunicorn() -> Any:
    return import_module("gunicorn.util").import_app(os.environ[APP_VARIABLE])


def _load_for_fastapi() -> Any:
    from uvicorn.importer import ImportFromStringError, import_from_string

    discover = import_module("fastapi_cli.discover")
    refusal: type[Exception] = import_module("fastapi_cli.exceptions").FastAPICLIException
    path, name = os.environ.get(PATH_VARIABLE), os.environ.get(NAME_VARIABLE)
    entrypoint = os.environ.get(APP_VARIABLE)
    config = import_module("fastapi_cli.config").FastAPIConfig.resolve(entrypoint=entrypoint)
    try:
        if not path and not name and config.entrypoint:
            data = discover.get_import_data_from_import_string(config.entrypoint, config.from_pyproject)
        else:
            data = discover.get_import_data(path=Path(path) if path else None, app_name=name)
    except refusal as error:
        # Unwrapped, the command line would have said these words; uvicorn says them for this exception.
        raise ImportFromStringError(str(error)) from None
    return import_from_string(data.import_string)


class AddedMiddleware(InferenceMiddleware):
    """What `infertap run` adds. It gives way to one that the app's framework makes only when the app starts."""

    _gives_way = True


def wrapped(app: Any) -> Any:
    """The app in the middleware; as it is where its code has one: what is redacted and left out there counts."""
    if made_middlewares() or _lists_middleware(app):
        say(
            logging.WARNING,
            "the app has an InferenceMiddleware of its own, whose settings count; infertap run adds none",
        )
        return app
    return AddedMiddleware(app)


def _lists_middleware(app: Any) -> bool:
    """Whether Starlette or FastAPI will put one around the app, or around the one that it wraps, at the start."""
    try:
        for _ in range(_LAYERS_MAX):
            if any(_is_middleware(entry.cls) for entry in getattr(app, "user_middleware", ())):
                return True
            app = app.app
    except Exception:
        # The user's own object: it has no such attribute, or does not let itself be looked at.
        pass
    return False


def _is_middleware(factory: Any) -> bool:
    while isinstance(factory, partial):
        factory = factory.func
    return isinstance(factory, type) and issubclass(factory, InferenceMiddleware)
