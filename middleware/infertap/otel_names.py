"""Names of `OTEL_*` variables that are nearly those that infertap reads: slips, which nobody else would tell of.

A legitimate name that is merely not known here must never be one: only what differs by two characters at most counts,
and what the specification and the SDK call so by themselves does not.
"""

import re
from collections.abc import Iterator, Mapping

from opentelemetry import environment_variables as api_variables
from opentelemetry.sdk import environment_variables as sdk_variables

_OTLP_PARTS = (
    "ENDPOINT", "PROTOCOL", "HEADERS", "TIMEOUT", "COMPRESSION", "CERTIFICATE", "CLIENT_KEY", "CLIENT_CERTIFICATE",
    "INSECURE",
)  # fmt: skip
_READ = (
    *(f"OTEL_EXPORTER_OTLP_{part}" for part in _OTLP_PARTS),
    *(f"OTEL_EXPORTER_OTLP_TRACES_{part}" for part in _OTLP_PARTS),
    "OTEL_TRACES_EXPORTER",
    "OTEL_SDK_DISABLED",
    "OTEL_TRACES_SAMPLER",
    "OTEL_TRACES_SAMPLER_ARG",
    "OTEL_PROPAGATORS",
    "OTEL_SERVICE_NAME",
    "OTEL_RESOURCE_ATTRIBUTES",
    "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT",
    "OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT",
    "OTEL_SEMCONV_STABILITY_OPT_IN",
    "OTEL_PYTHON_EXCLUDED_URLS",
    "OTEL_PYTHON_ASGI_EXCLUDED_URLS",
    "OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SERVER_REQUEST",
    "OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SERVER_RESPONSE",
    "OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SANITIZE_FIELDS",
)
"""What infertap, or what it is made with, reads."""

_KNOWN = frozenset(
    {*_READ, *(name for module in (api_variables, sdk_variables) for name in dir(module) if name.startswith("OTEL_"))}
)
_ONE_PER_LIBRARY = re.compile(r"OTEL_PYTHON_[A-Z0-9_]+_EXCLUDED_URLS")
_EDITS_MAX = 2


def misspelt(environ: Mapping[str, str]) -> dict[str, str]:
    """Variable -> the one that was meant, for each that is set and nearly a name that infertap reads."""
    return {
        name: meant
        for name in sorted(environ)
        if name[:2].upper() == "OT" and environ[name] and (meant := _meant(name)) is not None
    }


def misspelt_lines(environ: Mapping[str, str]) -> Iterator[str]:
    """One line for each, without its value."""
    for name, meant in misspelt(environ).items():
        yield f"{name} is no variable of OpenTelemetry and is ignored; did you mean {meant}?"


def _meant(name: str) -> str | None:
    if name in _KNOWN or _ONE_PER_LIBRARY.fullmatch(name):
        return None
    edits, meant = min((_edits(name.upper(), known), known) for known in _READ)
    return meant if edits <= _EDITS_MAX else None


def _edits(one: str, other: str) -> int:
    """Characters to put in, take out or change (Levenshtein); any number above `_EDITS_MAX` for what is further off."""
    if abs(len(one) - len(other)) > _EDITS_MAX:
        return _EDITS_MAX + 1
    row = list(range(len(other) + 1))
    for place, character in enumerate(one, start=1):
        before, row = row, [place]
        for index, wanted in enumerate(other):
            row.append(min(before[index] + (character != wanted), before[index + 1] + 1, row[index] + 1))
    return row[-1]
