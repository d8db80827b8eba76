"""uvicorn's HTTP/1.1 protocol, as a proxy needs it: nothing of a request is lost, and nothing is taken for another's.

1. The target reaches the app as the client wrote it: `/e?` is not `/e`, and ASGI's path and query cannot tell.
2. Trailer fields are no header fields (RFC 9110 section 6.5.1): who could put them there could forge what a proxy in
   front has checked.
3. An offer to upgrade that nobody takes does not end HTTP (RFC 9110 section 7.8). llhttp reads no body behind one, so
   the head is read again without it; else the body would be taken for the next request.
"""

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

TARGET_KEY = "infertap.target"
"""Where the scope has the target, as bytes."""

_INVALID = "Invalid HTTP request received."


class FrontProtocol(HttpToolsProtocol):
    """One connection of a client."""

    _head_done = False
    _read_again = False
    _offers: tuple[tuple[bytes, bytes], ...] = ()
    """The `Upgrade` fields that the head is read again without; the app gets them back."""

    def data_received(self, data: bytes) -> None:
        """Bytes of the client."""
        self._unset_keepalive_if_required()
        while True:
            try:
                self.parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as upgrade:
                if not self._read_again:
                    self._unsupported_upgrade_warning()
                    return
                data = self._head_without_offers() + data[upgrade.args[0] :]
                self._read_again = False
                self.parser = httptools.HttpRequestParser(self)
            except httptools.HttpParserError:
                self.logger.warning(_INVALID)
                self.send_400_response(_INVALID)
                return

    def on_message_begin(self) -> None:
        """A request begins."""
        self._head_done = False
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header field, or a trailer field."""
        if not self._head_done:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The request's head is there."""
        self._head_done = True
        offers = tuple(header for header in self.headers if header[0] == b"upgrade")
        if offers and self.parser.should_upgrade():
            self._read_again, self._offers = True, offers
            return
        self.headers += self._offers
        self._offers = ()
        self.scope[TARGET_KEY] = self.url  # type: ignore[literal-required]
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The request is whole."""
        if not self._read_again:
            super().on_message_complete()

    def _head_without_offers(self) -> bytes:
        line = b"%b %b HTTP/%b\r\n" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())
        fields = [b"%b: %b\r\n" % header for header in self.headers if header[0] != b"upgrade"]
        return line + b"".join(fields) + b"\r\n"
