"""Watching one exchange: ASGI messages in, one `Exchange` out.

1. No I/O, no clock, no parsing: the caller says what time it is, bytes stay bytes.
2. References, not copies; only a `bytearray` or `memoryview`, which the app may still change, is copied.
3. One comparison (`room`) guards both limits, the body cap and the shared byte budget, on the path of every chunk.
4. Reaching a limit drops the *body* and says so in `codes`; the exchange itself always closes.
"""

from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any, NamedTuple

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


class CaptureLimits(NamedTuple):
    """What one capture may keep."""

    body_bytes_max: int
    """Per body; 0 keeps none (content = "metadata")."""


def chunks_bytes(chunks: Sequence[bytes]) -> int:
    """Bytes that a body's chunks hold."""
    return sum(map(len, chunks)) + CHUNK_BYTES * len(chunks)


def snapshot(scope: Mapping[str, Any]) -> ScopeSnapshot:
    """The parts of an HTTP scope that a record needs; taken at arrival, because apps and routers write into it."""
    get = scope.get
    raw_path = get("raw_path")
    path = scope["path"]
    parts = (
        scope["method"],
        path if path or not raw_path else raw_path.decode("latin-1"),
        get("query_string", b""),
        get("http_version", "1.1"),
        get("scheme", "http"),
        get("root_path", ""),
        tuple(scope["headers"]),
        get("client"),
        get("server"),
    )
    # tuple.__new__ skips the keyword machinery of a NamedTuple.
    return tuple.__new__(ScopeSnapshot, parts)


class Capture:
    """The state of one exchange. Methods are called from one event loop and never raise on well-formed messages."""

    # Defaults live on the class: an instance that stores only what differs is made in half the time.
    room = granted = request_bytes = response_bytes = chunk_count = status_code = 0
    first_chunk_at_ns = -1
    request_complete = response_started = complete = disconnected = trailers = False
    response_headers: Headers = ()
    codes: tuple[str, ...] = ()
    end_reason: str | None = None
    error_type: str | None = None
    error_message: str | None = None

    def __init__(
        self,
        scope: ScopeSnapshot,
        limits: CaptureLimits,
        budget: ByteBudget,
        span: ServerSpan,
        started: tuple[int, int],
        bits: int,
        characters: int,
    ) -> None:
        """Args:
        started: (nanoseconds since the epoch, monotonic nanoseconds) of the arrival.
        bits: 256 random bits, from which the ids are derived.
        characters: Length of all request headers, names and values.
        """
        self.scope = scope
        self.span = span
        self.bits = bits
        self.started_at_ns, self.started_ns = started
        self._budget = budget
        self._body_bytes_max = limits.body_bytes_max
        self._request_kept = self._response_kept = limits.body_bytes_max > 0
        self._characters = characters
        if budget.take(FIRST_GRANT_BYTES):
            self.room = self.granted = FIRST_GRANT_BYTES
        self.request_chunks: list[bytes] = []
        self.response_chunks: list[bytes] = []

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

    def sent(self, message: Message, now_ns: int) -> bool:
        """One message that the app gave to the server; True where it completes the answer.

        `now_ns` is monotonic and is only read for the first chunk.
        """
        kind = message["type"]
        if kind == "http.response.body":
            if self.complete:
                return False
            body = message.get("body")
            if body:
                self._body(body, now_ns)
            if message.get("more_body", False) or self.trailers:
                return False
            self.complete = True
            return True
        if kind == "http.response.start":
            if not self.response_started:
                self.response_started = True
                self.status_code = message["status"]
                headers = message.get("headers") or ()
                if type(headers) is not list and type(headers) is not tuple:
                    # ASGI allows any iterable, and an iterator would be empty when the server reads it.
                    headers = message["headers"] = list(headers)
                self.response_headers = tuple(headers)
                self.trailers = bool(message.get("trailers", False))
            return False
        if self.complete:
            return False
        if kind == "http.response.trailers":
            self.complete = not message.get("more_trailers", False)
            return self.complete
        if kind == "http.response.pathsend" or kind == "http.response.zerocopysend":
            return not message.get("more_body", False) and self._file_sent()
        return False

    def _body(self, body: bytes, now_ns: int) -> None:
        if self.scope.method == "HEAD":
            return  # the server sends none of it
        size = len(body)
        if self.chunk_count == 0:
            self.first_chunk_at_ns = now_ns
        self.chunk_count += 1
        self.response_bytes += size
        if self._response_kept:
            room = self.room = self.room - size - CHUNK_BYTES
            if room >= 0 or self._more_room(size, request=False):
                self.response_chunks.append(body if type(body) is bytes else bytes(body))

    def _file_sent(self) -> bool:
        """The server sends a file by itself: its bytes never pass here."""
        declared = next((value for name, value in self.response_headers if name.lower() == b"content-length"), b"")
        self.response_bytes = int(declared) if declared.isdigit() else 0
        self._give_up(ErrorCode.RESPONSE_NOT_SEEN, request=False)
        self.complete = True
        return True

    def _more_room(self, size: int, *, request: bool) -> bool:
        """`room` fell below zero: is it the body's cap, or does the shared budget have more?"""
        total = self.request_bytes if request else self.response_bytes
        if total > self._body_bytes_max:
            over = ErrorCode.REQUEST_OVER_CAPTURE_LIMIT if request else ErrorCode.RESPONSE_OVER_CAPTURE_LIMIT
            self._give_up(over, request=request, refused=size)
            return False
        # Where a whole piece is not to be had, what is missing may be.
        for wanted in (max(GRANT_BYTES, size + CHUNK_BYTES), -self.room):
            if self._budget.take(wanted):
                self.granted += wanted
                self.room += wanted
                return True
        over = ErrorCode.REQUEST_OVER_BUDGET if request else ErrorCode.RESPONSE_OVER_BUDGET
        self._give_up(over, request=request, refused=size)
        return False

    def _give_up(self, code: ErrorCode, *, request: bool, refused: int | None = None) -> None:
        """Let a body go. Its room is free again for the other one, also that of a chunk that was never kept."""
        chunks = self.request_chunks if request else self.response_chunks
        self.room += chunks_bytes(chunks)
        if refused is not None:
            self.room += refused + CHUNK_BYTES
        chunks.clear()
        if request:
            self._request_kept = False
        else:
            self._response_kept = False
        self.codes += (code.value,)

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
        self._budget.give_back(granted)

    def close(self, *, duration_ns: int, route: str | None) -> Exchange:
        """The finished exchange. Called once."""
        # Room is granted in pieces, so the last piece may have let a body grow past its cap.
        if self._request_kept and self.request_bytes > self._body_bytes_max:
            self._give_up(ErrorCode.REQUEST_OVER_CAPTURE_LIMIT, request=True)
        if self._response_kept and self.response_bytes > self._body_bytes_max:
            self._give_up(ErrorCode.RESPONSE_OVER_CAPTURE_LIMIT, request=False)
        whole = self.complete and not self.disconnected
        if self.end_reason is None:
            self.end_reason = _COMPLETE if whole else self._unfinished()
        if self.status_code == 0:
            self.status_code = 499 if self.end_reason == _DISCONNECTED else 500
        span = self.span
        span.closed = True
        first = self.first_chunk_at_ns
        # What is kept beside the bodies. Here and not in a function of its own, which would cost as much again.
        _, path, query, _, _, _, headers, _, _ = self.scope
        answered = self.response_headers
        size = self._characters + _CHARACTER_BYTES * len(path) + len(query)
        for name, value in answered:
            size += len(name) + len(value)
        size += HEADER_BYTES * (len(headers) + len(answered))
        # Below the limit for one field no field is over it, and there are not too many of them.
        if size > FIELD_CHARACTERS_MAX:
            size = self._trimmed_bytes()
        if span.content_bytes:
            self.codes += span.codes
            size += span.content_bytes
        exchange = (
            self.scope,
            route,
            self.started_at_ns,
            duration_ns,
            first - self.started_ns if first >= 0 else -1,
            self.bits,
            span.ids,
            tuple(self.request_chunks),
            self.request_bytes,
            self.request_complete,
            tuple(self.response_chunks),
            self.response_bytes,
            self.response_headers,
            self.response_started,
            whole,
            self.chunk_count,
            self.status_code,
            self.end_reason,
            self.codes,
            self.error_type,
            self.error_message,
            span.tags,
            span.facts() if span.touched else None,
            RECORD_BYTES + size + self.granted - self.room,
            self.granted,
        )
        return tuple.__new__(Exchange, exchange)

    def _trimmed_bytes(self) -> int:
        """Let go of what is over the limits of a record's fields; the size of what is left."""
        # The ids may come from a header that is let go.
        self.span.resolve()
        scope = self.scope
        headers = self._within(scope.headers, ErrorCode.REQUEST_HEADERS_OVER_LIMIT)
        answered = self.response_headers = self._within(self.response_headers, ErrorCode.RESPONSE_HEADERS_OVER_LIMIT)
        path, query = scope.path, scope.query_string
        if len(path) > FIELD_CHARACTERS_MAX:
            path = ""
            self.codes += (ErrorCode.PATH_OVER_LIMIT.value,)
        if len(query) > FIELD_CHARACTERS_MAX:
            query = b""
            self.codes += (ErrorCode.QUERY_OVER_LIMIT.value,)
        self.scope = scope._replace(headers=headers, path=path, query_string=query)
        size = header_characters(headers) + header_characters(answered)
        size += value_bytes(self.error_message) if self.error_message is not None else 0
        return size + HEADER_BYTES * (len(headers) + len(answered)) + _CHARACTER_BYTES * len(path) + len(query)

    def _within(self, headers: Headers, code: ErrorCode) -> Headers:
        kept = tuple(header for header in headers if len(header[0]) + len(header[1]) <= FIELD_CHARACTERS_MAX)
        kept = kept[:HEADERS_MAX]
        if len(kept) < len(headers):
            self.codes += (code.value,)
        return kept

    def _unfinished(self) -> str:
        if self.disconnected:
            return _DISCONNECTED
        self.error_type = self.error_type or "IncompleteResponse"
        return EndReason.APP_ERROR.value
