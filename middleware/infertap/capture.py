"""Watching one exchange: ASGI messages in, one `Exchange` out.

1. No I/O, no clock, no parsing: the caller says what time it is, bytes stay bytes.
2. References, not copies; only a `bytearray` or `memoryview`, which the app may still change, is copied.
3. One comparison (`room`) guards both limits, the body cap and the shared byte budget, on the path of every chunk.
4. Reaching a limit drops the *body* and says so in `codes`; the exchange itself always closes.
"""

from collections.abc import Callable, Mapping, MutableMapping, Sequence
from operator import itemgetter
from typing import Any, Final

from infertap.record import (
    FIELD_CHARACTERS_MAX,
    HEADERS_MAX,
    EndReason,
    ErrorCode,
    Exchange,
    Headers,
    ScopeSnapshot,
)
from infertap.sizes import HEADER_BYTES, header_characters, value_bytes
from infertap.trace import ServerSpan

Message = MutableMapping[str, Any]

RECORD_BYTES = 1 << 10
"""What a record holds in memory without what comes from outside: its tuples, its numbers, its span."""
CHUNK_BYTES = 48
"""What a chunk of a body holds beside its bytes."""
_CHARACTER_BYTES = 4
"""A character of a path, at most: its text is as wide as its widest character."""
FIRST_GRANT_BYTES = 8 << 10
GRANT_BYTES = 64 << 10
"""A capture takes its room from the shared budget in pieces: a small one that holds most exchanges, then larger."""

# The value of an enum's member is looked up by a Python function, each time.
_COMPLETE, _DISCONNECTED = EndReason.COMPLETE.value, EndReason.CLIENT_DISCONNECT.value


class ByteBudget:
    """Bytes that captured bodies may hold in this process, from arrival until the worker has spooled them.

    `taken` is written by the event loop only and `released` by the worker only, so neither needs a lock.
    """

    __slots__ = ("bytes_max", "released", "taken")

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self.taken = 0
        self.released = 0

    @property
    def held(self) -> int:
        """Bytes in use now."""
        return self.taken - self.released

    def take(self, size: int) -> bool:
        """Reserve `size` bytes; False where they are not to be had. Event loop only."""
        if self.taken - self.released + size > self.bytes_max:
            return False
        self.taken += size
        return True

    def give_back(self, size: int) -> None:
        """Undo a `take` whose bytes never reached the worker. Event loop only."""
        self.taken -= size

    def release(self, size: int) -> None:
        """Give reserved bytes back. Worker only."""
        self.released += size


class CaptureLimits:
    """What captures may keep.

    Args:
        budget: Shared by all captures of the process.
        body_bytes_max: Per body; 0 keeps none (content = "metadata").
    """

    __slots__ = ("body_bytes_max", "budget")

    def __init__(self, budget: ByteBudget, body_bytes_max: int) -> None:
        self.budget = budget
        self.body_bytes_max = body_bytes_max


def chunks_bytes(chunks: Sequence[bytes]) -> int:
    """Bytes that a body's chunks hold."""
    return sum(map(len, chunks)) + CHUNK_BYTES * len(chunks)


_PARTS = itemgetter("method", "path", "query_string", "http_version", "scheme", "root_path", "client", "server")
_METHOD: Final = 0
_PATH: Final = 1
_QUERY: Final = 2
ROOT_PATH: Final = 5
ScopeParts = tuple[str, str, bytes, str, str, str, tuple[str, int | None] | None, tuple[str, int | None] | None]
"""The fields of a `ScopeSnapshot` but its headers. On the event loop tuples are plain: named ones cost several times as
much."""
Sealed = tuple[Any, ...]
"""A finished exchange as the event loop leaves it; `opened` makes an `Exchange` of it on the worker."""
SEALED_SPAN, SEALED_HELD, SEALED_GRANTED = 0, -2, -1
"""Where a `Sealed` has what the queue looks at: the request's span, `held_bytes` and `granted_bytes`."""


def snapshot(scope: Mapping[str, Any]) -> ScopeParts:
    """The parts of an HTTP scope that a record needs; taken at arrival, because apps and routers write into it."""
    try:
        parts: ScopeParts = _PARTS(scope)
    except KeyError:
        parts = _with_defaults(scope)
    return parts if parts[_PATH] else _with_defaults(scope)


def _with_defaults(scope: Mapping[str, Any]) -> ScopeParts:
    get = scope.get
    path, raw_path = scope["path"], get("raw_path")
    return (
        scope["method"],
        path if path or not raw_path else raw_path.decode("latin-1"),
        get("query_string", b""),
        get("http_version", "1.1"),
        get("scheme", "http"),
        get("root_path", ""),
        get("client"),
        get("server"),
    )


class Capture:
    """The state of one exchange. Methods are called from one event loop and never raise on well-formed messages."""

    # Slots, all set at once: to find a value on the class instead costs the interpreter ten times as much.
    __slots__ = (
        "_characters", "_limits", "_request_kept", "_response_kept", "chunk_count", "closed", "codes", "complete",
        "disconnected", "end_reason", "error_message", "error_type", "first_chunk_at_ns", "granted", "headers",
        "parts", "request_bytes", "request_chunks", "request_complete", "response_bytes", "response_chunks",
        "response_headers", "response_started", "room", "span", "started_ns", "status_code", "trailers",
    )  # fmt: skip

    def __init__(
        self,
        parts: ScopeParts,
        headers: Headers,
        limits: CaptureLimits,
        span: ServerSpan,
        started_ns: int,
        characters: int,
    ) -> None:
        """Args:
        span: The request's; it knows when it arrived, and its random bits.
        started_ns: The arrival on a monotonic clock.
        characters: Length of all request headers, names and values.
        """
        self.parts = parts
        self.headers = headers
        self.span = span
        self.started_ns = started_ns
        self._limits = limits
        self._characters = characters
        budget = limits.budget
        taken = budget.taken + FIRST_GRANT_BYTES
        if taken - budget.released <= budget.bytes_max:
            budget.taken = taken
            self.room = self.granted = FIRST_GRANT_BYTES
        else:
            self.room = self.granted = 0
        self._request_kept = kept = limits.body_bytes_max > 0
        # The server sends nothing of an answer to HEAD.
        self._response_kept = kept and parts[_METHOD] != "HEAD"
        self.request_chunks: list[bytes] = []
        self.response_chunks: list[bytes] = []
        self.request_bytes = self.response_bytes = self.chunk_count = self.status_code = 0
        self.first_chunk_at_ns = -1
        self.request_complete = self.response_started = self.complete = self.disconnected = self.trailers = False
        self.closed = False
        """Whether its exchange is on its way."""
        self.response_headers: Headers = ()
        self.codes: tuple[str, ...] = ()
        self.end_reason: str | None = None
        self.error_type: str | None = None
        self.error_message: str | None = None

    def received(self, message: Message) -> None:
        """One message that the server gave to the app."""
        kind = message["type"]
        if kind == "http.request":
            body = message.get("body")
            if body:
                size = len(body)
                self.request_bytes += size
                if self._request_kept:
                    room = self.room = self.room - size - CHUNK_BYTES
                    if room >= 0 or self._more_room(size, request=True):
                        self.request_chunks.append(body if type(body) is bytes else bytes(body))
            if not message.get("more_body", False):
                self.request_complete = True
        elif kind == "http.disconnect" and not self.complete:
            # Starlette's streaming answers ask for it all the time: after the end it says nothing.
            self.disconnected = True

    def sent(self, message: Message, now_ns: Callable[[], int]) -> bool:
        """One message that the app gave to the server; True where it completes the answer.

        `now_ns` tells monotonic time, and is only asked at the first chunk.
        """
        kind = message["type"]
        if kind == "http.response.body":
            if self.complete:
                return False
            body = message.get("body")
            if body:
                if self._response_kept:
                    size = len(body)
                    if not self.chunk_count:
                        self.first_chunk_at_ns = now_ns()
                    self.chunk_count += 1
                    self.response_bytes += size
                    room = self.room = self.room - size - CHUNK_BYTES
                    if room >= 0 or self._more_room(size, request=False):
                        self.response_chunks.append(body if type(body) is bytes else bytes(body))
                elif self.parts[_METHOD] != "HEAD":
                    self._count(body, now_ns)
            if message.get("more_body", False) or self.trailers:
                return False
            self.complete = True
            return True
        if kind == "http.response.start":
            if not self.response_started:
                self.response_started = True
                headers = message.get("headers") or ()
                if type(headers) is not list and type(headers) is not tuple:
                    # ASGI allows any iterable, and an iterator would be empty when the server reads it.
                    headers = message["headers"] = list(headers)
                self.response_headers = tuple(headers)
                self.trailers = message.get("trailers", False)
                status = message["status"]
                # Some servers take "200" as well; compared with a number, it would raise in the app's face.
                self.status_code = status if type(status) is int else int(status)
            return False
        if self.complete:
            return False
        if kind == "http.response.trailers":
            self.complete = not message.get("more_trailers", False)
            return self.complete
        if kind == "http.response.pathsend" or kind == "http.response.zerocopysend":
            return not message.get("more_body", False) and self._file_sent()
        return False

    def _count(self, body: bytes, now_ns: Callable[[], int]) -> None:
        """A chunk of an answer that is not kept."""
        if not self.chunk_count:
            self.first_chunk_at_ns = now_ns()
        self.chunk_count += 1
        self.response_bytes += len(body)

    def _file_sent(self) -> bool:
        """The server sends a file by itself: its bytes never pass here."""
        self._give_up(ErrorCode.RESPONSE_NOT_SEEN, request=False)
        declared = next((value for name, value in self.response_headers if name.lower() == b"content-length"), b"")
        self.response_bytes = int(declared) if declared.isdigit() else 0
        self.complete = True
        return True

    def _more_room(self, size: int, *, request: bool) -> bool:
        """`room` fell below zero: is it the body's cap, or does the shared budget have more?"""
        if not request:
            self._count_answer(len(self.response_chunks) + 1)
        total = self.request_bytes if request else self.response_bytes
        if total > self._limits.body_bytes_max:
            over = ErrorCode.REQUEST_OVER_CAPTURE_LIMIT if request else ErrorCode.RESPONSE_OVER_CAPTURE_LIMIT
            self._give_up(over, request=request, refused=size)
            return False
        # Where a whole piece is not to be had, what is missing may be.
        for wanted in (max(GRANT_BYTES, size + CHUNK_BYTES), -self.room):
            if self._limits.budget.take(wanted):
                self.granted += wanted
                self.room += wanted
                return True
        over = ErrorCode.REQUEST_OVER_BUDGET if request else ErrorCode.RESPONSE_OVER_BUDGET
        self._give_up(over, request=request, refused=size)
        return False

    def _give_up(self, code: ErrorCode, *, request: bool, refused: int | None = None) -> None:
        """Let a body go. Its room is free again for the other one, also that of a chunk that was never kept."""
        chunks = self.request_chunks if request else self.response_chunks
        if request:
            self._request_kept = False
        elif self._response_kept:
            self._count_answer(len(chunks) + (refused is not None))
            self._response_kept = False
        self.room += chunks_bytes(chunks)
        if refused is not None:
            self.room += refused + CHUNK_BYTES
        chunks.clear()
        self.codes += (code.value,)

    def _count_answer(self, chunks: int) -> None:
        """Count an answer that is kept, in so many chunks, by the room that they took."""
        size = self.granted - self.room - CHUNK_BYTES * chunks
        if self._request_kept:
            size -= self.request_bytes + CHUNK_BYTES * len(self.request_chunks)
        self.chunk_count, self.response_bytes = chunks, size

    def failed(self, error_type: str, error_message: str) -> None:
        """The app raised. Where no status went out, the server answers 500."""
        self._fail(error_type, error_message)
        if self.status_code == 0:
            self.status_code = 500
        if self.end_reason is None:
            self.end_reason = EndReason.APP_ERROR.value

    def outcome(self, end_reason: str, error_type: str | None, error_message: str | None) -> None:
        """The app says how the exchange ended (the proxy, whose own 502 is an upstream's fault)."""
        self.end_reason = end_reason
        self._fail(error_type, error_message)

    def _fail(self, error_type: str | None, error_message: str | None) -> None:
        if error_message is not None:
            self._characters += value_bytes(error_message)
        self.error_type, self.error_message = error_type, error_message

    def abandon(self) -> None:
        """There will be no exchange: its room is free again, and nothing more is kept. Safe twice."""
        self._request_kept = self._response_kept = False
        granted, self.granted, self.room = self.granted, 0, 0
        self._limits.budget.give_back(granted)

    def close(self, *, duration_ns: int, route: str | None) -> Sealed:
        """The finished exchange. Called once; what passes later changes nothing."""
        # Room is granted in pieces, so the last piece may have let a body grow past its cap.
        bytes_max = self._limits.body_bytes_max
        chunks = len(self.response_chunks)
        if chunks > self.chunk_count:
            self._count_answer(chunks)
        if self.request_bytes > bytes_max and self._request_kept:
            self._give_up(ErrorCode.REQUEST_OVER_CAPTURE_LIMIT, request=True)
        if self.response_bytes > bytes_max and self._response_kept:
            self._give_up(ErrorCode.RESPONSE_OVER_CAPTURE_LIMIT, request=False)
        span = self.span
        span.closed = True
        # What is kept beside the bodies. Here and not in a function of its own, which would cost as much again.
        parts, headers, answered = self.parts, self.headers, self.response_headers
        size = self._characters + _CHARACTER_BYTES * len(parts[_PATH]) + len(parts[_QUERY])
        for name, value in answered:
            size += len(name) + len(value)
        size += HEADER_BYTES * (len(headers) + len(answered))
        # Below the limit for one field no field is over it, and there are not too many of them.
        if size > FIELD_CHARACTERS_MAX:
            size = self._trimmed_bytes()
        if span.content_bytes:
            self.codes += span.codes
            size += span.content_bytes
        granted = self.granted
        sealed = (
            span,
            self.parts,
            self.headers,
            route,
            duration_ns,
            self.first_chunk_at_ns,
            self.started_ns,
            self.request_chunks,
            self.request_bytes,
            self.request_complete,
            self.response_chunks,
            self.response_bytes,
            self.response_headers,
            self.response_started,
            self.complete,
            self.disconnected,
            self.chunk_count,
            self.status_code,
            self.end_reason,
            self.codes,
            self.error_type,
            self.error_message,
            RECORD_BYTES + size + granted - self.room,
            granted,
        )
        # The lists of chunks are the queue's now.
        self._request_kept = False
        self.complete = True
        return sealed

    def _trimmed_bytes(self) -> int:
        """Let go of what is over the limits of a record's fields; the size of what is left."""
        # The ids may come from a header that is let go.
        self.span.resolve()
        headers = self.headers = self._within(self.headers, ErrorCode.REQUEST_HEADERS_OVER_LIMIT)
        answered = self.response_headers = self._within(self.response_headers, ErrorCode.RESPONSE_HEADERS_OVER_LIMIT)
        method, path, query = self.parts[:3]
        if len(path) > FIELD_CHARACTERS_MAX:
            path = ""
            self.codes += (ErrorCode.PATH_OVER_LIMIT.value,)
        if len(query) > FIELD_CHARACTERS_MAX:
            query = b""
            self.codes += (ErrorCode.QUERY_OVER_LIMIT.value,)
        self.parts = (method, path, query, *self.parts[3:])
        size = header_characters(headers) + header_characters(answered)
        size += value_bytes(self.error_message) if self.error_message is not None else 0
        return size + HEADER_BYTES * (len(headers) + len(answered)) + _CHARACTER_BYTES * len(path) + len(query)

    def _within(self, headers: Headers, code: ErrorCode) -> Headers:
        kept = tuple(header for header in headers if len(header[0]) + len(header[1]) <= FIELD_CHARACTERS_MAX)
        kept = kept[:HEADERS_MAX]
        if len(kept) < len(headers):
            self.codes += (code.value,)
        return kept


def opened(sealed: Sealed) -> Exchange:
    """What `Capture.close` sealed."""
    (
        span, parts, headers, route, duration_ns, first_at_ns, started_ns, request_chunks, request_bytes,
        request_complete, response_chunks, response_bytes, response_headers, response_started, complete,
        disconnected, chunk_count, status_code, end_reason, codes, error_type, error_message, held_bytes, granted_bytes,
    ) = sealed  # fmt: skip
    whole = complete and not disconnected
    if end_reason is None:
        if whole:
            end_reason = _COMPLETE
        elif disconnected:
            end_reason = _DISCONNECTED
        else:
            end_reason = EndReason.APP_ERROR.value
            error_type = error_type or "IncompleteResponse"
    if status_code == 0:
        status_code = 499 if end_reason == _DISCONNECTED else 500
    exchange = (
        # tuple.__new__ skips the keyword machinery of a NamedTuple.
        tuple.__new__(ScopeSnapshot, (*parts, headers)),
        route,
        span.started_at_ns,
        duration_ns,
        first_at_ns - started_ns if first_at_ns >= 0 else -1,
        span.bits,
        span.ids,
        tuple(request_chunks),
        request_bytes,
        request_complete,
        tuple(response_chunks),
        response_bytes,
        response_headers,
        response_started,
        whole,
        chunk_count,
        status_code,
        end_reason,
        codes,
        error_type,
        error_message,
        span.tags,
        span.facts() if span.touched else None,
        held_bytes,
        granted_bytes,
    )
    return tuple.__new__(Exchange, exchange)
