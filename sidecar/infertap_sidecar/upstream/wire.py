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
        method, target, headers = request.method.encode("utf-8"), request.target, request.headers
        lines = b"".join([b"%b: %b\r\n" % header for header in headers])
        self.head = head = b"%b %b HTTP/1.1\r\n%b\r\n" % (method, target, lines)
        names = [name for name, _ in headers]
        joined = b"".join(names)
        ends = len(names) + 2
        if (
            head.count(b"\n") != ends
            or head.count(b"\r") != ends
            or b"\0" in head
            or b"" in (method, target, *names)
            or method.translate(None, _TOKEN)
            or joined.translate(None, _TOKEN)
            or target.translate(None, _VISIBLE)
        ):
            raise _unforwardable()
        if not joined.islower():
            headers = [(name.lower(), value) for name, value in headers]
        codings = [value.lower() for name, value in headers if name == b"transfer-encoding"]
        self._chunked = codings == [b"chunked"]
        if codings and not self._chunked:
            raise _unforwardable()
        lengths = [value for name, value in headers if name == b"content-length"]
        self._missing_bytes = _length(lengths, chunked=self._chunked) if lengths else 0

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
    if chunked or len(lengths) > 1 or not lengths[0].isdigit():
        raise _unforwardable()
    return int(lengths[0])


def _unforwardable() -> UnforwardableError:
    return UnforwardableError("the request cannot be written as valid HTTP/1.1")
