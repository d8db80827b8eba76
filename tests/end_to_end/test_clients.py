"""The `openai` client and those who trace it, the real ones: their spans are in the request's trace, once, redacted."""

import importlib.util
import json
from collections import Counter
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from seen_spans import Seen, collected, of_table

Rows = Callable[..., list[dict[str, Any]]]
Start = Callable[..., Any]

PATHS = ("sync", "async", "stream", "embed", "refused")
QUESTION = "why is the sky blue?"
SECRETS = ("the0right0key", "the0wrong0key", "s3cret-of-the-prompt", "hunter2-of-the-tool")
CONTENT = (QUESTION, "blue sky", "the sky", "Paris", "session-of-the-caller")
MODULES = {
    "openinference": "openinference.instrumentation.openai",
    "openllmetry": "opentelemetry.instrumentation.openai",
    "contrib": "opentelemetry.instrumentation.openai_v2",
}


def installed(module: str) -> bool:
    """Whether it is there; its parents are namespaces that may be missing, too."""
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


INSTRUMENTATIONS = [
    pytest.param(name, marks=pytest.mark.skipif(not installed(module), reason=f"{module} is not installed"))
    for name, module in MODULES.items()
]

pytestmark = pytest.mark.slow


@pytest.fixture
def ask(start: Start) -> Callable[..., Any]:
    """Sends one request to each path of the app and stops it: `ask("contrib", "own", {"INFERTAP_CONTENT": "full"})`."""

    def run(instrumentation: str, provider: str, env: dict[str, str]) -> Any:
        model = start("uvicorn", "openai_server:app")
        server = start(
            "uvicorn",
            "clients:app",
            env={
                "INSTRUMENTATION": instrumentation,
                "PROVIDER": provider,
                "MODEL_URL": f"{model.url}/v1",
                # How the instrumentation of OpenTelemetry is told to put the messages on its spans.
                "OTEL_SEMCONV_STABILITY_OPT_IN": "gen_ai_latest_experimental",
                "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT": "span_only",
                **env,
            },
        )
        statuses = {path: httpx.post(f"{server.url}/{path}").status_code for path in PATHS}
        assert statuses == {**dict.fromkeys(PATHS, 200), "refused": 502}
        server.stop()
        return server

    return run


def check_chains(spans: list[Seen]) -> list[Seen]:
    """Request, the app's span, the client's call: one of each a trace, each the parent of the next; gives the calls."""
    assert len({(span.trace_id, span.span_id) for span in spans}) == len(spans)
    assert Counter(span.trace_id for span in spans) == dict.fromkeys({span.trace_id for span in spans}, 3)
    chains: dict[str, list[Seen]] = {"infertap": [], "app": [], "client": []}
    for span in sorted(spans, key=lambda span: span.trace_id):
        chains[span.scope if span.scope in chains else "client"].append(span)
    for request, answer, call in zip(*chains.values(), strict=True):
        assert request.kind == "SERVER"
        assert (answer.parent_span_id, call.parent_span_id) == (request.span_id, answer.span_id)
    assert len(chains["client"]) == len(PATHS)
    return chains["client"]


@pytest.mark.parametrize("instrumentation", INSTRUMENTATIONS)
def test_calls_land_in_the_table_of_an_app_without_a_provider(ask: Any, rows: Rows, instrumentation: str) -> None:
    """With the provider that infertap installs; the question is on the spans, and no secret is anywhere."""
    server = ask(instrumentation, "installed", {"INFERTAP_INSTALL_TRACER_PROVIDER": "true"})
    requests = {row["trace_id"]: row for row in rows("inference", len(PATHS))}
    found = rows("spans", 3 * len(PATHS))
    spans = [of_table(row) for row in found]
    calls = check_chains(spans)
    assert {span.trace_id: span.request_id for span in calls} == {
        trace_id: row["request_id"] for trace_id, row in requests.items()
    }
    assert sum(QUESTION in json.dumps(span.attributes) for span in calls) == 4
    written = json.dumps([found, list(requests.values())], default=str) + server.output
    assert [secret for secret in SECRETS if secret in written] == []


@pytest.mark.parametrize("provider", ["own", "exporting"])
@pytest.mark.parametrize("instrumentation", INSTRUMENTATIONS)
def test_calls_go_over_otlp_once(ask: Any, otlp_receiver: Any, rows: Rows, instrumentation: str, provider: str) -> None:
    """Through infertap, redacted, or by the app's own exporter where it has one, and never both ways."""
    endpoint = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{otlp_receiver.http_port}",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
    }
    server = ask(instrumentation, provider, endpoint)
    calls = check_chains(collected(otlp_receiver, 3 * len(PATHS)))
    assert sum(QUESTION in json.dumps(span.attributes) for span in calls) == 4
    assert rows("inference") == []
    sent = server.output + (json.dumps(otlp_receiver.requests) if provider == "own" else "")
    assert [secret for secret in SECRETS if secret in sent] == []


@pytest.mark.parametrize("instrumentation", INSTRUMENTATIONS)
def test_metadata_alone_holds_nothing_of_what_was_said(ask: Any, rows: Rows, instrumentation: str) -> None:
    """`content = "metadata"`: the calls are in the trace, with model and tokens, without a word of content."""
    ask(instrumentation, "own", {"INFERTAP_CONTENT": "metadata"})
    found = rows("spans", 3 * len(PATHS))
    calls = check_chains([of_table(row) for row in found])
    # OpenInference names the model of a call that failed in its parameters only, which are content.
    assert sum("small-1" in json.dumps(span.attributes) for span in calls) >= 4
    written = json.dumps([found, rows("inference", len(PATHS))], default=str)
    assert [text for text in (*SECRETS, *CONTENT) if text in written] == []
