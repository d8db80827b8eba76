"""Which headers cross the proxy, in both directions.

1. What concerns one connection only (RFC 9110 section 7.6.1) stops here; everything else passes in order and unchanged.
2. A client can neither smuggle a framing header past us nor take one away by naming it in `Connection`.
3. What would mean something else behind us is refused, not passed on.
4. `x-infertap-outer` speaks from sidecar to middleware; from a client it is dropped, whatever it says.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from infertap.record import OUTER_HEADER

Header = tuple[bytes, bytes]


class Refusal(NamedTuple):
    """The answer to a request that is not passed on."""

    status: int
    error_type: str
    message: str


WEBSOCKET = Refusal(501, "websocket_unsupported", "WebSocket is not supported by this proxy")
_TRANSFER_CODING = Refusal(501, "transfer_coding_unsupported", "no transfer coding but chunked is supported")
_TWO_HOSTS = Refusal(400, "bad_request", "the request has several Host fields")

_HOP_BY_HOP = frozenset(
    {
        b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"proxy-connection",
        b"te", b"trailer", b"transfer-encoding", b"upgrade",
    }
)  # fmt: skip
_CONNECTION = frozenset({b"connection", b"proxy-connection"})
_NEVER_NAMED_AWAY = frozenset({b"host", b"content-length", b"content-type"})
_WITHOUT_BODY = frozenset({204, 304})
_UNDONE = frozenset({b"chunked", b"identity", b""})


def request_headers(
    received: Iterable[Header],
    *,
    client: str | None,
    scheme: str,
    authority: bytes | None,
    has_body: bool,
    trace: Mapping[str, str],
    trace_fields: Collection[str],
    outer: bytes | None = None,
) -> list[Header]:
    """The request's headers as the model server gets them.

    Args:
        received: From the client, names in lower case (as ASGI has them).
        client: The client's address, appended to `x-forwarded-for`.
        scheme: How the client reached us, for `x-forwarded-proto`.
        authority: `Host` to send instead of the client's; None keeps the client's.
        has_body: Whether body bytes follow; without a `content-length` they go out chunked.
        trace: Propagation headers of the current context; empty leaves the client's as they are.
        trace_fields: All header names of the configured propagators, which `trace` replaces as a whole.
        outer: Tells a middleware in the model server that this request is recorded already; a secret.
    """
    dropped = {OUTER_HEADER, b"expect", b"x-forwarded-for"}
    if trace:
        dropped.update([name.lower().encode("latin-1") for name in trace_fields])
    headers = list(received)
    dropped |= _connection_bound(headers)
    names = {name for name, _ in headers}
    if b"transfer-encoding" in names:
        dropped.add(b"content-length")
    if authority is not None:
        dropped.add(b"host")
    kept = [header for header in headers if header[0] not in dropped]
    if authority is not None:
        kept.insert(0, (b"host", authority))
    if has_body and (b"content-length" not in names or b"content-length" in dropped):
        kept.append((b"transfer-encoding", b"chunked"))
    kept += _forwarded(headers, names - dropped, client=client, scheme=scheme)
    if trace:
        kept += [(name.lower().encode("latin-1"), value.encode("latin-1", "replace")) for name, value in trace.items()]
    if outer is not None:
        kept.append((OUTER_HEADER, outer))
    return kept


def response_headers(received: Iterable[Header], *, status: int) -> list[Header]:
    """The answer's headers as the client gets them; the server in front of us frames the body anew."""
    headers = [(name.lower(), value) for name, value in received]
    dropped = _connection_bound(headers)
    codings = [value for name, value in headers if name == b"transfer-encoding"]
    if codings or status in _WITHOUT_BODY:
        # Chunks overrule a length (RFC 9112 section 6.3); a 304 may carry the length of what it does not send.
        dropped |= {b"content-length"}
    kept = [header for header in headers if header[0] not in dropped]
    if codings and status not in _WITHOUT_BODY:
        # Only chunks were undone: `gzip, chunked` still is gzip, and the server in front adds chunks of its own.
        kept += [(b"transfer-encoding", coding) for coding in _listed(codings) if coding not in _UNDONE]
    return kept


def announces_trailers(received: Iterable[Header]) -> bool:
    """Whether the answer says that fields will follow its body."""
    return any(name.lower() == b"trailer" for name, _ in received)


def trailer_fields(received: Iterable[Header]) -> list[Header]:
    """The fields behind the answer's body that may stand there (RFC 9110 section 6.5.1)."""
    headers = [(name.lower(), value) for name, value in received]
    return [header for header in headers if header[0] not in _HOP_BY_HOP | _NEVER_NAMED_AWAY]


def refusal(headers: Iterable[Header]) -> Refusal | None:
    """Why a request cannot be passed on, if so.

    Other upgrades than WebSocket may be ignored (RFC 9110 section 7.8). Two `Host` fields make it a matter of taste
    whom the request is for (RFC 9112 section 3.2). A transfer coding below the chunks would be lost, because only the
    chunks are undone (RFC 9112 section 6.1).
    """
    hosts = codings = 0
    for name, value in headers:
        if name == b"host":
            hosts += 1
        elif name == b"transfer-encoding":
            codings += 1
            if codings > 1 or value.strip(b" \t").lower() != b"chunked":
                return _TRANSFER_CODING
        elif name == b"upgrade" and b"websocket" in value.lower():
            return WEBSOCKET
    return _TWO_HOSTS if hosts > 1 else None


def _listed(values: Iterable[bytes]) -> list[bytes]:
    return [element.strip(b" \t").lower() for value in values for element in value.split(b",")]


def _connection_bound(headers: Iterable[Header]) -> frozenset[bytes]:
    values = [value for name, value in headers if name in _CONNECTION]
    if not values:
        return _HOP_BY_HOP
    return _HOP_BY_HOP | (frozenset(_listed(values)) - _NEVER_NAMED_AWAY)


def _forwarded(
    headers: Iterable[Header], present: Collection[bytes], *, client: str | None, scheme: str
) -> Iterable[Header]:
    hops = [value for name, value in headers if name == b"x-forwarded-for"]
    if client is not None:
        hops.append(client.encode("latin-1", "replace"))
    if hops:
        yield b"x-forwarded-for", b", ".join(hops)
    if b"x-forwarded-proto" not in present:
        yield b"x-forwarded-proto", scheme.encode("latin-1")
    host = next((value for name, value in headers if name == b"host"), None)
    if host is not None and b"x-forwarded-host" not in present:
        yield b"x-forwarded-host", host
