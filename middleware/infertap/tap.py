"""One request's `receive` and `send`: what passes is shown to the capture, and always passed on."""

import time
from asyncio import CancelledError
from collections.abc import Awaitable

from infertap.asgi_types import Message, Receive, Scope, Send
from infertap.capture import CHUNK_BYTES, ROOT_PATH, Capture, ScopeParts
from infertap.pipeline import Pipeline
from infertap.record import RAW_ERROR_CHARACTERS_MAX, EndReason, request_id
from infertap.texts import text_of

OUTCOME_KEY = "infertap.outcome"
"""Where an app (the proxy) says how the exchange ended: (end_reason, error_type, error_message)."""

_CANCELLED = "cancelled: by the server at a forced stop, or by a time limit around the app"
"""Servers and time limits give no reason of their own, and it looks like a failure of the app."""
_now_ns = time.perf_counter_ns


class Tap(Capture):
    """One request's `receive` and `send`."""

    # One object with the capture: a second one would cost every request and every chunk.
    __slots__ = ("pipeline", "scope", "server_receive", "server_send")

    # Set by who makes it; a constructor around the capture's would be one more call for each request.
    pipeline: Pipeline
    scope: Scope
    server_receive: Receive
    server_send: Send

    async def receive(self) -> Message:
        message = await self.server_receive()
        try:
            self.received(message)
        except Exception as error:
            self.pipeline.capture_failed(error)
        return message

    def send(self, message: Message) -> Awaitable[None]:
        # A plain function: a coroutine of our own for every chunk would cost more than all the rest of it.
        try:
            chunks = self.response_chunks
            # What `sent` does with most chunks of a stream, without the call; they are counted at the end.
            if (
                chunks
                and not self.complete
                and message.get("more_body")
                and type(body := message.get("body")) is bytes
                and body
                and message["type"] == "http.response.body"
                and (room := self.room - len(body) - CHUNK_BYTES) >= 0
            ):
                self.room = room
                chunks.append(body)
                last = False
            else:
                last = self.sent(message, _now_ns)
        except Exception as error:
            self.pipeline.capture_failed(error)
            last = False
        return self._send_last(message) if last else self.server_send(message)

    async def _send_last(self, message: Message) -> None:
        try:
            await self.server_send(message)
        except BaseException:
            self.complete = False
            raise
        # A 500 waits for the app's return: Starlette sends it first and raises afterwards, and the error is the point.
        if self.status_code < 500:
            self._submit()
        else:
            self.span.answered = True

    def app_raised(self, error: BaseException) -> None:
        """The app let an exception pass. It goes on to the server; here it becomes part of the record."""
        if self.closed:
            self.pipeline.background_failed()
            return
        try:
            outcome = self.scope.get(OUTCOME_KEY)
            if outcome is not None:
                self.outcome(*outcome)
            elif _means_disconnect(error, self):
                self.end_reason = EndReason.CLIENT_DISCONNECT.value
            else:
                text = text_of(error) or (_CANCELLED if isinstance(error, CancelledError) else "")
                self.failed(type(error).__qualname__, text[:RAW_ERROR_CHARACTERS_MAX])
        except Exception as ours:
            self.pipeline.capture_failed(ours)
        self._submit()

    def app_returned(self) -> None:
        """The app is done; whatever was not submitted yet is submitted now."""
        if self.closed:
            return
        try:
            outcome = self.scope.get(OUTCOME_KEY)
            if outcome is not None:
                self.outcome(*outcome)
        except Exception as error:
            self.pipeline.capture_failed(error)
        self._submit()

    def _submit(self) -> None:
        self.closed = True
        try:
            duration_ns = _now_ns() - self.started_ns
            found = self.scope.get("route")
            route = None if found is None else _route(found, self.scope, self.parts)
            self.pipeline.submit(self.close(duration_ns=duration_ns, route=route))
        except Exception as error:
            self.abandon()
            self.pipeline.capture_failed(error, self.span.started_at_ns, began=True)


class TapWithId(Tap):
    """Tells the caller the row's id, in the response header that `request_id_header` names."""

    __slots__ = ()

    def send(self, message: Message) -> Awaitable[None]:
        header = self.pipeline.request_id_header
        if header is not None and message["type"] == "http.response.start":
            text = request_id(self.span.started_at_ns, self.span.bits)
            message = {**message, "headers": [*(message.get("headers") or ()), (header, text.encode())]}
        return super().send(message)


def _means_disconnect(error: BaseException, capture: Capture) -> bool:
    """Servers and frameworks have several exceptions for a client that left."""
    if capture.complete:
        return False
    if capture.disconnected or isinstance(error, ConnectionError):
        return True
    return type(error).__name__ in ("ClientDisconnect", "ClientDisconnected")


def _route(found: object, scope: Scope, parts: ScopeParts) -> str | None:
    """The route that the framework found, with the prefixes of the apps it is mounted in."""
    route = getattr(found, "path", None)
    if type(route) is not str:
        return None
    root_path, mounted = parts[ROOT_PATH], scope.get("root_path", "")
    return mounted.removeprefix(root_path) + route if mounted != root_path else route
