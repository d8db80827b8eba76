"""The operator's port, answered by the real app over a socket."""

from typing import Any

import httpx

from infertap_sidecar.admin import admin_app


class Switch:
    """Health that a test sets."""

    def __init__(self) -> None:
        self.found: list[str] = []

    def problems(self) -> list[str]:
        return self.found


async def metrics(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": scope["path"].encode()})


def test_alive_ready_and_metrics(servers: Any) -> None:
    """Readiness follows health, liveness does not, metrics answer without a redirect."""
    health = Switch()
    url = f"http://127.0.0.1:{servers.app(admin_app(health, metrics))}"
    assert httpx.get(f"{url}/readyz").json() == {"ready": True}
    assert httpx.get(f"{url}/metrics").text == "/metrics"
    health.found = ["stopping"]
    assert httpx.get(f"{url}/livez").status_code == 200
    answer = httpx.get(f"{url}/readyz")
    assert (answer.status_code, answer.json()) == (503, {"ready": False, "problems": ["stopping"]})
    assert httpx.get(f"{url}/other").status_code == 404
