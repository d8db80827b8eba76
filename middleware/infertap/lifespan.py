"""The lifespan of a wrapped app: the pipeline starts before the app and stops after it, also where the app has none.

1. What the app says, answers or raises reaches the server as it would without us: a failed start fails.
2. For an app that never asked for a lifespan message we speak, so that a server that goes on without lifespan
   (`auto`) still lets us deliver at its end; one that insists on it (`uvicorn --lifespan on`) hears the app itself.
3. An app that is wrapped twice has one pipeline: the inner one uses what the outer one has started for the same
   settings. Where they differ, the start says whose count; what `infertap run` has added gives way to the app's own.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import NamedTuple

from infertap.asgi_types import ASGIApp, Message, Receive, Scope, Send
from infertap.build import prepare, start
from infertap.config import Config
from infertap.errors import ConfigError
from infertap.events import say
from infertap.pipeline import Idle, Pipeline

_STARTED_KEY = "infertap.started"


class _Started(NamedTuple):
    """What an outer middleware tells those within it."""

    settings: Config
    pipeline: Pipeline
    give_way: Callable[[], None] | None
    """Has it record nothing any more; None where it stays."""


class Lifespan:
    """One run of the lifespan protocol.

    Args:
        app: The wrapped app; it may not speak lifespan at all.
        config: As given to the middleware.
        adopt: Takes the started recorder, and None once it has stopped.
        gives_way: Whether a middleware with other settings within the app records in place of this one.
    """

    def __init__(
        self,
        app: ASGIApp,
        config: Config | None,
        adopt: Callable[[Pipeline | Idle | None], None],
        *,
        gives_way: bool = False,
    ) -> None:
        self._app = app
        self._config = config
        self._adopt = adopt
        self._gives_way = gives_way
        self._recorder: Pipeline | Idle | None = None
        self._owned = True
        self._app_asked = False
        self._app_answered = False
        self._app_ended = False
        self._shutdown_came = False

    async def run(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the protocol until shutdown. Raises what the app raises once it has answered startup."""
        startup: Message | None = await receive()
        try:
            # Files are made and modules imported here, at start-up and off the event loop, never in a request.
            outer = scope.get(_STARTED_KEY)
            started = await asyncio.to_thread(_prepare_and_start, self._config, outer, self._give_way)
        except ConfigError as error:
            await send({"type": "lifespan.startup.failed", "message": f"infertap cannot start:\n{error}"})
            return
        if outer is not None and started is not outer and outer.give_way is not None:
            outer.give_way()
        if isinstance(started, _Started):
            self._owned = started is not outer
            # For those within; an app beside this one, called with the same scope, has nothing to do with it.
            scope = {**scope, _STARTED_KEY: started}
            self._recorder = started.pipeline
        else:
            self._recorder = started
        self._adopt(self._recorder)

        async def receive_for_app() -> Message:
            nonlocal startup
            self._app_asked = True
            first, startup = startup, None
            message = first if first is not None else await receive()
            self._shutdown_came = self._shutdown_came or message["type"] == "lifespan.shutdown"
            return message

        async def send_for_app(message: Message) -> None:
            if message["type"] == "lifespan.startup.complete":
                self._app_answered = True
                self._app_started()
            elif message["type"].startswith("lifespan."):
                self._app_answered = self._app_ended = True
                await self._stop()
            await send(message)

        goes_on = False
        try:
            await self._app(scope, receive_for_app, send_for_app)
            goes_on = not self._app_ended
        except Exception:
            if self._app_answered:
                raise
            if self._app_asked or _insists(send):
                # Its start has failed. A server that goes on all the same has its requests recorded.
                self._app_started()
                self._recorder = None
                raise
            # The app does not speak lifespan; we do, or nothing would be drained at shutdown.
            goes_on = True
        finally:
            if not goes_on:
                await self._stop()
        if goes_on:
            await self._serve_alone(receive, send)

    async def _serve_alone(self, receive: Receive, send: Send) -> None:
        """The rest of the protocol, for an app that has left it."""
        try:
            if not self._app_answered:
                self._app_started()
                await send({"type": "lifespan.startup.complete"})
            if not self._shutdown_came:
                await receive()
        finally:
            await self._stop()
        await send({"type": "lifespan.shutdown.complete"})

    @property
    def _give_way(self) -> Callable[[], None] | None:
        return (lambda: self._adopt(Idle(lambda: None))) if self._gives_way else None

    def _app_started(self) -> None:
        if self._owned and isinstance(self._recorder, Pipeline):
            self._recorder.joining.app_started()

    async def _stop(self) -> None:
        recorder, self._recorder = self._recorder, None
        if recorder is not None:
            if self._owned:
                await asyncio.to_thread(recorder.stop)
            self._adopt(None)


def _insists(send: Send) -> bool:
    """Whether the server takes an app without lifespan for a failed start. Only uvicorn can be asked to, and only by
    looking at the object behind its `send`."""
    server = getattr(send, "__self__", None)
    return getattr(getattr(server, "config", None), "lifespan", None) == "on"


def _prepare_and_start(
    config: Config | None, outer: _Started | None, give_way: Callable[[], None] | None
) -> _Started | Idle:
    prepared = prepare(config)
    if isinstance(prepared, Idle):
        if outer is not None:
            _say_whose_settings_count(outer, None)
        prepared.start()
        return prepared
    settings = config or Config()
    if outer is not None:
        # By value: the same settings may come from a variable out there and from an argument in here.
        if outer.settings.model_dump() == settings.model_dump():
            return outer
        _say_whose_settings_count(outer, prepared)
    started = start(prepared)
    started.wait_ready()
    return started if isinstance(started, Idle) else _Started(settings, started, give_way)


def _say_whose_settings_count(outer: _Started, inner: Pipeline | None) -> None:
    """Two middlewares with different settings are around one app. `inner`: None where that one records nothing."""
    if outer.give_way is not None:
        what = "the one of infertap run records nothing, the app's own settings count"
    elif inner is None:
        what = "the outer one records this app's requests all the same"
    elif outer.pipeline.choice.folder != inner.choice.folder:
        what = "each writes its own copy of a request"
    else:
        what = "the outer one records, by its settings"
    say(logging.WARNING, f"two InferenceMiddlewares with different settings are around this app: {what}")
