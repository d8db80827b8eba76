"""The reverse proxy as an ordinary ASGI app, so that `InferenceMiddleware` wraps it like any other.

1. Nothing is buffered: a chunk goes on before the next one is asked for, so that a slow side slows the other.
2. A client that leaves ends the exchange with the model server.
3. A half answer is never completed: the failure is raised, and the server in front cuts the connection.
4. A failure of the upstream is told to the middleware in `scope[OUTCOME_KEY]` before anything else happens.
"""

import asyncio
import re
from collections.abc import AsyncGenerator, Callable

import orjson

from infertap.asgi_types import Message, Receive, Scope, Send
from infertap.tap import OUTCOME_KEY
from infertap.trace import current_server_span
from infertap_sidecar.client_watch import ClientWatch
from infertap_sidecar.front_protocol import CLIENT_GONE_KEY, TARGET_KEY
from infertap_sidecar.headers import (
    WEBSOCKET,
    Header,
    announces_trailers,
    refusal,
    request_headers,
    response_headers,
    trailer_fields,
)
from infertap_sidecar.outgoing_trace import OutgoingTrace
from infertap_sidecar.upstream.protocol import (
    UnforwardableError,
    Upstream,
    UpstreamError,
    UpstreamRequest,
    UpstreamResponse,
)

_ABSOLUTE = re.compile(rb"[A-Za-z][A-Za-z0-9+.-]*://(?:[^/?#@]*@)?([^/?#]+)")
"""Its authority without the user's name."""
_DONE = asyncio.Event()
_DONE.set()


class ClientGoneError(Exception):
    """The client left before its request was complete."""


class ReverseProxy:
    """Forwards every HTTP request to one upstream.

    Args:
        upstream: Opened at lifespan startup (or by the first exchange), closed at shutdown.
        authority: `Host` to send upstream; None passes the client's.
        default_authority: `Host` for clients that sent none (HTTP/1.0).
        outer_secret: Sent along with each request that is recorded here, so that a middleware further in does not.
        on_failure: Told about each failed exchange, in words without a byte of it.
    """

    def __init__(
        self,
        upstream: Upstream,
        *,
        default_authority: bytes,
        authority: bytes | None = None,
        outer_secret: bytes | None = None,
        on_failure: Callable[[str], None] | None = None,
    ) -> None:
        self._upstream = upstream
        self._on_failure = on_failure
        self._authority = authority
        self._default_authority = default_authority
        self._outer_secret = outer_secret
        self._trace = OutgoingTrace()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One ASGI scope: http, lifespan, or a refusal of websocket."""
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "websocket":
            await _refuse_websocket(scope, send)
        else:
            raise ValueError(f"unknown ASGI scope {scope['type']!r}")

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        await self._upstream.open()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self._upstream.close()
        await send({"type": "lifespan.shutdown.complete"})

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        refused = refusal(scope["headers"])
        if refused is not None:
            # Who waits for a word before it sends its body may not send it now: nobody could tell what follows.
            closes = any(name == b"expect" for name, _ in scope["headers"])
            await _answer_error(send, *refused, closes=closes)
            return
        body = _RequestBody(receive)
        if not await body.begin():
            return
        answer = _Answer(send, takes_trailers="http.response.trailers" in (scope.get("extensions") or {}))
        try:
            last = await self._forward(scope, body, answer, receive)
            await answer.end(last)
        except ClientGoneError:
            return
        except UpstreamError as error:
            scope[OUTCOME_KEY] = (error.end_reason.value, error.error_type, str(error))
            if self._on_failure is not None:
                self._on_failure(str(error))
            if answer.started:
                raise
            await _answer_error(send, error.status, error.end_reason.value, str(error))
        except UnforwardableError as error:
            await _answer_error(send, 400, "bad_request", str(error))

    async def _forward(self, scope: Scope, body: "_RequestBody", answer: "_Answer", receive: Receive) -> bytes:
        """The exchange but for the last message, so that a client leaving after it disturbs nobody."""
        watch = ClientWatch(receive, body.done, scope.get(CLIENT_GONE_KEY, _unknown))
        try:
            async with self._upstream.exchange(self._request(scope, body)) as response:
                return await _relay(response, answer)
        except asyncio.CancelledError as error:
            if not watch.client_left():
                raise
            raise ClientGoneError from error
        finally:
            watch.stop()

    def _request(self, scope: Scope, body: "_RequestBody") -> UpstreamRequest:
        trace, trace_fields = self._trace.headers()
        headers = scope["headers"]
        target, authority = _target(scope)
        if self._authority is not None:
            authority = self._authority
        elif authority is None and not any(name == b"host" for name, _ in headers):
            authority = self._default_authority
        return UpstreamRequest(
            method=scope["method"],
            target=target,
            headers=request_headers(
                headers,
                client=scope["client"][0] if scope.get("client") else None,
                scheme=scope.get("scheme", "http"),
                authority=authority,
                has_body=not body.empty,
                trace=trace,
                trace_fields=trace_fields,
                outer=self._outer_secret if current_server_span() is not None else None,
            ),
            body=body.content(),
        )


class _RequestBody:
    """The client's body, whole or as it arrives; `done` says when nobody will read any more of it."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._first: Message = {}
        self._whole = False
        self.empty = True
        self.done = _DONE

    async def begin(self) -> bool:
        """Wait for the first message, which says whether there is a body. False: the client has gone."""
        self._first = await self._receive()
        if self._first["type"] != "http.request":
            return False
        self._whole = not self._first.get("more_body", False)
        self.empty = self._whole and not self._first.get("body")
        if not self._whole:
            self.done = asyncio.Event()
        return True

    def content(self) -> bytes | AsyncGenerator[bytes, None] | None:
        """All of it, pieces, or None; as an upstream wants it."""
        if self.empty:
            return None
        return self._first["body"] if self._whole else self._pieces()

    async def _pieces(self) -> AsyncGenerator[bytes, None]:
        message = self._first
        try:
            while True:
                if message["type"] != "http.request":
                    raise ClientGoneError
                if message.get("body"):
                    yield message["body"]
                if not message.get("more_body", False):
                    return
                message = await self._receive()
        finally:
            self.done.set()


class _Answer:
    """The answer on its way out; remembers whether its head has been sent.

    Args:
        takes_trailers: The server in front offers ASGI's extension for them; uvicorn does not, and they are dropped.
    """

    def __init__(self, send: Send, *, takes_trailers: bool) -> None:
        self._send = send
        self._takes_trailers = takes_trailers
        self._announced = False
        self.started = False
        self.trailers: list[Header] = []

    async def start(self, response: UpstreamResponse) -> None:
        self.started = True
        message = {
            "type": "http.response.start",
            "status": response.status,
            "headers": response_headers(response.headers, status=response.status),
        }
        if self._takes_trailers and announces_trailers(response.headers):
            self._announced = message["trailers"] = True
        await self._send(message)

    async def write(self, chunk: bytes) -> None:
        await self._send({"type": "http.response.body", "body": chunk, "more_body": True})

    async def end(self, chunk: bytes) -> None:
        await self._send({"type": "http.response.body", "body": chunk, "more_body": False})
        if self._announced:
            await self._send({"type": "http.response.trailers", "headers": self.trailers, "more_trailers": False})


async def _relay(response: UpstreamResponse, answer: _Answer) -> bytes:
    """All but the chunk that is known to be the last one, which saves a message; b"" where none was."""
    last = b""
    if not 200 <= response.status <= 599:
        raise UpstreamError("UnexpectedStatus", f"the upstream answered with status {response.status}")
    await answer.start(response)
    async for chunk in response.chunks():
        if response.ended:
            last = chunk
        else:
            await answer.write(chunk)
    answer.trailers = trailer_fields(response.trailers)
    return last


def _unknown() -> bool:
    """Whether the client has gone, where the server cannot tell."""
    return False


def _target(scope: Scope) -> tuple[bytes, bytes | None]:
    """Path and query; and whom the request is for, where its target says so (RFC 9112 section 3.2.2)."""
    exact: bytes = scope.get(TARGET_KEY, b"")
    if exact.startswith(b"/"):
        return exact, None
    # Absolute form (`GET http://host/path`), or a server that does not tell.
    raw_path: bytes = scope.get("raw_path") or scope["path"].encode("utf-8")
    query: bytes = scope.get("query_string", b"")
    authority = _ABSOLUTE.match(exact)
    return raw_path + b"?" + query if query else raw_path, authority[1] if authority else None


async def _answer_error(send: Send, status: int, error_type: str, message: str, *, closes: bool = False) -> None:
    content = orjson.dumps({"error": {"type": error_type, "code": status, "message": f"infertap: {message}"}})
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(content))]
    if closes:
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})


async def _refuse_websocket(scope: Scope, send: Send) -> None:
    if "websocket.http.response" in scope.get("extensions", {}):
        text = WEBSOCKET.message.encode()
        headers = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(text))]
        await send({"type": "websocket.http.response.start", "status": 501, "headers": headers})
        await send({"type": "websocket.http.response.body", "body": text})
    else:
        await send({"type": "websocket.close", "code": 1011, "reason": WEBSOCKET.message})
