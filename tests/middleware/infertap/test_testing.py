"""What users' tests are given: the real recorder on a folder of its own."""

import asyncio
import logging
import re
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from infertap import ConfigError
from infertap.clock import Clock
from infertap.tables.schema import INFERENCE
from infertap.testing import ManualClock, Recording, recording

DOCUMENT = Path(__file__).parents[3] / "docs" / "testing.md"


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                return
    await receive()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": b"answer"})


def test_the_example_in_the_documentation_runs() -> None:
    """It is taken from the page as it stands."""
    page = DOCUMENT.read_text()
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    names: dict[str, Any] = {}
    # Empty lines before it, so that a failure names the page's own line.
    exec(compile("\n" * page[: page.index(code)].count("\n") + code, str(DOCUMENT), "exec"), names)
    names["test_what_is_kept_of_a_request"]()


@pytest.mark.parametrize("lifespan", [True, False])
def test_the_rows_are_complete_after_the_block(lifespan: bool, tmp_path: Path, monkeypatch: Any) -> None:
    """All columns with the types of a query, in order; nothing is left in the working directory."""
    monkeypatch.chdir(tmp_path)
    before = datetime.now(UTC)
    with recording(app) as recorded:
        client = TestClient(recorded.app)
        if lifespan:
            with client:
                for number in range(3):
                    client.get(f"/{number}")
        else:
            for number in range(3):
                client.get(f"/{number}")
    assert [row["path"] for row in recorded.requests] == ["/0", "/1", "/2"]
    row = recorded.requests[0]
    assert list(row) == list(INFERENCE.names)
    assert before <= row["request_time"] <= datetime.now(UTC)
    assert isinstance(row["request_date"], date)
    assert (row["tags"], row["finish_reasons"], row["input_tokens"]) == ({}, [], None)
    assert list(tmp_path.iterdir()) == []


def test_rows_can_be_waited_for_inside_the_block() -> None:
    """And a row that never comes is a failed assertion with the numbers, not a hang."""
    with recording(app) as recorded:
        client = TestClient(recorded.app)
        client.get("/0")
        (row,) = recorded.wait(1)
        assert row["path"] == "/0"
        with pytest.raises(AssertionError, match="1 of 2 requests were recorded"):
            recorded.wait(2, within_s=0.05)


def test_nothing_is_recorded_where_nothing_was_asked() -> None:
    """No request, no row; also excluded ones."""
    with recording(app) as recorded:
        pass
    assert (recorded.requests, recorded.spans) == ([], [])
    with recording(app, exclude_paths=("/healthz",)) as recorded:
        TestClient(recorded.app).get("/healthz")
    assert recorded.requests == []


def test_a_wrong_setting_is_said_where_it_is_made() -> None:
    """As by `Config` itself; and the folder is not the user's to choose."""
    with pytest.raises(ConfigError, match="content"), recording(app, content="half"):
        pass
    with recording(app, tables="elsewhere") as recorded:
        TestClient(recorded.app).get("/")
    assert len(recorded.requests) == 1
    assert not Path("elsewhere").exists()


def test_it_works_in_an_event_loop() -> None:
    """An async test may use it."""

    async def ask(wrapped: Any) -> None:
        async def receive() -> Any:
            return {"type": "http.request", "body": b"ask"}

        async def send(_: Any) -> None:
            return

        scope = {"type": "http", "method": "POST", "path": "/x", "query_string": b"", "headers": []}
        await wrapped(scope, receive, send)

    async def main() -> None:
        with recording(app) as recorded:
            await ask(recorded.app)
        assert recorded.requests[0]["method"] == "POST"

    asyncio.run(main())


def test_what_a_test_raises_comes_out_as_it_is() -> None:
    """And what was recorded until then is kept."""

    def failing(recorded: Recording) -> None:
        TestClient(recorded.app).get("/")
        raise RuntimeError("of the test")

    with pytest.raises(RuntimeError, match="of the test"), recording(app) as recorded:
        failing(recorded)
    assert len(recorded.requests) == 1


def test_a_manual_clock_is_a_clock() -> None:
    """It moves when told."""
    clock = ManualClock(10.0)
    as_clock: Clock = clock
    clock.advance(2.5)
    assert (as_clock.monotonic_s(), as_clock.wall_ns()) == (12.5, 12_500_000_000)


def test_nothing_is_said_to_wait_in_a_folder_that_goes(capsys: Any, monkeypatch: Any) -> None:
    """Outside pytest, where nothing logs: the line at the start, and no advice to drain what is gone."""
    monkeypatch.setattr(logging.getLogger("infertap"), "propagate", False)
    with recording(app) as recorded:
        TestClient(recorded.app).get("/")
    said = capsys.readouterr().err
    assert "infertap: recording to" in said
    assert "wait" not in said
