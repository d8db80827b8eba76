"""Model servers that start themselves, each recorded in the way that `docs/servers.md` gives for it."""

from collections.abc import Callable
from typing import Any

import httpx

Rows = Callable[..., list[dict[str, Any]]]
Start = Callable[..., Any]


def test_a_server_that_imports_its_middleware_by_name_is_recorded(start: Start, rows: Rows) -> None:
    """As vLLM loads it, starts and stops: plain and streamed answers are rows, and its stop delivers them."""
    server = start("vllm-like", "--middleware", "infertap.InferenceMiddleware")
    url = f"{server.url}/v1/chat/completions"
    assert httpx.post(url, json={"messages": []}).json()["choices"][0]["message"] == {"content": "blue sky"}
    assert httpx.post(url, json={"stream": True}).text.endswith("data: [DONE]\n\n")
    server.stop()
    assert "2 requests spooled; all delivered" in server.output
    plain, streamed = sorted(rows("inference", 2), key=lambda row: bool(row["is_stream"]))
    assert plain["response"] == '{"choices":[{"index":0,"message":{"content":"blue sky"}}]}'
    assert streamed["is_stream"]
    assert '"content": " sky"' in streamed["response"]
