"""Reads one answer out of a connection's bytes: where it ends, and what is refused. No I/O, no clock.

1. llhttp refuses framing that can be read in two ways (two lengths, a length beside chunks, odd chunk sizes, space
   before a colon); what it lets pass and nobody should is refused here.
2. What can be read in one way only, and old servers write, is read (`loose_head`); such a connection is not used again.
3. 1xx answers are read and dropped, because uvicorn in front of us cannot send them; 101 is refused: nobody asked.
4. Memory is bounded, whatever comes: by `HEAD_BYTES_MAX` here, by whoever stops feeding once enough waits.
"""

from collections import deque

import httptools

from infertap_sidecar.upstream.failures import broken_answer, closed_early
from infertap_sidecar.upstream.loose_head import LooseHead, loose_head
from infertap_sidecar.upstream.protocol import UpstreamError

HEAD_BYTES_MAX = 256 << 10
"""Header and trailer fields of one answer, the 1xx answers before it included."""

FIELDS_MAX = 1_000
"""Of one head, its trailers included."""

_WITHOUT_BODY = frozenset({204, 304})


class _RefusedError(Exception):
    """Raised out of a callback, to stop the parser."""


class AnswerReader:
    """One answer, from its first byte to its last.

    Args:
        head_only: The request was HEAD, whose answer has no body whatever its fields say.
    """

    # Defaults of the class, because an answer of the usual kind changes few of them.
    status = 0
    """0 until the head is complete."""
    trailers: list[tuple[bytes, bytes]] | tuple[()] = ()
    waiting_bytes = 0
    """In `pieces`."""
    complete = keep_alive = False
    surplus = False
    """More came than the answer."""
    touched = False
    """At least one byte came."""
    _interim = _until_eof = _framed = _closes = False
    _begun: bytearray | None = None
    """What came before the head was complete, if it took several reads."""
    _loose: LooseHead | None = None
    _codings: tuple[bytes, ...] = ()
    _refusal = ""
    _room_bytes = HEAD_BYTES_MAX
    _room_fields = FIELDS_MAX
    _dry_bytes = 0

    def __init__(self, *, head_only: bool) -> None:
        self.headers: list[tuple[bytes, bytes]] = []
        self.pieces: deque[bytes] = deque()
        self._head_only = head_only
        self._parser: httptools.HttpResponseParser | None = self._new_parser()

    def feed(self, data: bytes) -> None:
        """Take what came. Raises: UpstreamError; what was read before it stays."""
        self.touched = True
        if self._parser is None:
            self.surplus = True
            return
        self._dry_bytes += len(data)
        try:
            self._parser.feed_data(data if self._loose is None else self._strict(data))
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            if self.complete:
                self.surplus = True
            elif not self._may_be_loose(error, data):
                raise self._broken(error) from None
        if not self.status and self._loose is None:
            if self._begun is None:
                self._begun = bytearray()
            self._begun += data
        if self._dry_bytes > HEAD_BYTES_MAX and not self.complete:
            self._parser = None
            raise broken_answer("header or trailer fields without end")
        if self.complete:
            # Parser and reader refer to each other: taken apart, the collector has nothing to find.
            self._parser = None

    def eof(self) -> None:
        """The connection ended in order. Raises: UpstreamError, where the answer did not."""
        self._parser = None
        if self.complete:
            return
        if not (self.status and self._until_eof):
            raise closed_early()
        self.complete = True

    def take(self) -> bytes:
        """The next piece of the body; there must be one."""
        piece = self.pieces.popleft()
        self.waiting_bytes -= len(piece)
        return piece

    def _new_parser(self) -> httptools.HttpResponseParser:
        parser = httptools.HttpResponseParser(self)
        # Padded sizes ("1f  \r\n") can be read in one way only, and old servers write them. The other lets an answer
        # follow a 1xx one that says "close"; whether a connection is used again is decided here.
        parser.set_dangerous_leniencies(lenient_spaces_after_chunk_size=True, lenient_keep_alive=True)
        return parser

    def _may_be_loose(self, error: Exception, data: bytes) -> bool:
        """Begin again, reading loosely, where the head failed for its form."""
        if self.status or self._loose is not None or self._refusal or not isinstance(error, httptools.HttpParserError):
            return False
        begun, self._begun = bytes((self._begun or b"") + data), None
        self._loose = loose_head(begun)
        if self._loose is None:
            return False
        self._closes = True
        self._forget_head()
        self._room_bytes = HEAD_BYTES_MAX
        self._parser = self._new_parser()
        self._dry_bytes = 0
        self.feed(begun)
        return True

    def _strict(self, data: bytes) -> bytes:
        loose = self._loose
        assert loose is not None
        return data if loose.ended else loose.feed(data)

    def _forget_head(self) -> None:
        self.headers = []
        self._codings = ()
        self._framed = self._interim = False
        self._room_fields = FIELDS_MAX

    def _broken(self, error: Exception) -> UpstreamError:
        self._parser = None
        if isinstance(error, httptools.HttpParserCallbackError) or not isinstance(error, httptools.HttpParserError):
            return broken_answer(self._refusal or "it switches protocols")
        # The parser's sentences are constants of its own.
        return broken_answer(str(error))

    def _refuse(self, why: str) -> _RefusedError:
        self._refusal = why
        return _RefusedError(why)

    # What llhttp calls, in the order of a message.

    def on_message_begin(self) -> None:
        if self.complete:
            self.surplus = True

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.complete:
            return
        self._room_bytes -= len(name) + len(value)
        self._room_fields -= 1
        if self._room_bytes < 0 or self._room_fields < 0:
            raise self._refuse("too many header or trailer fields")
        value = value.rstrip(b" \t")
        if self.status:
            self.trailers = [*self.trailers, (name, value)]
            return
        self.headers.append((name, value))
        size = len(name)
        if size == 14:
            self._framed |= name.lower() == b"content-length"
        elif size == 17 and name.lower() == b"transfer-encoding":
            self._codings += tuple(coding.strip(b" \t").lower() for coding in value.split(b","))

    def on_headers_complete(self) -> None:
        parser = self._parser
        if self.complete or parser is None:
            return
        status = parser.get_status_code()
        if status == 101:
            raise self._refuse("it switches protocols")
        if 100 <= status < 200:
            self._interim = True
            self._closes |= not parser.should_keep_alive()
            return
        version = parser.get_http_version()
        if version not in ("1.1", "1.0"):
            raise self._refuse("its version is unknown")
        if status < 100:
            raise self._refuse("its status is unknown")
        self.status = status
        self._dry_bytes = 0
        self.keep_alive = parser.should_keep_alive() and not self._closes
        if self._codings:
            self._check_codings(version)
        if self._head_only or status in _WITHOUT_BODY:
            self.complete = True
        else:
            self._until_eof = not self._framed

    def on_body(self, data: bytes) -> None:
        if self.complete:
            self.surplus = True
            return
        self._dry_bytes = 0
        self.pieces.append(data)
        self.waiting_bytes += len(data)

    def on_message_complete(self) -> None:
        if self._interim:
            self._forget_head()
        else:
            self.complete = True

    def _check_codings(self, version: str) -> None:
        chunked = self._codings[-1] == b"chunked"
        if not all(coding.isalnum() for coding in self._codings):
            raise self._refuse("its transfer codings cannot be read")
        if self._codings.count(b"chunked") != chunked:
            raise self._refuse("chunked is not the last of its transfer codings")
        self._framed |= chunked
        if version == "1.0":
            # Whoever sent this does not know what it means (RFC 9112 section 6.1): what follows is not to be trusted.
            self.keep_alive = False
