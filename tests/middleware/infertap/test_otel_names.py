"""Slips in the names of `OTEL_*` variables, and the many names that are none."""

from pathlib import Path

import pytest

from infertap.choice import choose
from infertap.config import Config
from infertap.otel_env import OtelEnvironment
from infertap.otel_names import misspelt


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("OTEL_EXPORTER_OTLP_ENDPONT", "OTEL_EXPORTER_OTLP_ENDPOINT"),
        ("OTEL_EXPORTER_OTLP_ENPDOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"),
        ("OTEL_EXPORTER_OTEL_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"),
        ("OTEL_EXPORTER_OTLP_TRACE_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"),
        ("OTEL_EXPORTER_OTLP_HEADER", "OTEL_EXPORTER_OTLP_HEADERS"),
        ("OTEL_TRACE_EXPORTER", "OTEL_TRACES_EXPORTER"),
        ("OTEL_SERVICENAME", "OTEL_SERVICE_NAME"),
        ("otel_exporter_otlp_endpoint", "OTEL_EXPORTER_OTLP_ENDPOINT"),
        ("OTEL_PYTHON_EXCLUDE_URLS", "OTEL_PYTHON_EXCLUDED_URLS"),
    ],
)
def test_a_slip_names_what_was_meant(name: str, meant: str) -> None:
    """A letter too few, two exchanged, a singular, small letters."""
    assert misspelt({name: "x"}) == {name: meant}


@pytest.mark.parametrize(
    "name",
    [
        "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
        "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT",
        "OTEL_EXPORTER_OTLP_PROFILES_ENDPOINT",
        "OTEL_METRICS_EXPORTER",
        "OTEL_LOGS_EXPORTER",
        "OTEL_LOG_LEVEL",
        "OTEL_PYTHON_WSGI_EXCLUDED_URLS",
        "OTEL_PYTHON_FASTAPI_EXCLUDED_URLS",
        "OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_CLIENT_REQUEST",
        "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT",
        "OTEL_BLRP_SCHEDULE_DELAY",
        "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT",
        "OTEL_EXPORTER_ZIPKIN_ENDPOINT",
        "OTEL_JAVAAGENT_ENABLED",
        "OTEL_NODE_RESOURCE_DETECTORS",
        "OTEL_GO_AUTO_TARGET_EXE",
        "OTEL_OPERATOR_SERVICE",
        "OTHER",
    ],
)
def test_other_names_are_no_slips(name: str) -> None:
    """Those of other signals, languages and libraries, and of nobody."""
    assert misspelt({name: "x"}) == {}


def test_an_empty_value_is_no_slip() -> None:
    """It counts as unset, as OpenTelemetry has it."""
    assert misspelt({"OTEL_EXPORTER_OTLP_ENDPONT": ""}) == {}


@pytest.mark.parametrize(("destination", "warned"), [("auto", True), ("table", True), ("none", False)])
def test_a_start_warns_of_it_and_goes_on(tmp_path: Path, destination: str, warned: bool) -> None:
    """Whatever the destination is, as long as something is recorded; the value is not shown."""
    otel = OtelEnvironment.read({"OTEL_EXPORTER_OTLP_HEADERZ": "authorization=hunter2"})
    choice = choose(Config(destination=destination), otel, cwd=tmp_path)
    line = (
        "OTEL_EXPORTER_OTLP_HEADERZ is no variable of OpenTelemetry and is ignored; "
        "did you mean OTEL_EXPORTER_OTLP_HEADERS?"
    )
    assert (line in choice.warnings) is warned
    assert not any("hunter2" in warning for warning in choice.warnings)
