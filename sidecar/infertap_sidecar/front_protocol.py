"""uvicorn's HTTP/1.1 protocol, as a proxy needs it: nothing of a request is lost, and nothing is taken for another's.

1. The target reaches the app as the client wrote it: `/e?` is not `/e`, and ASGI's path and query cannot tell.
2. Trailer fields are no header fields (RFC 9110 section 6.5.1): who could put them there could forge what a proxy in
   front has checked.
3. An offer to upgrade that nobody takes does not end HTTP (RFC 9110 section 7.8). llhttp reads no body behind one, so
   the head is read again without it; else the body would be taken for the next request.
4. Memory is bounded: a head, or trailers, without end are refused, and so are requests without end that wait for the
   answer to an earlier one.
5. A refusal never stands in the middle of another request's answer: what was asked before is answered first.
"""

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from infertap_sidecar.client_socket import ClientSocket

TARGET_KEY = "infertap.target"
"""Where the scope has the target, as bytes."""

CLIENT_GONE_KEY = "infertap.client_gone"
"""Where the scope has a function: whether the client has gone within its request, though nobody reads from it now. It
cuts the connection then, so that `receive` says so, too."""

HEAD_BYTES_MAX = 256 << 10
"""Of one request; twice as much may be read before it is noticed. Its trailers may have as much again."""
PIPELINED_MAX = 1_000
"""Requests of one connection that wait for the answer to an earlier one; browsers and proxies send none."""
LINGER_S_MAX = 1.0
"""So long a refused client is still read from, so that no reset takes the refusal away from it."""

_INVALID = (400, "Invalid HTTP request received.")
_TOO_LARGE = (431, f"The head of a request may have {HEAD_BYTES_MAX} bytes.")
_TOO_MANY = (400, f"At most {PIPELINED_MAX} requests may wait for the answer to an earlier one.")


class _RefusedError(Exception):
    """Raised out of a callback, to stop the parser."""


class FrontProtocol(HttpToolsProtocol):
    """One connection of a client."""

    _head_done = False
    _read_again = False
    _offers: tuple[tuple[bytes, bytes], ...] = ()
    """The `Upgrade` fields that the head is read again without; the app gets them back."""
    _dry_bytes = 0
    """Read since a head, a piece of a body or an end came out of what was read."""
    _body_bytes = 0
    """Of the newest request, so far."""
    _socket: ClientSocket | None = None
    _refused = False
    _refusal = _INVALID

    def data_received(self, data: bytes) -> None:
        """Bytes of the client."""
        if self._refused:
            return
        self._unset_keepalive_if_required()
        self._dry_bytes += len(data)
        while True:
            try:
                self.parser.feed_data(data)
                break
            except httptools.HttpParserUpgrade as upgrade:
                if not self._read_again:
                    self._unsupported_upgrade_warning()
                    return
                data = self._head_without_offers() + data[upgrade.args[0] :]
                self._read_again = False
                self.parser = httptools.HttpRequestParser(self)
            except httptools.HttpParserError:
                self._refuse(*self._refusal)
                return
        if self._dry_bytes > HEAD_BYTES_MAX:
            self._refuse(*_TOO_LARGE)

    def on_message_begin(self) -> None:
        """A request begins."""
        self._head_done = False
        self._body_bytes = 0
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header field, or a trailer field."""
        if not self._head_done:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The request's head is there."""
        self._head_done = True
        if self._dry_bytes > HEAD_BYTES_MAX and self._head_bytes() > HEAD_BYTES_MAX:
            self._refusal = _TOO_LARGE
            raise _RefusedError
        if len(self.pipeline) >= PIPELINED_MAX:
            self._refusal = _TOO_MANY
            raise _RefusedError
        self._dry_bytes = 0
        offers = tuple(header for header in self.headers if header[0] == b"upgrade")
        if offers and self.parser.should_upgrade():
            self._read_again, self._offers = True, offers
            return
        self.headers += self._offers
        self._offers = ()
        self.scope[TARGET_KEY] = self.url  # type: ignore[literal-required]
        self.scope[CLIENT_GONE_KEY] = self._client_gone  # type: ignore[literal-required]
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A piece of the request's body."""
        self._dry_bytes = 0
        self._body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is whole."""
        self._dry_bytes = 0
        if not self._read_again:
            super().on_message_complete()

    def on_response_complete(self) -> None:
        """An answer is out."""
        if self._refused and not self.pipeline:
            self.transport.close()
        super().on_response_complete()

    def _client_gone(self) -> bool:
        if self.transport.is_closing():
            return True
        if self._socket is None:
            self._socket = ClientSocket(self.transport.get_extra_info("socket").fileno())
        length = next((int(value) for name, value in self.headers if name == b"content-length"), None)
        if not self._socket.gone(length - self._body_bytes if length is not None else None):
            return False
        self.transport.abort()
        return True

    def _refuse(self, status: int, words: str) -> None:
        """End the connection, with these words where no answer is under way."""
        self._refused = True
        self.logger.warning(words)
        cycle = self.cycle
        if cycle is None or cycle.response_complete:
            self._part(status, words)
        elif not cycle.more_body:
            # An answer to what came before is under way; the connection ends behind it.
            return
        elif self.pipeline:
            # Half of a request that was not begun.
            self.pipeline.popleft()
        elif cycle.response_started:
            self.transport.close()
        else:
            # For the app, the client is gone.
            cycle.disconnected = True
            cycle.message_event.set()
            self._part(status, words)

    def _part(self, status: int, words: str) -> None:
        text = words.encode()
        head = b"content-type: text/plain; charset=utf-8\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(text)
        self.transport.write(STATUS_LINE[status] + head + text)
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.loop.call_later(LINGER_S_MAX, self.transport.close)

    def _head_bytes(self) -> int:
        return len(self.url) + sum([len(name) + len(value) + 4 for name, value in self.headers])

    def _head_without_offers(self) -> bytes:
        line = b"%b %b HTTP/%b\r\n" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())
        fields = [b"%b: %b\r\n" % header for header in self.headers if header[0] != b"upgrade"]
        return line + b"".join(fields) + b"\r\n"
