"""The six platforms' strict intakes get hostile traffic: everything arrives, nothing is refused, nothing is lost."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

Rows = Callable[..., list[dict[str, Any]]]
Start = Callable[..., Any]

KEY = "k3y-of-the-vendor"
VARIABLES = {
    "datadog": {"DD_SITE": "datadoghq.eu", "DD_API_KEY": KEY, "DD_ENV": "prod", "DD_VERSION": "1.2"},
    "newrelic": {"NEW_RELIC_LICENSE_KEY": f"eu01xx{KEY}", "NEW_RELIC_APP_NAME": "ranker"},
    "signoz": {"SIGNOZ_REGION": "eu2", "SIGNOZ_INGESTION_KEY": KEY},
    "splunk": {"SPLUNK_REALM": "us1", "SPLUNK_ACCESS_TOKEN": KEY},
    "grafana": {
        "GRAFANA_CLOUD_ZONE": "prod-eu-west-2", "GRAFANA_CLOUD_INSTANCE_ID": "123456", "GRAFANA_CLOUD_API_KEY": KEY,
    },
    "servicenow": {"LS_ACCESS_TOKEN": KEY},
}  # fmt: skip
HOLDS_2_MB = {"datadog", "signoz", "servicenow"}
"""Their intakes take a span of 2 MB; on the others' the prompt is withheld."""
PROMPT = '{"api_key": "hunter2-is-no-good", "prompt": "' + "q" * 2_000_000 + '"}'
BEGINNING = '{"api_key":"[REDACTED]","prompt":"qqq'


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 90
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.fixture
def send(start: Start, vendor_intake: Any, certificates: Path) -> Callable[..., Any]:
    """Records one small request and one with a 2 MB prompt, and stops: `send("splunk", destination="both")`."""

    def run(platform: str, **settings: str) -> Any:
        env = {
            **VARIABLES[platform],
            "INFERTAP_PLATFORM": platform,
            "OTEL_EXPORTER_OTLP_CERTIFICATE": str(certificates / "ca.pem"),
            "HTTPS_PROXY": vendor_intake.proxy,
            "https_proxy": vendor_intake.proxy,
            **{f"INFERTAP_{name.upper()}": value for name, value in settings.items()},
        }
        server = start("uvicorn", "hostile:recorded", env=env)
        for body in ('{"prompt": "short"}', PROMPT):
            httpx.post(f"{server.url}/ask", content=body, headers={"content-type": "application/json"}, timeout=60)
        server.stop()
        return server

    return run


def accepted(intake: Any) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """Server spans and others; no request was refused."""
    assert {request["reason"] for request in intake.requests} == {None}
    spans = [span for request in intake.requests for span in request["spans"]]
    return [span for span in spans if span["span"] == "POST /ask"], [s for s in spans if s["span"] == "retrieve"]


def larger(spans: list[dict[str, str]]) -> dict[str, str]:
    return max(spans, key=lambda span: int(span["http.request.body.size"].partition("int_value:")[2]))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("platform", "settings"), [*((name, {}) for name in VARIABLES), ("splunk", {"destination": "both"})]
)
def test_by_default_a_large_prompt_shows_its_redacted_beginning(
    send: Any, vendor_intake: Any, platform: str, settings: dict[str, str]
) -> None:
    """2 MB are over `inline_bytes_max`: neither row nor span holds them, with a table or without; the span says so and
    shows what the prompt was about."""
    send(platform, **settings)
    servers, children = accepted(vendor_intake)
    assert (len(servers), len(children)) == (2, 2)
    large = larger(servers)
    assert large["infertap.request.withheld"] == "over_inline_limit"
    # Grafana's limit withholds the answer of 3,000 characters, too.
    assert large["infertap.withheld"].split(",")[0] == "over_inline_limit"
    assert large["infertap.request.preview"].startswith(BEGINNING)
    assert len(large["infertap.request.preview"]) == 1000
    assert not {"input.value", "gen_ai.input.messages_ref"} & set(large)
    assert "hunter2" not in str(vendor_intake.requests)


@pytest.mark.slow
@pytest.mark.parametrize("platform", VARIABLES)
def test_without_a_table_what_does_not_fit_is_withheld_and_marked(send: Any, vendor_intake: Any, platform: str) -> None:
    """All spans arrive; a prompt over the limit has a mark and a preview, and no key stands in a log."""
    server = send(platform, inline_bytes_max="4MiB")
    assert f"platform = '{platform}'" in server.output
    assert KEY not in server.output
    servers, children = accepted(vendor_intake)
    assert {request["vendor"] for request in vendor_intake.requests} == {platform}
    assert (len(servers), len(children)) == (2, 2)
    large = larger(servers)
    if platform in HOLDS_2_MB:
        assert len(large["input.value"]) > 2_000_000
        assert "infertap.withheld" not in large
    else:
        assert "input.value" not in large
        assert large["infertap.request.withheld"] == large["infertap.withheld"] == "platform_limit"
        assert large["infertap.request.preview"].startswith(BEGINNING)
        assert len(large["infertap.request.preview"]) == 1000
    assert all("infertap.request_id" in span and "infertap.tag.user" in span for span in servers)


@pytest.mark.slow
@pytest.mark.parametrize("platform", VARIABLES)
def test_with_a_table_the_prompt_goes_by_reference(
    send: Any, vendor_intake: Any, rows: Rows, tmp_path: Path, platform: str
) -> None:
    """`both`: the table holds the bodies whole, and the span says in which row."""
    send(platform, destination="both", inline_bytes_max="4MiB")
    servers, children = accepted(vendor_intake)
    assert (len(servers), len(children)) == (2, 2)
    found = {row["request_id"]: row for row in rows("inference", 2)}
    assert max(len(row["request"]) for row in found.values()) > 2_000_000
    for span in servers:
        reference = f"{tmp_path}/inference_tables/inference?request_id={span['infertap.request_id']}"
        assert span["gen_ai.input.messages_ref"] == span["gen_ai.output.messages_ref"] == reference
        assert span["infertap.request_id"] in found
        assert not {"input.value", "output.value", "infertap.withheld"} & set(span)


def test_a_rotated_token_is_read_from_its_file(
    start: Start, vendor_intake: Any, certificates: Path, tmp_path: Path
) -> None:
    """With the wrong key everything waits; once the file is rewritten it arrives, without a restart."""
    token = tmp_path / "headers"
    token.write_text("x-sf-token=outdated\n")
    env = {
        "SPLUNK_REALM": "us1",
        "INFERTAP_PLATFORM": "splunk",
        "INFERTAP_OTLP_HEADERS_FILE": "headers",
        "OTEL_EXPORTER_OTLP_CERTIFICATE": str(certificates / "ca.pem"),
        "HTTPS_PROXY": vendor_intake.proxy,
    }
    server = start("uvicorn", "hostile:recorded", env=env)
    httpx.post(f"{server.url}/ask", json={})
    wait_until(lambda: "SPLUNK_ACCESS_TOKEN must be an ingest token" in server.output)
    assert {request["status"] for request in vendor_intake.requests} == {401}
    rotated = tmp_path / "headers.new"
    rotated.write_text(f"# written by the vault\nx-sf-token={KEY}\n")
    rotated.rename(token)
    wait_until(lambda: any(request["spans"] for request in vendor_intake.requests))
    server.stop()
    assert "outdated" not in server.output
    assert KEY not in server.output
