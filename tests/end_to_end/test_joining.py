"""Whoever else makes spans: one row a request, one server span of ours at most, one trace, and nothing twice."""

import importlib.util
import socket
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from seen_spans import Seen, collected, of_collector, of_table

Rows = Callable[..., list[dict[str, Any]]]
Start = Callable[..., Any]

SECRET = "only-the-sidecar-knows-this-one"
PARENT = {"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}
OTHER_PARENT = {"traceparent": "00-0123456789abcdef0123456789abcdef-1123456789abcdef-01"}
OURS = "infertap"
PREDICT = "predict"


def needs(module: str, package: str) -> pytest.MarkDecorator:
    """Skips where the maker of spans is not installed, and says how to install it."""
    missing = importlib.util.find_spec(module.partition(".")[0]) is None or importlib.util.find_spec(module) is None
    return pytest.mark.skipif(missing, reason=f"{package} is not installed: pip install {package}")


MLFLOW = needs("mlflow", "mlflow-tracing")
INSTRUMENTOR = needs("opentelemetry.instrumentation.fastapi", "opentelemetry-instrumentation-fastapi")
FRAMEWORKS = ["asgi", "fastapi", "starlette", "instrumentor"]
MAKERS = [
    "none",
    *FRAMEWORKS[:3],
    pytest.param("instrumentor", marks=INSTRUMENTOR),
    pytest.param("mlflow", marks=MLFLOW),
    pytest.param("mlflow-shared", marks=MLFLOW),
]


def wait_for_listener(port: int) -> None:
    """Until somebody listens there."""
    deadline = time.monotonic() + 90
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            assert time.monotonic() < deadline, f"nobody listens on port {port}"
            time.sleep(0.05)
        else:
            return


def environment_of(maker: str, destination: str, receiver: Any, port: int | None = None) -> dict[str, str]:
    """What names the maker and the destination; a `port` stands for the receiver's own."""
    env = {"MAKER": maker.partition("-")[0], "OTEL_SERVICE_NAME": "makers", "INFERTAP_DESTINATION": destination}
    if maker == "mlflow-shared":
        env["MLFLOW_USE_DEFAULT_TRACER_PROVIDER"] = "false"
    if destination != "table":
        env["OTEL_EXPORTER_OTLP_ENDPOINT"] = f"http://127.0.0.1:{port or receiver.http_port}"
        env["OTEL_EXPORTER_OTLP_PROTOCOL"] = "http/protobuf"
    return env


def check_once(spans: list[Seen], requests: int) -> None:
    """Nothing twice; for each request one span of ours, which makes at most one server span."""
    assert [many for many in Counter((span.trace_id, span.span_id) for span in spans).values() if many > 1] == []
    ours = [span for span in spans if span.scope == OURS and span.name != PREDICT]
    assert len(ours) == requests, [(span.name, span.kind, span.scope) for span in spans]
    assert len({span.trace_id for span in ours}) == requests
    assert len([span for span in ours if span.kind == "SERVER"]) <= requests
    assert [
        span for span in spans if span.name == PREDICT and span.trace_id not in {our.trace_id for our in ours}
    ] == []


def check_joined(spans: list[Seen], maker: str) -> None:
    """The app's own server span, where there is one, is parent or child of ours."""
    by_id = {span.span_id: span for span in spans}
    for span in spans:
        if span.scope == OURS and span.name != PREDICT and maker in ("asgi", "fastapi", "starlette", "instrumentor"):
            family = [other for other in spans if other.parent_span_id == span.span_id]
            if span.parent_span_id in by_id:
                family.append(by_id[span.parent_span_id])
            assert [other for other in family if other.kind == "SERVER" and other.scope != OURS], family


@pytest.mark.slow
@pytest.mark.parametrize("position", ["middleware", "sidecar", "middleware inside sidecar"])
@pytest.mark.parametrize("destination", ["table", "otlp", "both"])
@pytest.mark.parametrize("maker", MAKERS)
def test_every_combination_gives_one_row_and_one_trace(
    start: Start, rows: Rows, otlp_receiver: Any, maker: str, destination: str, position: str
) -> None:
    """One row a request, one span of ours, the app's own beside it in the same trace, at each destination once."""
    env = environment_of(maker, destination, otlp_receiver)
    inside = position != "sidecar"
    if position == "middleware inside sidecar":
        env["INFERTAP_OUTER_SECRET"] = SECRET
    server = start("uvicorn", "makers:app", env={**env, "RECORDED": "1" if inside else ""})
    url, sidecar = server.url, None
    if position != "middleware":
        sidecar = start("serve", "--upstream", url, "--admin", "127.0.0.1:0", env=env)
        url = sidecar.url
    for headers in (PARENT, OTHER_PARENT):
        assert httpx.post(f"{url}/sync", json={}, headers=headers, timeout=60).json() == {"done": True}
    server.stop()
    if sidecar is not None:
        sidecar.stop()
    traces = {header["traceparent"].split("-")[1] for header in (PARENT, OTHER_PARENT)}
    if destination == "otlp":
        assert rows("inference") == []
    else:
        found = rows("inference", 2)
        assert len(found) == 2
        assert {row["trace_id"] for row in found} == traces
        spans = [of_table(row) for row in rows("spans", 2)]
        check_once(spans, 2)
        if inside:
            # What the app makes without infertap in its process goes where the app sends it.
            assert Counter(span.trace_id for span in spans if span.name == PREDICT) == Counter(traces)
            check_joined(spans, maker)
    if destination != "table":
        # Without infertap beside it, MLflow makes no span under a caller's, or none that outlives SIGTERM.
        traced = inside or maker not in ("none", "mlflow", "mlflow-shared")
        spans = collected(otlp_receiver, 4 if traced else 2)
        check_once(spans, 2)
        if traced:
            assert Counter(span.trace_id for span in spans if span.name == PREDICT) == Counter(traces)
            check_joined(spans, maker)


@pytest.fixture
def behind_receiver(start: Start, free_port: Callable[[], int], otlp_receiver: Any) -> Callable[..., tuple[Any, Any]]:
    """Starts an app that exports to the receiver of the sidecar before it: gives (app, sidecar)."""

    def run(maker: str, destination: str, **settings: str) -> tuple[Any, Any]:
        port = free_port()
        exporting = {
            **environment_of(maker, "otlp", None, port),
            "OTEL_BSP_SCHEDULE_DELAY": "100",
            "INFERTAP_OUTER_SECRET": SECRET,
            **settings,
        }
        if maker.startswith("mlflow"):
            # By itself, `mlflow-tracing` makes no span without a tracking URI, and loses each under the base variable.
            exporting["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"] = (
                f"{exporting.pop('OTEL_EXPORTER_OTLP_ENDPOINT')}/v1/traces"
            )
            exporting["MLFLOW_TRACKING_URI"] = "http://127.0.0.1:1"
        # Asked for nothing before the receiver listens: its traces would wait for it.
        app = start("uvicorn", "makers:app", env=exporting, probe=None)
        env = {**environment_of(maker, destination, otlp_receiver), "INFERTAP_OUTER_SECRET": SECRET}
        receiving = ("--otlp-http", f"127.0.0.1:{port}")
        sidecar = start("serve", "--upstream", app.url, "--admin", "127.0.0.1:0", *receiving, env=env)
        wait_for_listener(port)
        wait_for_listener(app.port)
        return app, sidecar

    return run


@pytest.fixture
def arrived(rows: Rows, otlp_receiver: Any) -> Callable[[str, int], list[list[Seen]]]:
    """The spans at each destination, waiting for so many; there are two rows where there are tables."""

    def look(destination: str, least: int) -> list[list[Seen]]:
        requests = 0 if destination == "otlp" else 2
        assert len(rows("inference", requests)) == requests
        found = []
        if destination != "otlp":
            found.append([of_table(row) for row in rows("spans", least)])
        if destination != "table":
            found.append(collected(otlp_receiver, least))
        return found

    return look


@pytest.mark.slow
@pytest.mark.parametrize(
    ("maker", "destination", "recorded"),
    [
        pytest.param(maker, destination, recorded, marks=[INSTRUMENTOR] if maker == "instrumentor" else [])
        for maker in ("none", *FRAMEWORKS)
        for destination, recorded in (("table", ""), ("otlp", ""), ("both", ""), ("table", "1"))
        # An app without a maker and without a middleware sends nothing.
        if maker != "none" or recorded
    ],
)
def test_an_app_that_exports_to_the_sidecars_receiver_has_one_row_a_request(
    behind_receiver: Any, arrived: Any, maker: str, destination: str, recorded: str
) -> None:
    """The fourth position, with a middleware inside and without: what the app sends lands once, and makes no row."""
    app, sidecar = behind_receiver(maker, destination, RECORDED=recorded)
    for headers in (PARENT, OTHER_PARENT):
        assert httpx.post(f"{sidecar.url}/sync", headers=headers).status_code == 200
    app.stop()
    sidecar.stop()
    traces = [header["traceparent"].split("-")[1] for header in (PARENT, OTHER_PARENT)]
    for spans in arrived(destination, 4 if maker == "none" else 6):
        check_once(spans, 2)
        check_joined(spans, maker)
        assert Counter(span.trace_id for span in spans if span.name == PREDICT) == Counter(traces)


@MLFLOW
@pytest.mark.slow
@pytest.mark.parametrize("maker", ["mlflow", "mlflow-shared"])
@pytest.mark.parametrize(
    ("destination", "recorded", "path"),
    [("table", "", "joined"), ("otlp", "", "joined"), ("both", "", "joined"), ("table", "1", "sync")],
)
def test_what_mlflow_exports_to_the_sidecars_receiver_is_below_the_request(
    behind_receiver: Any, arrived: Any, maker: str, destination: str, recorded: str, path: str
) -> None:
    """Where the app hands MLflow the caller's headers, or has a middleware inside that does: one row, one trace."""
    app, sidecar = behind_receiver(maker, destination, RECORDED=recorded)
    for headers in (PARENT, OTHER_PARENT):
        assert httpx.post(f"{sidecar.url}/{path}", headers=headers).status_code == 200
    # Not stopped yet: without infertap in its process, what MLflow holds dies with SIGTERM.
    arrived(destination, 4)
    app.stop()
    sidecar.stop()
    for spans in arrived(destination, 4):
        check_once(spans, 2)
        requests = {span.span_id for span in spans if span.scope == OURS}
        snippets = [span for span in spans if span.name == PREDICT]
        assert {span.parent_span_id for span in snippets} == requests
        assert len(snippets) == len(requests) == 2


@MLFLOW
@pytest.mark.slow
@pytest.mark.parametrize("maker", ["mlflow", "mlflow-shared"])
def test_mlflow_without_a_context_exports_to_the_sidecars_receiver_a_trace_of_its_own(
    behind_receiver: Any, arrived: Any, maker: str
) -> None:
    """MLflow looks at no headers by itself; its spans land at the same destination, and never as a second row."""
    app, sidecar = behind_receiver(maker, "table", RECORDED="", UNTAGGED="1")
    for headers in (PARENT, OTHER_PARENT):
        assert httpx.post(f"{sidecar.url}/sync", headers=headers).status_code == 200
    arrived("table", 4)
    app.stop()
    sidecar.stop()
    (spans,) = arrived("table", 4)
    snippets = [span for span in spans if span.name == PREDICT]
    assert len({span.span_id for span in snippets}) == len(snippets) == 2
    assert {(span.parent_span_id, span.request_id) for span in snippets} == {(None, None)}
    assert len([span for span in spans if span.scope == OURS]) == 2


@MLFLOW
@pytest.mark.parametrize("shared", [False, True])
def test_mlflows_snippet_lands_in_the_trace_of_its_request(start: Start, rows: Rows, shared: bool) -> None:
    """Inputs and outputs of `mlflow.start_span` are a child of the request's span, from every kind of handler."""
    env = environment_of("mlflow-shared" if shared else "mlflow", "table", None)
    server = start("uvicorn", "makers:app", env={**env, "RECORDED": "1"})
    for path in ("sync", "async", "pool", "stream", "raises"):
        for headers in ({}, PARENT):
            httpx.post(f"{server.url}/{path}", json={}, headers=headers, timeout=60)
    server.stop()
    requests = {row["request_id"]: row for row in rows("inference", 10)}
    spans = [of_table(row) for row in rows("spans", 20)]
    assert len(requests) == 10
    snippets = [span for span in spans if span.name == PREDICT]
    assert len(snippets) == 10
    for span in snippets:
        row = requests[span.request_id or ""]
        assert (span.trace_id, span.parent_span_id) == (row["trace_id"], row["span_id"])
        assert span.attributes["mlflow.spanInputs"] == '{"a": 1}'
        assert span.attributes["mlflow.spanOutputs"] == '{"b": 2}'
        assert span.trace_state == f"infertap={row['span_id']}"


@MLFLOW
@pytest.mark.parametrize("maker", ["mlflow", "mlflow-shared"])
def test_requests_that_share_a_trace_lose_no_span(start: Start, rows: Rows, maker: str) -> None:
    """Eight requests under one trace id overlap and end one by one; each has its MLflow span."""
    server = start("uvicorn", "makers:app", env={**environment_of(maker, "table", None), "RECORDED": "1"})
    with ThreadPoolExecutor(8) as pool:
        answers = list(
            pool.map(lambda _: httpx.post(f"{server.url}/meet/8", headers=PARENT, timeout=200).json(), range(8))
        )
    assert sorted(answer["place"] for answer in answers) == list(range(8))
    server.stop()
    by_request = {row["span_id"] for row in rows("inference", 8)}
    snippets = [of_table(row) for row in rows("spans", 16) if row["name"] == PREDICT]
    assert {span.parent_span_id for span in snippets} == by_request
    assert len(snippets) == 8


@MLFLOW
def test_what_mlflow_exports_by_itself_is_flushed_at_a_stop(start: Start, otlp_receiver: Any) -> None:
    """A span made just before SIGTERM arrives, although uvicorn runs no `atexit`; tags on the trace do not lose it."""
    env = environment_of("mlflow", "otlp", otlp_receiver)
    server = start("uvicorn", "makers:app", env={**env, "RECORDED": "1", "OTEL_BSP_SCHEDULE_DELAY": "60000"})
    assert httpx.post(f"{server.url}/sync", headers=PARENT, timeout=60).status_code == 200
    server.stop()
    spans = [of_collector(span) for span in otlp_receiver.spans]
    assert sorted(span.scope for span in spans) == [OURS, "mlflow.tracing.provider"]


@MLFLOW
def test_a_remote_parent_fails_no_request_where_mlflow_shares_the_provider(start: Start, otlp_receiver: Any) -> None:
    """FastAPI's native tracing, MLflow's OTLP processor and a caller's traceparent together answer 200."""
    env = environment_of("mlflow-shared", "otlp", otlp_receiver)
    server = start("uvicorn", "makers:app", env={**env, "RECORDED": "1", "MAKER": "mlflow", "FASTAPI_TRACING": "1"})
    for headers in ({}, PARENT, PARENT):
        assert httpx.post(f"{server.url}/sync", headers=headers, timeout=60).status_code == 200
    server.stop()
    assert sum(span["name"] == PREDICT for span in otlp_receiver.spans) == 3


@pytest.mark.parametrize("way_in", ["uvicorn", "run"])
def test_a_provider_is_installed_where_it_is_asked_for(start: Start, rows: Rows, way_in: str) -> None:
    """By the setting, or under `infertap run`: an instrumentation's spans land in the trace of an app without one."""
    env = {**environment_of("installed", "table", None), "FASTAPI_TRACING": "1"}
    if way_in == "uvicorn":
        env |= {"RECORDED": "1", "INFERTAP_INSTALL_TRACER_PROVIDER": "true"}
    server = start(way_in, "makers:app", env=env)
    httpx.post(f"{server.url}/async")
    server.stop()
    (row,) = rows("inference", 1)
    spans = [of_table(found) for found in rows("spans", 2)]
    assert {(span.name, span.scope, span.parent_span_id) for span in spans} == {
        ("POST /async", OURS, None),
        (PREDICT, "library", row["span_id"]),
    }


def test_the_official_server_span_is_made_where_it_is_asked_for(start: Start, rows: Rows) -> None:
    """`server_span = "otel"`: OpenTelemetry's middleware makes the SERVER span, and the row has its ids."""
    env = {**environment_of("none", "table", None), "INFERTAP_SERVER_SPAN": "otel"}
    server = start("uvicorn", "makers:app", env={**env, "RECORDED": "1"})
    httpx.post(f"{server.url}/sync", headers=PARENT)
    server.stop()
    (row,) = rows("inference", 1)
    spans = [of_table(found) for found in rows("spans", 3)]
    (official,) = [span for span in spans if span.kind == "SERVER"]
    assert official.scope == "opentelemetry.instrumentation.asgi"
    assert (official.span_id, official.parent_span_id) == (row["span_id"], "00f067aa0ba902b7")
    assert official.request_id == row["request_id"]
    assert {span.parent_span_id for span in spans if span is not official} == {official.span_id}
