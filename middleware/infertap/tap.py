"""One request's `receive` and `send`: what passes is shown to the capture, and always passed on."""

import time
from collections.abc import Awaitable

from infertap.asgi_types import Message, Receive, Scope, Send
from infertap.capture import Capture
from infertap.pipeline import Pipeline
from infertap.record import RAW_ERROR_CHARACTERS_MAX, EndReason, request_id
from infertap.texts import text_of

OUTCOME_KEY = "infertap.outcome"
"""Where an app (the proxy) says how the exchange ended: (end_reason, error_type, error_message)."""

_now_ns = time.perf_counter_ns


class Tap:
    """One request's `receive` and `send`."""

    __slots__ = ("_capture", "_pipeline", "_receive", "_scope", "_send", "_submitted")

    def __init__(self, pipeline: Pipeline, capture: Capture, scope: Scope, receive: Receive, send: Send) -> None:
        self._pipeline = pipeline
        self._capture = capture
        self._scope = scope
        self._receive = receive
        self._send = send
        self._submitted = False

    async def receive(self) -> Message:
        message = await self._receive()
        try:
            self._capture.received(message)
        except Exception as error:
            self._pipeline.capture_failed(error)
        return message

    def send(self, message: Message) -> Awaitable[None]:
        # A plain function: a coroutine of our own for every chunk would cost more than all the rest of it.
        capture = self._capture
        try:
            last = capture.sent(message, 0 if capture.chunk_count else _now_ns())
        except Exception as error:
            self._pipeline.capture_failed(error)
            last = False
        return self._send_last(message) if last else self._send(message)

    async def _send_last(self, message: Message) -> None:
        try:
            await self._send(message)
        except BaseException:
            self._capture.complete = False
            raise
        # A 500 waits for the app's return: Starlette sends it first and raises afterwards, and the error is the point.
        if self._capture.status_code < 500:
            self._submit()

    def app_raised(self, error: BaseException) -> None:
        """The app let an exception pass. It goes on to the server; here it becomes part of the record."""
        if self._submitted:
            self._pipeline.background_failed()
            return
        capture = self._capture
        try:
            outcome = self._scope.get(OUTCOME_KEY)
            if outcome is not None:
                capture.outcome(*outcome)
            elif _means_disconnect(error, capture):
                capture.end_reason = EndReason.CLIENT_DISCONNECT.value
            else:
                capture.failed(type(error).__qualname__, text_of(error)[:RAW_ERROR_CHARACTERS_MAX])
        except Exception as ours:
            self._pipeline.capture_failed(ours)
        self._submit()

    def app_returned(self) -> None:
        """The app is done; whatever was not submitted yet is submitted now."""
        if self._submitted:
            return
        try:
            outcome = self._scope.get(OUTCOME_KEY)
            if outcome is not None:
                self._capture.outcome(*outcome)
        except Exception as error:
            self._pipeline.capture_failed(error)
        self._submit()

    def _submit(self) -> None:
        self._submitted = True
        try:
            capture = self._capture
            duration_ns = _now_ns() - capture.started_ns
            found = self._scope.get("route")
            route = None if found is None else _route(found, self._scope, capture.scope.root_path)
            self._pipeline.submit(capture.close(duration_ns=duration_ns, route=route))
        except Exception as error:
            self._capture.abandon()
            self._pipeline.capture_failed(error, self._capture.started_at_ns, began=True)


class TapWithId(Tap):
    """Tells the caller the row's id, in the response header that `request_id_header` names."""

    __slots__ = ()

    def send(self, message: Message) -> Awaitable[None]:
        header = self._pipeline.request_id_header
        if header is not None and message["type"] == "http.response.start":
            text = request_id(self._capture.started_at_ns, self._capture.bits)
            message = {**message, "headers": [*(message.get("headers") or ()), (header, text.encode())]}
        return super().send(message)


def _means_disconnect(error: BaseException, capture: Capture) -> bool:
    """Servers and frameworks have several exceptions for a client that left."""
    if capture.complete:
        return False
    if capture.disconnected or isinstance(error, ConnectionError):
        return True
    return type(error).__name__ in ("ClientDisconnect", "ClientDisconnected")


def _route(found: object, scope: Scope, root_path: str) -> str | None:
    """The route that the framework found, with the prefixes of the apps it is mounted in."""
    route = getattr(found, "path", None)
    if type(route) is not str:
        return None
    mounted = scope.get("root_path", "")
    return mounted.removeprefix(root_path) + route if mounted != root_path else route
