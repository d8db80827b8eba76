"""The current context, without OpenTelemetry's functions around it."""

import contextvars
import logging
import os
import subprocess
import sys

import pytest
from opentelemetry import context as otel_context

from infertap.otel_current import attach, current_context, detach


def test_it_is_opentelemetrys_own_context() -> None:
    """What is attached here is current there, and the other way round."""
    mine = otel_context.Context({"a": 1})
    token = attach(mine)
    assert otel_context.get_current() is mine
    theirs = otel_context.attach(otel_context.Context({"b": 2}))
    assert current_context() == {"b": 2}
    otel_context.detach(theirs)
    assert current_context() is mine
    detach(token)
    assert current_context() == otel_context.get_current() == {}


def test_a_token_of_another_context_is_an_error_message(caplog: pytest.LogCaptureFixture) -> None:
    """As OpenTelemetry does it: an app that moves between contexts is not stopped for it."""
    token = contextvars.copy_context().run(attach, otel_context.Context({"a": 1}))
    with caplog.at_level(logging.ERROR):
        detach(token)
    assert [record.message for record in caplog.records] == ["Failed to detach context"]


def test_another_runtime_context_is_asked_by_opentelemetrys_functions() -> None:
    """Where the app brings its own, its variable is not looked for."""
    code = (
        "from opentelemetry import context\n"
        "from opentelemetry.context.contextvars_context import ContextVarsRuntimeContext\n"
        "class Own(ContextVarsRuntimeContext): pass\n"
        "context._RUNTIME_CONTEXT = Own()\n"
        "from infertap import otel_current\n"
        "assert otel_current.attach is context.attach and otel_current.detach is context.detach\n"
        "assert otel_current.current_context is context.get_current\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=dict(os.environ))
