"""The sidecar is the middleware around a proxy: the same requests give the same rows in both positions."""

import contextlib
import socket
import struct
import time
from collections.abc import Callable
from typing import Any

import httpx

Rows = Callable[..., list[dict[str, Any]]]
Start = Callable[..., Any]

DIFFERS = {
    # Ids, times and places of their own.
    "request_id", "request_time", "trace_id", "span_id", "execution_duration_ms", "duration_ns",
    "time_to_first_chunk_ns", "spool_id", "segment_no", "sequence_no", "resource", "instance",
    # Chunks are cut anew on the way through a second server.
    "chunk_count",
}  # fmt: skip
HEADERS_THAT_DIFFER = {
    "date",
    "server",
    "transfer-encoding",
    "host",
    "via",
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-host",
}


def ask(url: str) -> None:
    """One request of each kind; the query string names it."""
    httpx.post(f"{url}/echo?case=json&token=abc", json={"a": 1, "password": "p"}, headers={"x-request-id": "r1"})
    httpx.post(f"{url}/echo?case=form", data={"q": "x", "api_key": "k"})
    httpx.post(
        f"{url}/echo?case=multipart",
        files={"file": ("a.bin", b"\x00\x01")},
        data={"token": "t", "n": "1"},
        headers={"content-type": "multipart/form-data; boundary=the-same-each-time"},
    )
    httpx.post(f"{url}/echo?case=empty")
    httpx.post(f"{url}/stream/20?case=stream", json={})
    for status in (201, 204, 304, 302, 404, 500, 503):
        httpx.post(f"{url}/status/{status}?case={status}", json={})
    httpx.head(f"{url}/status/200?case=head")
    for name in ("binary", "latin", "not-utf8", "not-json", "twice", "large/2097152"):
        httpx.get(f"{url}/{name}?case={name}")
    httpx.post(f"{url}/echo?case=gzip", content=b"\x1f\x8bbroken", headers={"content-encoding": "gzip"})


def comparable(row: dict[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in row.items() if name not in DIFFERS}
    for name in ("request_headers", "response_headers"):
        kept[name] = {key: value for key, value in row[name] if key not in HEADERS_THAT_DIFFER}
    if row["status_code"] in (204, 304):
        # The upstream's own server takes the app's length away from an answer without a body.
        kept["response_headers"].pop("content-length", None)
    return kept


def by_case(found: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {row["query"].partition("&")[0]: comparable(row) for row in found}


def test_both_positions_record_the_same(start: Start, rows: Rows, tmp_path: Any) -> None:
    """The zoo's answers recorded by the middleware and by the sidecar give equal rows."""
    folders = [tmp_path / "middleware", tmp_path / "sidecar"]
    for folder in folders:
        folder.mkdir()
    env = {"OTEL_SERVICE_NAME": "zoo"}
    wrapped = start("uvicorn", "zoo:recorded", folder=folders[0], env=env)
    bare = start("uvicorn", "zoo:app", folder=folders[1])
    sidecar = start("serve", "--upstream", bare.url, "--admin", "127.0.0.1:0", folder=folders[1], env=env)
    ask(wrapped.url)
    ask(sidecar.url)
    wrapped.stop()
    assert sidecar.stop() in (0, -15, 143)
    first, second = (by_case(rows("inference", 20, folder=folder)) for folder in folders)
    assert len(first) == 20
    assert first.keys() == second.keys()
    for case, expected in first.items():
        assert second[case] == expected, case


def test_the_trace_goes_on_to_the_upstream(start: Start, rows: Rows, tmp_path: Any) -> None:
    """The upstream sees the sidecar's span as its parent, in the caller's trace."""
    upstream_folder = tmp_path / "upstream"
    upstream_folder.mkdir()
    upstream = start("uvicorn", "zoo:recorded", folder=upstream_folder)
    sidecar = start("serve", "--upstream", upstream.url, "--admin", "127.0.0.1:0")
    parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    httpx.get(f"{sidecar.url}/echo", headers={"traceparent": parent})
    sidecar.stop()
    upstream.stop()
    (outer,) = rows("inference", 1)
    (inner,) = rows("inference", 1, folder=upstream_folder)
    assert outer["trace_id"] == inner["trace_id"] == "4bf92f3577b34da6a3ce929d0e0e4736"
    assert outer["parent_span_id"] == "00f067aa0ba902b7"
    assert inner["parent_span_id"] == outer["span_id"]


def test_an_upstream_that_is_away_is_a_502_of_our_own(start: Start, rows: Rows, free_port: Callable[[], int]) -> None:
    """Nobody listens: the client gets 502, the row says whose fault it was."""
    sidecar = start("serve", "--upstream", f"http://127.0.0.1:{free_port()}", "--admin", "127.0.0.1:0")
    assert httpx.post(f"{sidecar.url}/v1/x", json={"a": 1}).status_code == 502
    sidecar.stop()
    (row,) = rows("inference", 1)
    assert (row["status_code"], row["end_reason"]) == (502, "upstream_error")
    assert row["request"] == '{"a":1}'


def test_an_upstream_that_breaks_off_is_recorded_and_passed_on(start: Start, rows: Rows, tmp_path: Any) -> None:
    """An answer that ends too early reaches the client as one, and is no complete row."""
    upstream = start("uvicorn", "zoo:app")
    sidecar = start("serve", "--upstream", upstream.url, "--admin", "127.0.0.1:0")
    try:
        httpx.get(f"{sidecar.url}/raise-after")
    except httpx.RemoteProtocolError:
        broken = True
    else:
        broken = False
    assert broken, "the client must see that the answer is not whole"
    sidecar.stop()
    (row,) = rows("inference", 1)
    assert row["end_reason"] == "upstream_error"
    assert "RESPONSE_INCOMPLETE" in row["logging_error_codes"]


def test_a_client_that_hangs_up_frees_the_upstream(start: Start, rows: Rows) -> None:
    """The row of an abandoned stream says client_disconnect."""
    upstream = start("uvicorn", "zoo:app")
    sidecar = start("serve", "--upstream", upstream.url, "--admin", "127.0.0.1:0")
    with httpx.stream("POST", f"{sidecar.url}/slow-stream", json={}) as reply:
        next(reply.iter_bytes())
    (row,) = rows("inference", 1)
    assert row["end_reason"] == "client_disconnect"
    assert row["chunk_count"] < 2_000
    sidecar.stop()


def test_a_client_that_leaves_within_a_stalled_upload_is_recorded_as_gone(start: Start, rows: Rows) -> None:
    """The model server takes nothing, so nobody reads from the client: its leaving is seen long before the timeout."""
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        upstream = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        arguments = ("--upstream", upstream, "--admin", "127.0.0.1:0", "--upstream-read-timeout-s", "3600")
        sidecar = start("serve", *arguments, probe=None)
        deadline_s = time.monotonic() + 120
        while "listening on" not in sidecar.output:
            assert time.monotonic() < deadline_s
            time.sleep(0.05)
        with socket.create_connection(("127.0.0.1", int(sidecar.url.rpartition(":")[2])), timeout=1) as client:
            size = 1 << 30
            client.sendall(b"POST /up HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size)
            with contextlib.suppress(TimeoutError):
                client.sendall(bytes(size))
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        (row,) = rows("inference", 1)
        assert (row["status_code"], row["end_reason"]) == (499, "client_disconnect")
        sidecar.stop()
    assert "Traceback" not in sidecar.output
