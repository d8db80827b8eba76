"""OpenTelemetry's current context, read and set without the functions around the context variable that holds it.

Those are three calls where one does, five times a request. Where the variable is not where it has been since 2020, or
another runtime context is configured (`OTEL_PYTHON_CONTEXT`), OpenTelemetry's own functions are used.
"""

from collections.abc import Callable
from contextvars import ContextVar, Token
from typing import Any

from opentelemetry import context as otel_context
from opentelemetry.context.contextvars_context import ContextVarsRuntimeContext


def _variable() -> ContextVar[otel_context.Context] | None:
    runtime: Any = getattr(otel_context, "_RUNTIME_CONTEXT", None)
    variable = getattr(runtime, "_current_context", None)
    return variable if type(runtime) is ContextVarsRuntimeContext and isinstance(variable, ContextVar) else None


_found = _variable()

current_context: Callable[[], otel_context.Context]
"""The context that is current."""
attach: Callable[[otel_context.Context], Token[otel_context.Context]]
"""Make a context the current one; undone by `detach` with what it returns."""
detach: Callable[[Token[otel_context.Context]], None]
"""Undo `attach`. Never raises: in another context than that of `attach` it is OpenTelemetry's error message."""

if _found is None:
    current_context, attach, detach = otel_context.get_current, otel_context.attach, otel_context.detach
else:
    _reset = _found.reset
    current_context, attach = _found.get, _found.set

    def _detach(token: Token[otel_context.Context]) -> None:
        try:
            _reset(token)
        except (ValueError, RuntimeError):
            otel_context.detach(token)

    detach = _detach
