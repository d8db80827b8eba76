"""What the model server is told of the trace: always what the configured propagators would say."""

from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry import baggage, propagate
from opentelemetry import context as otel_context
from opentelemetry.propagators.composite import CompositePropagator
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from infertap.record import TraceIds
from infertap.trace import OuterSpan, ServerSpan, context_with
from infertap.trace_context import PureSampler
from infertap_sidecar import outgoing_trace
from infertap_sidecar.outgoing_trace import OutgoingTrace

_PARENT = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0"


class _Sink:
    def submit_span(self, span: object) -> bool:
        raise AssertionError("no child span was made")


def _span(parent: bytes | None) -> ServerSpan:
    return ServerSpan(_Sink(), None, parent, 5 << 64 | 9 << 130, PureSampler(ratio=1, parent_based=True))


def _with_baggage() -> otel_context.Context:
    return baggage.set_baggage("user", "ada", context_with(_span(None), {}))


def _foreign() -> otel_context.Context:
    other = NonRecordingSpan(SpanContext(0xA, 0xB, False, TraceFlags(1)))
    return context_with(_span(None), set_span_in_context(other, otel_context.Context()), current=False)


CONTEXTS: dict[str, otel_context.Context] = {
    "none": otel_context.Context(),
    "root": context_with(_span(None), {}),
    "sampled": context_with(_span(_PARENT + b"1"), {}),
    "not-sampled": context_with(_span(_PARENT + b"0"), {}),
    "state": context_with(ServerSpan(_Sink(), TraceIds(1, 2, 3, 1, "a=1,b=2")), {}),
    "broken-state": context_with(ServerSpan(_Sink(), TraceIds(1, 2, 3, 1, "a=1,=,")), {}),
    "outer": context_with(OuterSpan(_Sink(), TraceIds(1, 2, 0, 1, "")), {}),
    "baggage": _with_baggage(),
    "foreign": _foreign(),
}


@pytest.fixture(params=list(CONTEXTS))
def context(request: pytest.FixtureRequest) -> Iterator[otel_context.Context]:
    """One of the contexts that a request may have, attached."""
    token = otel_context.attach(CONTEXTS[request.param])
    yield CONTEXTS[request.param]
    otel_context.detach(token)


@pytest.mark.parametrize("standard", [True, False])
def test_it_says_what_the_propagators_say(context: Any, monkeypatch: pytest.MonkeyPatch, standard: bool) -> None:
    """Whichever way the headers are written."""
    if not standard:
        propagator = CompositePropagator([TraceContextTextMapPropagator()])
        monkeypatch.setattr(propagate, "propagators", propagator)
    wanted: dict[str, str] = {}
    propagate.inject(wanted)
    headers, fields = OutgoingTrace().headers()
    assert headers == wanted
    assert set(fields) == (propagate.get_global_textmap().fields if wanted else set())


def test_the_standard_ones_are_not_asked_for_a_span_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """It costs as much as a third of recording the request."""
    monkeypatch.setattr(outgoing_trace.propagate, "inject", None)
    token = otel_context.attach(CONTEXTS["sampled"])
    headers, _ = OutgoingTrace().headers()
    otel_context.detach(token)
    assert headers["traceparent"] == "00-0af7651916cd43dd8448eb211c80319c-0000000000000005-01"
