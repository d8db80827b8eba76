"""The standard `OTEL_*` variables: what they mean here, what is a mistake, and that no secret is ever repeated."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infertap.otel_env import OtelEnvironment
from infertap.targets import OtlpTarget

_SECRET = "hunter2-is-no-good"
_HTTP = {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}


def _target(**variables: str) -> OtlpTarget:
    environment = OtelEnvironment.read(variables)
    assert environment.problems == ()
    assert environment.otlp is not None
    return environment.otlp


def _problem(**variables: str) -> str:
    environment = OtelEnvironment.read(variables)
    assert environment.otlp is None
    (problem,) = environment.problems
    return problem


def test_nothing_set_gives_the_standards_defaults() -> None:
    """gRPC to localhost, ten seconds, no endpoint variable."""
    environment = OtelEnvironment.read({})
    assert environment == OtelEnvironment(otlp=OtlpTarget("http://localhost:4317", "grpc"))


@pytest.mark.parametrize(
    ("suffix", "value", "field", "expected"),
    [
        ("PROTOCOL", "http/protobuf", "protocol", "http/protobuf"),
        ("HEADERS", "a=b", "headers", {"a": "b"}),
        ("TIMEOUT", "3", "timeout_s", 3.0),
        ("COMPRESSION", "gzip", "compression", "gzip"),
        ("CERTIFICATE", "/ca.pem", "certificate", "/ca.pem"),
        ("CLIENT_KEY", "/key.pem", "client_key", "/key.pem"),
        ("CLIENT_CERTIFICATE", "/crt.pem", "client_certificate", "/crt.pem"),
        ("INSECURE", "true", "insecure", True),
        ("INSECURE", "false", "insecure", False),
    ],
)
def test_the_traces_form_wins_over_the_generic_one(suffix: str, value: str, field: str, expected: object) -> None:
    """Either form counts alone; of two the traces form, unless it is empty; nothing is merged."""
    generic, traces = f"OTEL_EXPORTER_OTLP_{suffix}", f"OTEL_EXPORTER_OTLP_TRACES_{suffix}"
    assert getattr(_target(**{generic: value}), field) == expected
    assert getattr(_target(**{traces: f" {value} "}), field) == expected
    assert getattr(_target(**{generic: "broken value", traces: value}), field) == expected
    assert getattr(_target(**{generic: value, traces: " "}), field) == expected


@pytest.mark.parametrize(
    ("value", "endpoint"),
    [
        ("http://collector:4317", "http://collector:4317"),
        ("https://collector", "https://collector"),
        ("HTTPS://Collector:443/some/path", "https://Collector:443"),
        ("collector:4317", "collector:4317"),
        ("127.0.0.1:4317", "127.0.0.1:4317"),
        ("[::1]:4317", "[::1]:4317"),
        ("http://[::1]:4317/", "http://[::1]:4317"),
        ("unix:/run/otlp.sock", "unix:/run/otlp.sock"),
        ("unix:///run/otlp.sock", "unix:/run/otlp.sock"),
        ("unix:otlp.sock", f"unix:{Path.cwd()}/otlp.sock"),
    ],
)
def test_grpc_endpoints(value: str, endpoint: str) -> None:
    """Scheme and authority; the path is dropped, as the stock exporter drops it. Without a scheme it stays bare."""
    assert _target(OTEL_EXPORTER_OTLP_ENDPOINT=value).endpoint == endpoint
    assert _target(OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=value).endpoint == endpoint


@pytest.mark.parametrize(
    ("value", "generic"),
    [
        ("http://collector:4318", "http://collector:4318/v1/traces"),
        ("http://collector:4318/", "http://collector:4318/v1/traces"),
        ("https://collector/otlp//", "https://collector/otlp//v1/traces"),
        ("http://[::1]:4318/x", "http://[::1]:4318/x/v1/traces"),
    ],
)
def test_http_endpoints(value: str, generic: str) -> None:
    """The generic form gets the standard path after one slash is stripped; the traces form is taken word by word."""
    assert _target(OTEL_EXPORTER_OTLP_ENDPOINT=value, **_HTTP).endpoint == generic
    assert _target(OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=value, **_HTTP).endpoint == value


@pytest.mark.parametrize("traces", [True, False])
@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
@pytest.mark.parametrize(
    "value",
    [
        "http://",
        "http://:4317",
        "http://host:port",
        "http://host:99999",
        "http://host:0",
        "http://[::1",
        "/v1/traces",
        "ftp://host:21",
        "::1:4317",
        "unix:",
        "unix://",
    ],
)
def test_what_is_no_endpoint_is_a_problem(protocol: str, value: str, traces: bool) -> None:
    """And still says that an endpoint was meant, so that records never go elsewhere instead."""
    variable = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT" if traces else "OTEL_EXPORTER_OTLP_ENDPOINT"
    environment = OtelEnvironment.read({variable: value, "OTEL_EXPORTER_OTLP_PROTOCOL": protocol})
    assert environment.endpoint_variable == variable
    assert [problem.startswith(f"{variable}: ") for problem in environment.problems] == [True]


@pytest.mark.parametrize("value", ["collector:4318", "127.0.0.1:4318", "[::1]:4318"])
def test_http_needs_a_scheme(value: str) -> None:
    """The stock exporter would fail at the first export."""
    assert "http://" in _problem(OTEL_EXPORTER_OTLP_ENDPOINT=value, **_HTTP)


@pytest.mark.parametrize("value", ["http/json", "http", "GRPC", "grpc/protobuf"])
def test_an_unknown_protocol_is_a_problem(value: str) -> None:
    """With the two that there are."""
    problem = _problem(OTEL_EXPORTER_OTLP_TRACES_PROTOCOL=value)
    assert problem.startswith("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL: ")
    assert "grpc or http/protobuf" in problem


@pytest.mark.parametrize(
    ("text", "headers"),
    [
        ("api-key=abc", {"api-key": "abc"}),
        ("API-Key=abc,X-Two = 2 ,", {"api-key": "abc", "x-two": "2"}),
        ("authorization=Bearer a.b-c==", {"authorization": "Bearer a.b-c=="}),
        ("authorization=Basic%20dTpw%3D", {"authorization": "Basic dTpw="}),
        ("x=%7B%22a%22%3A1%2C%22b%22%3A2%7D", {"x": '{"a":1,"b":2}'}),
        ("url=https://x:1/y", {"url": "https://x:1/y"}),
        ("a=", {"a": ""}),
        ("a=1,a=2", {"a": "2"}),
        (",,", {}),
    ],
)
def test_headers(text: str, headers: dict[str, str]) -> None:
    """Comma-separated, percent-decoded, names in lower case; a colon or `=` in a value is no mistake."""
    assert _target(OTEL_EXPORTER_OTLP_HEADERS=text).headers == headers


@pytest.mark.parametrize(
    "text",
    [
        f"Authorization: Basic {_SECRET}",
        f"Authorization: Basic {_SECRET}==",
        f'x={{"a":1,"b":"{_SECRET}"}}',
        _SECRET,
        f"={_SECRET}",
        f"my key={_SECRET}",
        f'"api-key"={_SECRET}',
        f"a%0d%0ab={_SECRET}",
        f"a={_SECRET}%0d%0ainjected: 1",
        f"ké={_SECRET}",
    ],
)
def test_what_is_no_header_is_a_problem_that_does_not_show_it(text: str) -> None:
    """The stock parser throws such a pair away and writes the secret into the log."""
    problem = _problem(OTEL_EXPORTER_OTLP_HEADERS=f"ok=1,{text}")
    assert problem.startswith("OTEL_EXPORTER_OTLP_HEADERS: entry ")
    assert _SECRET not in problem
    assert "Basic" not in problem


@pytest.mark.parametrize(
    ("text", "timeout_s", "warned"),
    [("10", 10, False), ("0.5", 0.5, False), ("600", 600, False), ("601", 0.601, True), ("10000", 10, True)],
)
def test_timeouts(text: str, timeout_s: float, warned: bool) -> None:
    """Seconds, as Python reads them; over ten minutes they are the specification's milliseconds, with a warning."""
    environment = OtelEnvironment.read({"OTEL_EXPORTER_OTLP_TIMEOUT": text})
    assert environment.otlp is not None
    assert environment.otlp.timeout_s == timeout_s
    assert ["OTEL_EXPORTER_OTLP_TIMEOUT" in warning for warning in environment.warnings] == [True] * warned


@pytest.mark.parametrize("text", ["0", "-1", "ten", "nan", "inf", "10s"])
def test_what_is_no_timeout_is_a_problem(text: str) -> None:
    """Zero, negative, endless, or with a unit."""
    assert _problem(OTEL_EXPORTER_OTLP_TRACES_TIMEOUT=text).startswith("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT: ")


@pytest.mark.parametrize(
    ("protocol", "text", "expected"),
    [
        ("grpc", "none", "none"),
        ("grpc", "GZip", "gzip"),
        ("grpc", "deflate", None),
        ("grpc", "zstd", None),
        ("http/protobuf", "none", "none"),
        ("http/protobuf", "gzip", "gzip"),
        ("http/protobuf", "deflate", "deflate"),
        ("http/protobuf", "br", None),
    ],
)
def test_compression_depends_on_the_protocol(protocol: str, text: str, expected: str | None) -> None:
    """The stock gRPC exporter raises on `none` and on `deflate`; here the first works and the second is a problem."""
    variables = {"OTEL_EXPORTER_OTLP_PROTOCOL": protocol, "OTEL_EXPORTER_OTLP_COMPRESSION": text}
    if expected is None:
        assert _problem(**variables).startswith("OTEL_EXPORTER_OTLP_COMPRESSION: ")
    else:
        assert _target(**variables).compression == expected


@pytest.mark.parametrize("text", ["-0.1", "1.1", "half", "nan", "0,5"])
@pytest.mark.parametrize("sampler", ["traceidratio", "parentbased_traceidratio"])
def test_what_is_no_ratio_is_a_problem(sampler: str, text: str) -> None:
    """Between 0 and 1, where the sampler reads it at all."""
    problem = _problem(OTEL_TRACES_SAMPLER=sampler, OTEL_TRACES_SAMPLER_ARG=text)
    assert problem.startswith("OTEL_TRACES_SAMPLER_ARG: ")
    assert OtelEnvironment.read({"OTEL_TRACES_SAMPLER": "always_on", "OTEL_TRACES_SAMPLER_ARG": text}).problems == ()


@pytest.mark.parametrize("text", ["0", "1", "0.25", "1e-3", ""])
def test_ratios(text: str) -> None:
    """Both ends count."""
    assert _target(OTEL_TRACES_SAMPLER="traceidratio", OTEL_TRACES_SAMPLER_ARG=text).protocol == "grpc"


def test_a_propagator_that_is_not_installed_is_a_problem() -> None:
    """OpenTelemetry itself would refuse to be imported."""
    assert "'b4'" in _problem(OTEL_PROPAGATORS="tracecontext, b4")
    assert OtelEnvironment.read({"OTEL_PROPAGATORS": "tracecontext,baggage"}).problems == ()
    assert OtelEnvironment.read({"OTEL_PROPAGATORS": "none"}).problems == ()


def test_the_longest_attribute_value() -> None:
    """The span's own limit wins over the general one; anything but a number is a problem."""
    general, own = "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT"
    assert _target(**{general: "100"}).value_length_max == 100
    assert _target(**{general: "100", own: "5"}).value_length_max == 5
    assert _target(**{general: "5", own: ""}).value_length_max == 5
    for text in ("-1", "many", "1.5"):
        assert _problem(**{own: text}).startswith(own)


@pytest.mark.parametrize(
    ("variables", "off", "disabled"),
    [
        ({"OTEL_SDK_DISABLED": "true"}, "OTEL_SDK_DISABLED", True),
        ({"OTEL_SDK_DISABLED": " TRUE "}, "OTEL_SDK_DISABLED", True),
        ({"OTEL_SDK_DISABLED": "no"}, None, False),
        ({"OTEL_TRACES_EXPORTER": "none"}, "OTEL_TRACES_EXPORTER", False),
        ({"OTEL_TRACES_EXPORTER": " none ,"}, "OTEL_TRACES_EXPORTER", False),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, None, False),
        ({"OTEL_TRACES_EXPORTER": "otlp,console"}, None, False),
    ],
)
def test_what_switches_the_export_off(variables: dict[str, str], off: str | None, disabled: bool) -> None:
    """The variable's name is kept, to be said."""
    environment = OtelEnvironment.read(variables)
    assert (environment.exporter_off_variable, environment.sdk_disabled) == (off, disabled)


def test_mlflows_flags() -> None:
    """Both are off unless they are said."""
    environment = OtelEnvironment.read(
        {"MLFLOW_TRACE_ENABLE_OTLP_DUAL_EXPORT": "True", "MLFLOW_ENABLE_OTLP_EXPORTER": "False"}
    )
    assert (environment.mlflow_dual_export, environment.mlflow_exporter_off) == (True, True)
    environment = OtelEnvironment.read({"MLFLOW_ENABLE_OTLP_EXPORTER": "true"})
    assert (environment.mlflow_dual_export, environment.mlflow_exporter_off) == (False, False)


def test_what_has_no_meaning_here_is_known() -> None:
    """The batch processor is not ours, and neither is the configuration file; what is empty is not set."""
    variables = {"OTEL_BSP_MAX_QUEUE_SIZE": "1", "OTEL_CONFIG_FILE": "/x", "OTEL_BSP_SCHEDULE_DELAY": ""}
    environment = OtelEnvironment.read(variables)
    assert environment.without_effect == ("OTEL_CONFIG_FILE", "OTEL_BSP_MAX_QUEUE_SIZE")
    assert environment.warnings == ()


@pytest.mark.parametrize("variable", ["OTEL_EXPORTER_OTLP_INSECURE", "OTEL_SDK_DISABLED"])
def test_what_is_neither_on_nor_off_is_a_problem(variable: str) -> None:
    """The SDK would read `yes` as no, and export what was to stay here."""
    for text in ("maybe", "yes", "on", "0.0"):
        assert _problem(**{variable: text}).startswith(f"{variable}: ")
    for text in ("true", "FALSE", "1", "0", " "):
        assert OtelEnvironment.read({variable: text}).problems == ()


@pytest.mark.parametrize("name", ["sometimes", "always", "parentbased_jaeger_remote"])
def test_a_sampler_that_does_not_exist_is_a_problem(name: str) -> None:
    """The SDK would take its default instead and say so in a log that nobody reads."""
    assert _problem(OTEL_TRACES_SAMPLER=name).startswith("OTEL_TRACES_SAMPLER: ")
    assert OtelEnvironment.read({"OTEL_TRACES_SAMPLER": "ParentBased_Always_Off"}).problems == ()


@pytest.mark.parametrize(
    "variable",
    [
        "OTEL_ATTRIBUTE_COUNT_LIMIT",
        "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT",
        "OTEL_SPAN_EVENT_COUNT_LIMIT",
        "OTEL_SPAN_LINK_COUNT_LIMIT",
        "OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT",
        "OTEL_LINK_ATTRIBUTE_COUNT_LIMIT",
    ],
)
def test_what_is_no_count_is_a_problem(variable: str) -> None:
    """The SDK raises for it when it is imported."""
    for text in ("abc", "-1", "1.5"):
        assert _problem(**{variable: text}).startswith(f"{variable}: ")
    assert OtelEnvironment.read({variable: "64"}).problems == ()


def test_what_is_no_grpc_status_is_a_problem() -> None:
    """The exporter looks the names up when it is made, and raises."""
    variable = "OTEL_PYTHON_EXPORTER_OTLP_GRPC_RETRYABLE_ERROR_CODES"
    assert "SOMETIMES is no status" in _problem(**{variable: "UNAVAILABLE,sometimes"})
    assert OtelEnvironment.read({variable: "unavailable, DATA_LOSS,"}).problems == ()


def test_an_exporter_that_is_off_has_no_mistakes() -> None:
    """Nobody reads its variables then; those of sampling count unless the whole SDK is off."""
    variables = {"OTEL_EXPORTER_OTLP_TIMEOUT": "x", "OTEL_TRACES_SAMPLER": "x"}
    assert len(OtelEnvironment.read(variables).problems) == 2
    assert len(OtelEnvironment.read({**variables, "OTEL_TRACES_EXPORTER": "none"}).problems) == 1
    assert OtelEnvironment.read({**variables, "OTEL_SDK_DISABLED": "true"}).problems == ()


def test_all_problems_come_at_once() -> None:
    """One start shows the whole list."""
    problems = OtelEnvironment.read(
        {
            "OTEL_EXPORTER_OTLP_ENDPOINT": "http://",
            "OTEL_EXPORTER_OTLP_PROTOCOL": "soap",
            "OTEL_EXPORTER_OTLP_HEADERS": "x",
            "OTEL_EXPORTER_OTLP_TIMEOUT": "x",
            "OTEL_EXPORTER_OTLP_COMPRESSION": "x",
            "OTEL_TRACES_SAMPLER": "traceidratio",
            "OTEL_TRACES_SAMPLER_ARG": "x",
            "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT": "x",
        }
    ).problems
    assert len(problems) == 7


_VARIABLES = st.sampled_from(
    [
        f"OTEL_EXPORTER_OTLP_{form}{suffix}"
        for form in ("", "TRACES_")
        for suffix in ("ENDPOINT", "PROTOCOL", "HEADERS", "TIMEOUT", "COMPRESSION", "INSECURE", "CERTIFICATE")
    ]
    + ["OTEL_TRACES_SAMPLER", "OTEL_TRACES_SAMPLER_ARG", "OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT"]
)


@given(variables=st.dictionaries(_VARIABLES, st.text(max_size=30)))
def test_reading_never_raises(variables: dict[str, str]) -> None:
    """Either there are problems, or there is a target; whatever the values are."""
    environment = OtelEnvironment.read(variables)
    assert (environment.otlp is None) is bool(environment.problems)


@given(around=st.tuples(st.text(max_size=8), st.text(max_size=8)))
def test_no_word_repeats_a_header_or_an_endpoint(around: tuple[str, str]) -> None:
    """Wherever in the value the secret stands."""
    value = f"{around[0]}{_SECRET}{around[1]}"
    environment = OtelEnvironment.read(
        {
            "OTEL_EXPORTER_OTLP_HEADERS": value,
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"http://user:{value}@host:x/{value}",
        }
    )
    assert _SECRET not in "".join((*environment.problems, *environment.warnings))
    assert _SECRET not in repr(environment)
