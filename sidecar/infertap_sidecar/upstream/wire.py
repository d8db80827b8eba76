"""The bytes of a request: its head as given, checked against injection, and its body framed as the head says."""

from infertap_sidecar.upstream.protocol import UnforwardableError, UpstreamRequest

_TOKEN = b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_VISIBLE = bytes(range(0x21, 0x7F))


class OutgoingRequest:
    """A request on its way out.

    Args:
        request: Its headers decide how the body is framed.

    Raises:
        UnforwardableError: some part of the head cannot stand in one.
    """

    __slots__ = ("_chunked", "_missing_bytes", "head")

    def __init__(self, request: UpstreamRequest) -> None:
        self._chunked = False
        lengths = []
        lines = []
        for name, value in request.headers:
            lines.append(b"%b: %b\r\n" % (name, value))
            # Names come in lower case as a rule, and only these two have one of these lengths as well.
            size = len(name)
            if size == 14 and name.lower() == b"content-length":
                lengths.append(value)
            elif size == 17 and name.lower() == b"transfer-encoding":
                self._chunked = value.lower() == b"chunked"
        self._missing_bytes = _length(lengths, chunked=self._chunked)
        self.head = b"%b %b HTTP/1.1\r\n%b\r\n" % (_method(request.method), request.target, b"".join(lines))
        ends = len(lines) + 2
        if self.head.count(b"\n") != ends or self.head.count(b"\r") != ends or b"\0" in self.head:
            raise _unforwardable()
        names = [name for name, _ in request.headers]
        if b"" in names or b"".join(names).translate(None, _TOKEN):
            raise _unforwardable()
        if not request.target or request.target.translate(None, _VISIBLE):
            raise _unforwardable()

    def chunk(self, data: bytes) -> tuple[bytes, ...]:
        """A piece of the body as it goes out. Raises: UnforwardableError, for more than the head promises."""
        if self._chunked:
            return (b"%x\r\n" % len(data), data, b"\r\n")
        self._missing_bytes -= len(data)
        if self._missing_bytes < 0:
            raise UnforwardableError("the request's body is longer than its length")
        return (data,)

    def end(self) -> tuple[bytes, ...]:
        """What follows the last piece. Raises: UnforwardableError, for less than the head promises."""
        if self._missing_bytes:
            raise UnforwardableError("the request's body is shorter than its length")
        return (b"0\r\n\r\n",) if self._chunked else ()

    def whole(self, body: bytes | None) -> tuple[bytes, ...]:
        """Head, body and end in one, for a body that is there at once. Raises: UnforwardableError."""
        pieces = self.chunk(body) if body else ()
        return (self.head, *pieces, *self.end())


def _length(lengths: list[bytes], *, chunked: bool) -> int:
    if not lengths:
        return 0
    if chunked or len(lengths) > 1 or not lengths[0].isdigit():
        raise _unforwardable()
    return int(lengths[0])


def _method(method: str) -> bytes:
    try:
        token = method.encode("ascii")
    except UnicodeEncodeError:
        token = b""
    if not token or token.translate(None, _TOKEN):
        raise _unforwardable()
    return token


def _unforwardable() -> UnforwardableError:
    return UnforwardableError("the request cannot be written as valid HTTP/1.1")
