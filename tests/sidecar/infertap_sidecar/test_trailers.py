"""Fields behind an answer's body: passed on where the server in front can send them, dropped where it cannot."""

import asyncio
from typing import Any

import pytest

from infertap_sidecar.proxy import ReverseProxy
from infertap_sidecar.upstream.native_client import NativeUpstream

ANSWER = (
    b"HTTP/1.1 200 OK\r\nTrailer: x-sum\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"2\r\nok\r\n0\r\nX-Sum: 7\r\nKeep-Alive: x\r\nContent-Type: text/html\r\n\r\n"
)


@pytest.mark.parametrize("offered", [True, False])
def test_trailers_pass_where_asgi_offers_them(servers: Any, offered: bool) -> None:
    """With the extension the client gets the fields that may stand there; without it, the answer alone."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(ANSWER)

    sent: list[dict[str, Any]] = []
    scope = {
        "type": "http", "method": "GET", "path": "/", "query_string": b"", "headers": [(b"host", b"a")],
        "extensions": {"http.response.trailers": {}} if offered else None,
    }  # fmt: skip
    messages = iter([{"type": "http.request"}])

    async def receive() -> Any:
        message = next(messages, None)
        return message if message is not None else await asyncio.Event().wait()

    async def send(message: Any) -> None:
        sent.append(message)

    async def exchange(port: int) -> None:
        upstream = NativeUpstream(f"http://127.0.0.1:{port}", connect_timeout_s=60, read_timeout_s=60)
        await ReverseProxy(upstream, default_authority=b"a")(scope, receive, send)
        await upstream.close()

    servers.run(exchange(servers.raw(talk)))
    assert sent[0]["type"] == "http.response.start"
    assert sent[0].get("trailers", False) is offered
    body = {"type": "http.response.body", "body": b"ok", "more_body": False}
    fields = {"type": "http.response.trailers", "headers": [(b"x-sum", b"7")], "more_trailers": False}
    assert sent[1:] == ([body, fields] if offered else [body])
