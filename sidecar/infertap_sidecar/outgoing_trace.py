"""The trace headers that go to the model server: what the configured propagators write into a request.

Where they are the standard ones and nothing but our own span is in the context, they would write two headers that are
known; to ask them costs the event loop as much as a third of recording the request.
"""

from collections.abc import Collection, Mapping

from opentelemetry import propagate

from infertap.otel_current import current_context
from infertap.trace import CURRENT_SPAN_KEY, SERVER_SPAN_KEY, ServerSpan
from infertap.trace_context import is_standard, trace_headers


class OutgoingTrace:
    """Writes the current context for one proxy; the propagators are those that are configured when it is made."""

    __slots__ = ("_fields", "_standard")

    def __init__(self) -> None:
        propagator = propagate.get_global_textmap()
        self._standard = is_standard(propagator)
        self._fields = frozenset(propagator.fields)

    def headers(self) -> tuple[Mapping[str, str], Collection[str]]:
        """The headers, and the names of all that they replace; nothing where there is no trace to go on with."""
        context = current_context()
        span = context.get(SERVER_SPAN_KEY)
        if self._standard and len(context) == 2 and type(span) is ServerSpan and context.get(CURRENT_SPAN_KEY) is span:
            ids = span.resolve()
            if not ids.trace_state:
                return trace_headers(ids), self._fields
        carrier: dict[str, str] = {}
        propagate.inject(carrier)
        return carrier, self._fields if carrier else ()
