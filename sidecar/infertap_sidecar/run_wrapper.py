"""How `infertap run` finds the user's `module:app` by its server's rules, and wraps it.

`run_app` and `run_factory` stand in its place. The original's name is in the environment, so that forked and spawned
workers find it, too. Nothing is imported here that the server would not import itself, except infertap.
"""

import inspect
import logging
import os
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from infertap import InferenceMiddleware
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


def wrapped(app: Any) -> Any:
    """The app in the middleware; as it is where it brings one: what is redacted and left out there counts."""
    if _brings_middleware(app):
        say(logging.INFO, "the app has an InferenceMiddleware of its own; infertap run adds none")
        return app
    return InferenceMiddleware(app)


def _brings_middleware(app: Any) -> bool:
    """Whether one is around the app, or among those that Starlette and FastAPI will put around it."""
    for _ in range(_LAYERS_MAX):
        if isinstance(app, InferenceMiddleware):
            return True
        listed = getattr(app, "user_middleware", ())
        if any(getattr(entry, "cls", None) is InferenceMiddleware for entry in listed):
            return True
        app = getattr(app, "app", None)
        if app is None:
            return False
    return False
