"""Imports OpenTelemetry's SDK whatever the environment says: it reads its limits as it is imported, and raises.

An app must start with a mistake in `OTEL_*`; who makes a provider hears of it then.
"""

import os


def import_sdk() -> None:
    """After this, `opentelemetry.sdk.trace` is imported."""
    try:
        import opentelemetry.sdk.trace
    except ValueError:
        hidden = {name: os.environ.pop(name) for name in list(os.environ) if _is_limit(name)}
        try:
            import opentelemetry.sdk.trace  # noqa: F401
        finally:
            os.environ.update(hidden)


def _is_limit(name: str) -> bool:
    return name.startswith("OTEL_") and name.endswith("_LIMIT")
