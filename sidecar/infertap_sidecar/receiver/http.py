"""OTLP over HTTP: `POST /v1/traces`, protobuf or JSON, as an ASGI app."""

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import Future, ThreadPoolExecutor
from http import HTTPStatus

import orjson
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceResponse,
)

from infertap.asgi_types import Receive, Scope, Send
from infertap_sidecar.receiver.body import decompressed
from infertap_sidecar.receiver.errors import BusyError, MalformedError, MediaTypeError, ReceiverError, TooLargeError
from infertap_sidecar.receiver.intake import SETTLED_S_MAX, Answer, Intake
from infertap_sidecar.receiver.room import Room
from infertap_sidecar.receiver.salvage import spans_of_protobuf
from infertap_sidecar.receiver.wire import spans_of_json

PATH = "/v1/traces"
PROTOBUF, JSON = "application/x-protobuf", "application/json"
_BODY_S_MAX = 30.0
_UNREAD_BYTES_MAX = 256 << 20
"""So much of a refused body is still read and dropped: most senders look for the answer only when they are done."""
PARSERS = 2
"""Requests that are parsed at once; each may take many times its size in memory."""
_RPC_CODES = {HTTPStatus.SERVICE_UNAVAILABLE: 8, HTTPStatus.NOT_FOUND: 5, HTTPStatus.METHOD_NOT_ALLOWED: 12}
_INVALID_ARGUMENT = 3


class HttpReceiver:
    """The ASGI app.

    Args:
        room: For the bytes of bodies that are being received and read.
        bytes_max: Largest body, compressed or not.
    """

    def __init__(self, intake: Intake, room: Room, *, bytes_max: int) -> None:
        self._intake = intake
        self._room = room
        self._bytes_max = min(bytes_max, room.bytes_max)
        self._parsers = ThreadPoolExecutor(PARSERS, "infertap-otlp")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One ASGI scope: http or lifespan."""
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            self._parsers.shutdown(wait=False)
            return
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        media_type = headers.get(b"content-type", "").partition(";")[0].strip().lower()
        reply = _Reply(send, JSON if media_type == JSON else PROTOBUF)
        if scope["path"] != PATH:
            await reply.error(HTTPStatus.NOT_FOUND, f"traces are taken at {PATH} only")
        elif scope["method"] != "POST":
            await reply.error(HTTPStatus.METHOD_NOT_ALLOWED, "expected POST", (b"allow", b"POST"))
        else:
            await self._export(headers, media_type, receive, reply)

    async def _export(self, headers: dict[bytes, str], media_type: str, receive: Receive, reply: "_Reply") -> None:
        body = _Body(receive)
        try:
            if media_type not in (PROTOBUF, JSON):
                raise MediaTypeError(f"this content-type is not supported; expected {PROTOBUF} or {JSON}")
            answer = await self._taken(body, headers, media_type)
        except ReceiverError as error:
            await body.drop()
            after = error.retry_after_s
            extra = ((b"retry-after", b"%d" % after),) if after is not None else ()
            await reply.error(error.status, str(error), *extra)
        except ConnectionError:
            return
        else:
            await reply.answer(answer)

    async def _taken(self, body: "_Body", headers: dict[bytes, str], media_type: str) -> Answer:
        raw = bytearray()
        try:
            async with asyncio.timeout(_BODY_S_MAX):
                async for chunk in body.chunks():
                    if len(raw) + len(chunk) > self._bytes_max:
                        raise TooLargeError(f"the body is over {self._bytes_max} bytes")
                    if not self._room.take(len(chunk)):
                        raise BusyError("too many bytes are being received at once")
                    raw += chunk
            loop = asyncio.get_running_loop()
            coding = headers.get(b"content-encoding", "")
            settled = await loop.run_in_executor(self._parsers, self._parse, bytes(raw), coding, media_type)
        except TimeoutError:
            raise MalformedError("the body did not arrive in time") from None
        finally:
            self._room.give_back(len(raw))
        waiting = asyncio.wrap_future(settled)
        # Nobody may be left to hear of a failure; asyncio would complain about that.
        waiting.add_done_callback(lambda done: done.cancelled() or done.exception())
        try:
            return await asyncio.wait_for(asyncio.shield(waiting), SETTLED_S_MAX)
        except TimeoutError:
            raise BusyError("the spool is slow; ask again") from None

    def _parse(self, raw: bytes, coding: str, media_type: str) -> "Future[Answer]":
        """On a thread of its own."""
        body = decompressed(raw, coding, bytes_max=self._bytes_max)
        self._intake.expect(len(body))
        return self._intake.take(spans_of_json(body) if media_type == JSON else spans_of_protobuf(body))


class _Body:
    """A request's body as it arrives."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._more = True

    async def chunks(self) -> AsyncIterator[bytes]:
        """Raises: ConnectionError where the sender left."""
        while self._more:
            message = await self._receive()
            if message["type"] != "http.request":
                self._more = False
                raise ConnectionError
            self._more = message.get("more_body", False)
            yield message.get("body", b"")

    async def drop(self) -> None:
        """Read what is left, and keep none of it."""
        size = 0
        try:
            async with asyncio.timeout(_BODY_S_MAX):
                async for chunk in self.chunks():
                    size += len(chunk)
                    if size > _UNREAD_BYTES_MAX:
                        return
        except (TimeoutError, ConnectionError):
            return


class _Reply:
    """Answers in the type that the sender speaks."""

    def __init__(self, send: Send, media_type: str) -> None:
        self._send = send
        self._media_type = media_type

    async def answer(self, answer: Answer) -> None:
        if self._media_type == JSON:
            partial = {"rejectedSpans": str(answer.rejected), "errorMessage": answer.message}
            await self._write(HTTPStatus.OK, orjson.dumps({"partialSuccess": partial} if answer.rejected else {}))
        else:
            await self._write(HTTPStatus.OK, response(answer).SerializeToString())

    async def error(self, status: HTTPStatus, message: str, *headers: tuple[bytes, bytes]) -> None:
        code = _RPC_CODES.get(status, _INVALID_ARGUMENT)
        if self._media_type == JSON:
            body = orjson.dumps({"code": code, "message": message})
        else:
            body = Status(code=code, message=message).SerializeToString()
        await self._write(status, body, *headers)

    async def _write(self, status: HTTPStatus, body: bytes, *headers: tuple[bytes, bytes]) -> None:
        head = [(b"content-type", self._media_type.encode()), (b"content-length", b"%d" % len(body)), *headers]
        await self._send({"type": "http.response.start", "status": status.value, "headers": head})
        await self._send({"type": "http.response.body", "body": body})


def response(answer: Answer) -> ExportTraceServiceResponse:
    """The answer as protobuf; `partial_success` only where there is something to say."""
    if not answer.rejected:
        return ExportTraceServiceResponse()
    partial = ExportTracePartialSuccess(rejected_spans=answer.rejected, error_message=answer.message)
    return ExportTraceServiceResponse(partial_success=partial)


async def _lifespan(receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})
