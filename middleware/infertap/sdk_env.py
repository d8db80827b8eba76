"""The `OTEL_*` variables that count whatever the destination is: of sampling, propagation, and the SDK's own import.

A value that the SDK would replace by a default in silence, or choke on at its import, is a mistake with a name here.
"""

from collections.abc import Iterator, Mapping
from importlib.metadata import entry_points

_TRUE, _FALSE = ("true", "1"), ("", "false", "0")
_PURE_SAMPLERS = ("always_on", "always_off", "traceidratio")
STANDARD_SAMPLERS = (*_PURE_SAMPLERS, *(f"parentbased_{name}" for name in _PURE_SAMPLERS))
SAMPLER_GROUP = "opentelemetry_traces_sampler"
"""Entry points of samplers that other packages bring."""

_COUNT_LIMITS = (
    "OTEL_ATTRIBUTE_COUNT_LIMIT",
    "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT",
    "OTEL_SPAN_EVENT_COUNT_LIMIT",
    "OTEL_SPAN_LINK_COUNT_LIMIT",
    "OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT",
    "OTEL_LINK_ATTRIBUTE_COUNT_LIMIT",
)
VALUE_LENGTH_LIMITS = ("OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT", "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT")
"""The first that is set counts."""

_RETRYABLE_CODES = "OTEL_PYTHON_EXPORTER_OTLP_GRPC_RETRYABLE_ERROR_CODES"
_GRPC_CODES = frozenset(
    {
        "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
        "PERMISSION_DENIED", "UNAUTHENTICATED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE",
        "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS",
    }
)  # fmt: skip

_WITHOUT_EFFECT = (
    "OTEL_CONFIG_FILE",
    "OTEL_BSP_SCHEDULE_DELAY",
    "OTEL_BSP_MAX_QUEUE_SIZE",
    "OTEL_BSP_MAX_EXPORT_BATCH_SIZE",
    "OTEL_BSP_EXPORT_TIMEOUT",
    *_COUNT_LIMITS,
    "OTEL_PYTHON_ID_GENERATOR",
    "OTEL_PYTHON_TRACER_CONFIGURATOR",
    "OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED",
    "OTEL_PYTHON_EXPORTER_OTLP_GRPC_CREDENTIAL_PROVIDER",
    "OTEL_PYTHON_EXPORTER_OTLP_GRPC_TRACES_CREDENTIAL_PROVIDER",
    "OTEL_PYTHON_EXPORTER_OTLP_HTTP_CREDENTIAL_PROVIDER",
    "OTEL_PYTHON_EXPORTER_OTLP_HTTP_TRACES_CREDENTIAL_PROVIDER",
    _RETRYABLE_CODES,
)
"""They steer parts of the SDK that are not used here: its batch processor, its limits, its retries, its sessions."""


def is_true(value: str | None) -> bool:
    """Whether a variable is switched on."""
    return (value or "").strip().lower() in _TRUE


def is_boolean(value: str) -> bool:
    """Whether a variable says plainly on or off; empty is off."""
    return value.strip().lower() in (*_TRUE, *_FALSE)


def sdk_disabled(environ: Mapping[str, str]) -> bool:
    """Whether no span is to be made."""
    return is_true(environ.get("OTEL_SDK_DISABLED"))


def sampler_name(environ: Mapping[str, str]) -> str:
    """The sampler that is asked for; the SDK's default where none is. Only the standard ones are known in any case."""
    name = environ.get("OTEL_TRACES_SAMPLER", "").strip() or "parentbased_always_on"
    return name.lower() if name.lower() in STANDARD_SAMPLERS else name


def mistakes(environ: Mapping[str, str]) -> Iterator[str]:
    """One line a mistake, each beginning with the variable's name."""
    if not is_boolean(environ.get("OTEL_SDK_DISABLED", "")):
        yield f"OTEL_SDK_DISABLED: {environ['OTEL_SDK_DISABLED']!r}; expected true or false"
    for name in map(str.strip, environ.get("OTEL_PROPAGATORS", "").split(",")):
        if name not in ("", "none") and not entry_points(group="opentelemetry_propagator", name=name):
            yield f"OTEL_PROPAGATORS: {name!r} is not installed"
    # The SDK reads its limits when it is imported, and raises.
    for variable, unit in (
        *((name, "number") for name in _COUNT_LIMITS),
        *((name, "number of characters") for name in VALUE_LENGTH_LIMITS),
    ):
        value = environ.get(variable, "").strip()
        if value and not value.isdecimal():
            yield f"{variable}: {value!r} is not a {unit}"
    # Without an effect here, but read by the exporter that is used, which raises for any other name.
    codes = {code.strip().upper() for code in environ.get(_RETRYABLE_CODES, "").split(",")} - {""}
    if not codes <= _GRPC_CODES:
        yield f"{_RETRYABLE_CODES}: {', '.join(sorted(codes - _GRPC_CODES))} is no status of gRPC"
    if not sdk_disabled(environ):
        yield from _sampler_mistakes(environ)


def without_effect(environ: Mapping[str, str]) -> list[str]:
    """The variables that are set and have no meaning for infertap."""
    return [variable for variable in _WITHOUT_EFFECT if environ.get(variable)]


def _sampler_mistakes(environ: Mapping[str, str]) -> Iterator[str]:
    sampler = sampler_name(environ)
    if sampler not in STANDARD_SAMPLERS and not entry_points(group=SAMPLER_GROUP, name=sampler):
        yield f"OTEL_TRACES_SAMPLER: {sampler!r} is neither installed nor one of {', '.join(STANDARD_SAMPLERS)}"
    argument = environ.get("OTEL_TRACES_SAMPLER_ARG", "").strip()
    if not sampler.endswith("traceidratio") or not argument:
        return
    try:
        valid = 0.0 <= float(argument) <= 1.0
    except ValueError:
        valid = False
    if not valid:
        yield f"OTEL_TRACES_SAMPLER_ARG: {argument!r} is not a ratio between 0 and 1"
