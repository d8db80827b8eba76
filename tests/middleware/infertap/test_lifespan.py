"""The lifespan of a wrapped app: dialogues with apps that speak it, refuse it, break it, or have never heard of it."""

import asyncio
from collections.abc import Callable, MutableMapping
from pathlib import Path
from typing import Any

import pytest

from infertap import Config, InferenceMiddleware
from infertap.lifespan import Lifespan
from infertap.pipeline import Idle, Pipeline

Message = MutableMapping[str, Any]
App = Callable[[Any, Any, Any], Any]


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    """A real pipeline whose spool nobody drains."""
    monkeypatch.chdir(tmp_path)
    for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "INFERTAP_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    return Config(tables=str(tmp_path / "tables"), drainer="external", drain_s=0, destination="table")


class Server:
    """A server's side: gives startup, then, when the app has answered, shutdown; remembers all."""

    def __init__(self) -> None:
        self.given: list[str] = []
        self.sent: list[Message] = []
        self.adopted: list[Pipeline | Idle | None] = []
        self._answered = asyncio.Event()

    async def receive(self) -> Message:
        if not self.given:
            self.given.append("lifespan.startup")
        else:
            async with asyncio.timeout(60):
                await self._answered.wait()
            self.given.append("lifespan.shutdown")
        return {"type": self.given[-1]}

    async def send(self, message: Message) -> None:
        self.sent.append(message)
        if message["type"].startswith("lifespan.startup"):
            self._answered.set()

    @property
    def types(self) -> list[str]:
        return [message["type"].removeprefix("lifespan.") for message in self.sent]


def _run(app: App, config: Config | None) -> Server:
    async def main() -> Server:
        server = Server()
        scope = {"type": "lifespan", "state": {}}
        await Lifespan(app, config, server.adopted.append).run(scope, server.receive, server.send)
        return server

    return asyncio.run(main())


def _was_recording(server: Server) -> bool:
    """One pipeline was adopted, then let go, and its worker has ended."""
    pipeline, none = server.adopted
    assert none is None
    assert isinstance(pipeline, Pipeline)
    assert not pipeline.alive
    return True


def test_an_app_that_speaks_lifespan_speaks_for_itself(config: Config) -> None:
    """It gets both messages, finds the pipeline running at startup, and its answers go out in order."""
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append((await receive())["type"])
        scope["state"]["mine"] = 1
        await send({"type": "lifespan.startup.complete"})
        seen.append((await receive())["type"])
        await send({"type": "lifespan.shutdown.complete"})

    server = _run(app, config)
    assert seen == ["lifespan.startup", "lifespan.shutdown"]
    assert server.types == ["startup.complete", "shutdown.complete"]
    assert _was_recording(server)


async def _raises(scope: Any, receive: Any, send: Any) -> None:
    assert scope["type"] == "http"


async def _returns(scope: Any, receive: Any, send: Any) -> None:
    return


@pytest.mark.parametrize("app", [_raises, _returns])
def test_for_an_app_without_lifespan_we_speak(config: Config, app: App) -> None:
    """Or nothing would be drained at shutdown."""
    server = _run(app, config)
    assert server.types == ["startup.complete", "shutdown.complete"]
    assert server.given == ["lifespan.startup", "lifespan.shutdown"]
    assert _was_recording(server)


def test_an_app_that_raises_in_its_startup_raises(config: Config) -> None:
    """The server is told what happened and nothing else; if it goes on, so does the recording."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        raise RuntimeError("no model")

    server = Server()

    async def main() -> None:
        await Lifespan(app, config, server.adopted.append).run({"type": "lifespan"}, server.receive, server.send)

    with pytest.raises(RuntimeError, match="no model"):
        asyncio.run(main())
    assert server.sent == []
    (pipeline,) = server.adopted
    assert isinstance(pipeline, Pipeline)
    assert pipeline.alive
    pipeline.stop()


def test_an_app_that_fails_its_startup_fails_it(config: Config) -> None:
    """The message is the app's, and the pipeline is stopped before it goes out."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no model"})

    server = _run(app, config)
    assert server.sent == [{"type": "lifespan.startup.failed", "message": "no model"}]
    assert _was_recording(server)


def test_an_app_that_fails_its_startup_and_raises_raises(config: Config) -> None:
    """As Starlette does; the server is told once."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no model"})
        raise RuntimeError("no model")

    with pytest.raises(RuntimeError, match="no model"):
        _run(app, config)


def test_an_app_that_fails_its_shutdown_is_stopped_all_the_same(config: Config) -> None:
    """`shutdown.failed` is passed on after the pipeline has stopped."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.failed", "message": "stuck"})

    server = _run(app, config)
    assert server.types == ["startup.complete", "shutdown.failed"]
    assert _was_recording(server)


def test_an_app_that_leaves_after_its_startup_is_not_the_end(config: Config) -> None:
    """It goes on answering requests, so recording goes on until the server shuts down."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})

    server = _run(app, config)
    assert server.given == ["lifespan.startup", "lifespan.shutdown"]
    assert server.types == ["startup.complete", "shutdown.complete"]
    assert _was_recording(server)


def test_an_app_that_does_not_answer_the_shutdown_is_answered_for(config: Config) -> None:
    """The shutdown comes only once, so nobody waits for a second one."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})

    server = _run(app, config)
    assert server.types == ["startup.complete", "shutdown.complete"]
    assert _was_recording(server)


def test_a_cancelled_startup_stops_the_pipeline(config: Config) -> None:
    """A server that gives up while the app is still loading its model."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise asyncio.CancelledError

    adopted: list[Pipeline | Idle | None] = []

    async def main() -> None:
        server = Server()
        await Lifespan(app, config, adopted.append).run({"type": "lifespan"}, server.receive, server.send)

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(main())
    assert isinstance(adopted[0], Pipeline)
    assert not adopted[0].alive


def test_wrong_settings_fail_the_startup_with_all_problems(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing is raised (uvicorn's `lifespan=auto` would swallow it), and the app never runs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("INFERTAP_DESTINATION", "nowhere")
    monkeypatch.setenv("INFERTAP_DRAIN_S", "soon")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError("the app must not run")

    server = _run(app, None)
    (message,) = server.sent
    assert message["type"] == "lifespan.startup.failed"
    assert "destination (INFERTAP_DESTINATION)" in message["message"]
    assert "drain_s (INFERTAP_DRAIN_S)" in message["message"]
    assert server.adopted == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "variables",
    [
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://h:1", "OTEL_EXPORTER_OTLP_HEADERS": "x"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://h:1", "OTEL_PROPAGATORS": "misspelled"},
        {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "many"},
        {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "nan"},
        {"OTEL_EXPORTER_OTLP_TIMEOUT": "soon"},
    ],
)
def test_mistakes_in_otel_variables_never_stop_an_app(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variables: dict[str, str]
) -> None:
    """They are one ERROR, and nothing is recorded anywhere."""
    monkeypatch.chdir(tmp_path)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    server = _run(_returns, Config())
    assert server.types == ["startup.complete", "shutdown.complete"]
    assert isinstance(server.adopted[0], Idle)
    assert list(tmp_path.iterdir()) == []


def test_the_middleware_records_between_startup_and_shutdown(config: Config) -> None:
    """`pipeline` is there at the first request, and gone after the last."""
    middleware = InferenceMiddleware(_raises, config=config)
    seen: list[Pipeline | None] = []

    async def main() -> None:
        server = Server()

        async def send(message: Message) -> None:
            seen.append(middleware.pipeline)
            await server.send(message)

        await middleware({"type": "lifespan"}, server.receive, send)

    asyncio.run(main())
    assert isinstance(seen[0], Pipeline)
    assert seen[1] is None


def _start_wrapped_twice(inner_config: Config, outer_config: Config) -> list[Pipeline | None]:
    """The pipelines of both middlewares around an app, inner one first, as they are when it starts; they have ended."""
    seen: list[Pipeline | None] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        seen.extend((inner.pipeline, outer.pipeline))
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})

    inner = InferenceMiddleware(app, config=inner_config)
    outer = InferenceMiddleware(inner, config=outer_config)
    assert _run(outer, Config(destination="none")).types == ["startup.complete", "shutdown.complete"]
    assert (inner.pipeline, outer.pipeline) == (None, None)
    assert not any(pipeline.alive for pipeline in seen if pipeline is not None)
    return seen


def test_an_app_that_is_wrapped_twice_has_one_pipeline(config: Config, capfd: pytest.CaptureFixture[str]) -> None:
    """One line at start, whichever way the second wrapper came; the outer one ends it."""
    inner, outer = _start_wrapped_twice(config, config.model_copy())
    assert inner is outer is not None
    assert capfd.readouterr().err.count("recording to") == 1


@pytest.mark.parametrize(
    ("others", "words"),
    [
        ({"tables": "others"}, "each writes its own copy of a request"),
        ({"redact_keys": ("iban",)}, "the outer one records, by its settings"),
    ],
)
def test_a_wrapper_with_settings_of_its_own_has_a_pipeline_of_its_own(
    config: Config, caplog: pytest.LogCaptureFixture, others: dict[str, Any], words: str
) -> None:
    """Both end, and whose settings count is said: nobody may believe that the inner one redacts the outer one's."""
    inner, outer = _start_wrapped_twice(config.model_copy(update=others), config)
    assert inner is not None
    assert outer is not None
    assert inner is not outer
    assert words in caplog.text


def test_an_inner_wrapper_that_records_nothing_says_who_does(config: Config, caplog: pytest.LogCaptureFixture) -> None:
    """`destination="none"` on the inner one does not silence the outer one."""
    inner, outer = _start_wrapped_twice(Config(destination="none"), config)
    assert inner is None
    assert outer is not None
    assert "the outer one records this app's requests all the same" in caplog.text
