"""What crosses the proxy and what does not, header by header."""

from collections.abc import Sequence

import pytest

from infertap_sidecar.headers import WEBSOCKET, refusal, request_headers, response_headers

Header = tuple[bytes, bytes]


def upstream(received: Sequence[Header], *, has_body: bool = False, **options: object) -> list[Header]:
    settings: dict[str, object] = {
        "client": "10.0.0.7", "scheme": "http", "authority": None, "trace": {}, "trace_fields": set(),
    }  # fmt: skip
    return request_headers(received, has_body=has_body, **(settings | options))  # type: ignore[arg-type]


def names(headers: Sequence[Header]) -> list[bytes]:
    return [name for name, _ in headers]


@pytest.mark.parametrize(
    "name",
    [b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade", b"expect"],
)
def test_hop_by_hop_headers_stop_here(name: bytes) -> None:
    """A header about one connection is never forwarded."""
    assert name not in names(upstream([(b"host", b"a"), (name, b"x")]))


def test_headers_named_in_connection_stop_here() -> None:
    """`Connection: x-secret` makes `x-secret` hop-by-hop, but cannot take Host or the length away."""
    received = [
        (b"host", b"a"),
        (b"x-secret", b"1"),
        (b"content-length", b"0"),
        (b"connection", b"X-Secret, host, content-length"),
    ]
    kept = names(upstream(received))
    assert b"x-secret" not in kept
    assert kept[:2] == [b"host", b"content-length"]


def test_order_and_repetitions_are_kept() -> None:
    """End-to-end headers pass in order, repeated ones as often as they came."""
    received = [(b"b", b"1"), (b"a", b"2"), (b"b", b"3"), (b"host", b"h")]
    assert upstream(received)[:4] == received


def test_the_client_address_is_appended_to_the_chain() -> None:
    """Several x-forwarded-for lines become one chain that ends in the peer."""
    received = [(b"host", b"shop.example"), (b"x-forwarded-for", b"1.1.1.1"), (b"x-forwarded-for", b"2.2.2.2")]
    headers = dict(upstream(received))
    assert headers[b"x-forwarded-for"] == b"1.1.1.1, 2.2.2.2, 10.0.0.7"
    assert headers[b"x-forwarded-proto"] == b"http"
    assert headers[b"x-forwarded-host"] == b"shop.example"


def test_proto_and_host_of_an_outer_proxy_are_kept() -> None:
    """Who terminated TLS knows the scheme better."""
    received = [(b"host", b"a"), (b"x-forwarded-proto", b"https"), (b"x-forwarded-host", b"b")]
    kept = upstream(received)
    assert kept.count((b"x-forwarded-proto", b"https")) == 1
    assert names(kept).count(b"x-forwarded-proto") == names(kept).count(b"x-forwarded-host") == 1


def test_the_outer_marker_is_stripped() -> None:
    """A client cannot speak as a sidecar."""
    assert b"x-infertap-outer" not in names(upstream([(b"host", b"a"), (b"x-infertap-outer", b"guess")]))


def test_a_trace_context_replaces_the_clients_as_a_whole() -> None:
    """No tracestate of another trace survives beside a new traceparent."""
    received = [(b"host", b"a"), (b"traceparent", b"old"), (b"tracestate", b"old=1")]
    kept = upstream(received, trace={"traceparent": "new"}, trace_fields={"traceparent", "tracestate"})
    assert dict(kept)[b"traceparent"] == b"new"
    assert names(kept).count(b"traceparent") == 1
    assert b"tracestate" not in names(kept)


def test_without_a_span_the_clients_trace_context_passes() -> None:
    """An unrecorded request keeps the caller's trace."""
    received = [(b"host", b"a"), (b"traceparent", b"old")]
    assert (b"traceparent", b"old") in upstream(received, trace_fields={"traceparent"})


def test_length_and_chunks_together_go_out_chunked() -> None:
    """The ambiguous pair of request smuggling never reaches the upstream."""
    received = [(b"host", b"a"), (b"content-length", b"3"), (b"transfer-encoding", b"chunked")]
    kept = upstream(received, has_body=True)
    assert b"content-length" not in names(kept)
    assert kept.count((b"transfer-encoding", b"chunked")) == 1


def test_a_body_without_length_is_chunked_and_no_body_has_no_framing() -> None:
    """Framing says exactly what follows."""
    assert (b"transfer-encoding", b"chunked") in upstream([(b"host", b"a")], has_body=True)
    assert b"transfer-encoding" not in names(upstream([(b"host", b"a")]))


def test_another_host_may_be_sent_upstream() -> None:
    """The host policy replaces Host and remembers the client's in x-forwarded-host."""
    kept = upstream([(b"host", b"public")], authority=b"inner:8000")
    assert kept[0] == (b"host", b"inner:8000")
    assert names(kept).count(b"host") == 1
    assert (b"x-forwarded-host", b"public") in kept


def test_answers_lose_hop_by_hop_headers_and_keep_cookies() -> None:
    """Names in lower case, repeated cookies kept, connection headers gone."""
    received = [(b"Set-Cookie", b"a=1"), (b"Connection", b"close, X-Hop"), (b"X-Hop", b"1"), (b"Set-Cookie", b"b=2")]
    assert response_headers(received, status=200) == [(b"set-cookie", b"a=1"), (b"set-cookie", b"b=2")]


@pytest.mark.parametrize("status", [204, 304])
def test_an_answer_without_body_has_no_length(status: int) -> None:
    """The server in front would wait for bytes that never come."""
    assert response_headers([(b"Content-Length", b"5")], status=status) == []


def test_chunks_overrule_a_length_in_answers() -> None:
    """An answer that claims both is framed by its chunks."""
    received = [(b"Content-Length", b"5"), (b"Transfer-Encoding", b"chunked")]
    assert response_headers(received, status=200) == []


def test_websocket_upgrades_are_recognised_and_others_ignored() -> None:
    """Only WebSocket is refused; h2c may be ignored."""
    assert refusal([(b"upgrade", b"h2c"), (b"upgrade", b"WebSocket")]) is WEBSOCKET
    assert refusal([(b"upgrade", b"h2c")]) is None


@pytest.mark.parametrize(
    "value", [b"gzip, chunked", b"chunked, chunked", b"identity", b"", b"xchunked", b"chunked;q=1"]
)
def test_a_transfer_coding_that_would_be_lost_is_refused(value: bytes) -> None:
    """Only chunks are undone; white space and case do not matter."""
    refused = refusal([(b"host", b"a"), (b"transfer-encoding", value)])
    assert refused is not None
    assert refused.status == 501
    assert refusal([(b"transfer-encoding", b" Chunked\t")]) is None
    assert refusal([(b"transfer-encoding", b"chunked")] * 2) is not None
