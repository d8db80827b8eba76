"""Tells a WSGI app, which cannot be wrapped, from an ASGI app."""

import inspect

_WSGI = ["environ", "start_response"]


def refuse_wsgi(app: object) -> None:
    """Raises: TypeError, where `app` calls its arguments as WSGI does; it would fail at every request."""
    try:
        parameters = list(inspect.signature(app).parameters)  # type: ignore[arg-type]  # what is no callable raises
    except (TypeError, ValueError):
        return
    if parameters == _WSGI:
        raise TypeError(
            f"{type(app).__name__} is a WSGI app, and InferenceMiddleware wraps ASGI apps; "
            "put `infertap serve --upstream URL` in front of its server instead"
        )
