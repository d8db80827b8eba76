"""The trace context of a request: who its parent is, whether its span is sampled, which ids it gets.

1. Where the standard propagators and samplers are configured, ids are derived lazily from the raw `traceparent` and
   256 random bits, by one pure function (`derive_ids`) that the event loop and the worker both may call.
2. Anything else (a tracestate, baggage, another propagator, a custom sampler) is resolved eagerly, once, at arrival.
"""

import os
import random
import re
from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, cast

from opentelemetry import context as otel_context
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.propagators.composite import CompositePropagator
from opentelemetry.propagators.textmap import Getter, TextMapPropagator
from opentelemetry.trace import SpanKind, get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from infertap.record import Headers, TraceIds
from infertap.sdk_env import SAMPLER_GROUP, sampler_name, sdk_disabled

if TYPE_CHECKING:
    # Importing it reads span limits from the environment and raises for mistakes: never at an app's import.
    from opentelemetry.sdk.trace.sampling import Sampler

_TRACEPARENT = re.compile(rb"[ \t]*([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?[ \t]*")
_MASK_64 = (1 << 64) - 1

# Own generator: the global one repeats after an app's random.seed(42), and an unseeded child repeats its parent.
_random = random.Random()
os.register_at_fork(after_in_child=_random.seed)

random_bits: Callable[[int], int] = _random.getrandbits
"""`random_bits(256)`: the bits that a request's ids are cut from. Not secret."""


STATE_KEY = "infertap"
"""The member of a tracestate that marks what happens inside a recorded request; its value is the id of our span."""
_STATE_MEMBERS_MAX = 32


def marked_state(trace_state: str, span_id: int) -> str:
    """The tracestate that our span hands down: ours first, then the caller's members."""
    mark = f"{STATE_KEY}={span_id:016x}"
    if not trace_state:
        return mark
    members = (member.strip() for member in trace_state.split(","))
    others = [member for member in members if member and not member.startswith(f"{STATE_KEY}=")]
    return ",".join([mark, *others[: _STATE_MEMBERS_MAX - 1]])


def trace_headers(ids: TraceIds) -> dict[str, str]:
    """What the standard propagators write for our span: `traceparent` and `tracestate`."""
    return {
        "traceparent": f"00-{ids.trace_id:032x}-{ids.span_id:016x}-{ids.trace_flags:02x}",
        "tracestate": marked_state(ids.trace_state, ids.span_id),
    }


def parse_traceparent(raw: bytes) -> tuple[int, int, int] | None:
    """(trace_id, parent span_id, flags) by the rules of OpenTelemetry's own parser; None where it is invalid."""
    match = _TRACEPARENT.fullmatch(raw)
    if match is None:
        return None
    version, trace, span, flags, rest = match.groups()
    if version == b"ff" or (version == b"00" and rest):
        return None
    trace_id, span_id = int(trace, 16), int(span, 16)
    if trace_id == 0 or span_id == 0:
        return None
    return trace_id, span_id, int(flags, 16)


class PureSampler:
    """The standard samplers that decide from the trace id and the parent's flag alone."""

    __slots__ = ("_bound", "_parent_based")

    def __init__(self, *, ratio: float, parent_based: bool) -> None:
        # The SDK compares the low 64 bits of the trace id with this bound; the same id must get the same verdict.
        self._bound = round(ratio * (1 << 64))
        self._parent_based = parent_based

    def sampled(self, trace_id: int, parent_flags: int | None) -> bool:
        """Whether the server span is recorded and sampled; `parent_flags` is None for a root."""
        if self._parent_based and parent_flags is not None:
            return bool(parent_flags & 1)
        return (trace_id & _MASK_64) < self._bound

    @classmethod
    def from_name(cls, name: str, argument: str) -> "PureSampler | None":
        """The sampler of that `OTEL_TRACES_SAMPLER` value, None where it is not one of the pure ones."""
        base = name.removeprefix("parentbased_")
        if base not in ("always_on", "always_off", "traceidratio"):
            return None
        ratio = {"always_on": 1.0, "always_off": 0.0}.get(base)
        return cls(ratio=_ratio(argument) if ratio is None else ratio, parent_based=base != name)


def _ratio(argument: str) -> float:
    """As the SDK reads it: what is no ratio between 0 and 1 counts as 1."""
    try:
        ratio = float(argument)
    except ValueError:
        return 1.0
    return ratio if 0.0 <= ratio <= 1.0 else 1.0


def derive_ids(traceparent: bytes | None, bits: int, sampler: PureSampler | None) -> TraceIds:
    """The server span's ids. Pure: the same arguments give the same ids, on whichever thread.

    A root's trace id and the span id are cut from `bits`; a zero, which OpenTelemetry forbids, becomes 1. Without a
    sampler nothing is sampled.
    """
    span_id = (bits >> 64) & _MASK_64 or 1
    parent = parse_traceparent(traceparent) if traceparent else None
    trace_id, parent_id, flags = parent if parent is not None else (bits >> 128 or 1, 0, None)
    sampled = int(sampler is not None and sampler.sampled(trace_id, flags))
    return tuple.__new__(TraceIds, (trace_id, span_id, parent_id, sampled, "", False, 0))


Arrival = tuple[bytes | None, TraceIds | None, otel_context.Context | None, int]
"""What a request brings along: the raw `traceparent`, where the ids are still to be derived from it; the ids, where
they had to be resolved at once; then the OpenTelemetry context that the server span is put into; and the characters of
all headers, because one look at each header is all that a request can pay for."""

_TRACE_HEADERS = frozenset({b"traceparent", b"tracestate", b"baggage"})


class HeaderGetter(Getter[Headers]):
    """Reads ASGI headers for a propagator."""

    def get(self, carrier: Headers, key: str) -> list[str] | None:
        wanted = key.lower().encode("latin-1", "replace")
        return [value.decode("latin-1") for name, value in carrier if name.lower() == wanted] or None

    def keys(self, carrier: Headers) -> list[str]:
        return [name.decode("latin-1").lower() for name, _ in carrier]


class TraceSettings:
    """The configured propagators and sampler, as `OTEL_PROPAGATORS` and `OTEL_TRACES_SAMPLER` name them.

    Args:
        pure: The sampler, where it is a standard one.
        sampler: Any other sampler; it is asked once a request, at arrival.
        propagator: Reads what the caller sent, where the own parser does not.
    """

    __slots__ = ("_getter", "_propagator", "_standard_propagators", "pure", "sampler")

    def __init__(self, pure: PureSampler | None, sampler: "Sampler | None", propagator: TextMapPropagator) -> None:
        self.pure = pure
        self.sampler = sampler
        self._propagator = propagator
        self._standard_propagators = is_standard(propagator)
        self._getter = HeaderGetter()

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> "TraceSettings":
        """`OTEL_SDK_DISABLED` turns sampling off: the context is continued, no span is made."""
        if sdk_disabled(environ):
            return cls(PureSampler(ratio=0.0, parent_based=False), None, _configured_propagator())
        name, argument = sampler_name(environ), environ.get("OTEL_TRACES_SAMPLER_ARG")
        pure = PureSampler.from_name(name, (argument or "").strip())
        return cls(pure, _foreign_sampler(name, argument) if pure is None else None, _configured_propagator())

    def arrive(self, headers: Headers, bits: int) -> Arrival:
        """Read what the caller sent. Runs on the event loop: the common case is one scan of the headers."""
        traceparent: bytes | None = None
        eager = self.pure is None or not self._standard_propagators
        size = 0
        for name, value in headers:
            size += len(name) + len(value)
            if name in _TRACE_HEADERS:
                if name == b"traceparent":
                    traceparent = value if traceparent is None else traceparent
                else:
                    eager = True
        if not eager:
            return traceparent, None, None, size
        return None, *self._resolve(headers, bits), size

    def _resolve(self, headers: Headers, bits: int) -> tuple[TraceIds, otel_context.Context]:
        context = self._propagator.extract(headers, otel_context.get_current(), self._getter)
        parent = get_current_span(context).get_span_context()
        span_id = (bits >> 64) & _MASK_64 or 1
        trace_id = parent.trace_id if parent.is_valid else bits >> 128 or 1
        state = parent.trace_state.to_header() if parent.is_valid and parent.trace_state else ""
        flags = int(parent.trace_flags) if parent.is_valid else None
        if self.pure is not None:
            sampled = self.pure.sampled(trace_id, flags)
        else:
            assert self.sampler is not None, "one of the two samplers is always there"
            result = self.sampler.should_sample(context, trace_id, "", SpanKind.SERVER)
            sampled = result.decision.name == "RECORD_AND_SAMPLE"
            state = result.trace_state.to_header() if result.trace_state else state
        ids = TraceIds(trace_id, span_id, parent.span_id if parent.is_valid else 0, int(sampled), state)
        return ids, context


def _foreign_sampler(name: str, argument: str | None) -> "Sampler":
    """A sampler that another package brings, made as the SDK's own configurator makes it.

    Raises:
        ValueError: none of that name is installed, or what is installed is none. And whatever its factory raises.
    """
    found = next(iter(entry_points(group=SAMPLER_GROUP, name=name)), None)
    if found is None:
        raise ValueError(f"OTEL_TRACES_SAMPLER: {name!r} is not installed")
    sampler = found.load()(argument)
    if not callable(getattr(sampler, "should_sample", None)):
        raise ValueError(f"OTEL_TRACES_SAMPLER: what {name!r} makes is no sampler")
    return cast("Sampler", sampler)


def _configured_propagator() -> TextMapPropagator:
    """The global one. Where `OTEL_PROPAGATORS` names one that is not installed, OpenTelemetry's module cannot even be
    imported; an app must start all the same, so the standard pair stands in."""
    try:
        from opentelemetry import propagate
    except ValueError:
        return CompositePropagator([TraceContextTextMapPropagator(), W3CBaggagePropagator()])
    return propagate.get_global_textmap()


def is_standard(propagator: object) -> bool:
    """Whether these are OpenTelemetry's default propagators: W3C trace context and baggage."""
    parts = getattr(propagator, "_propagators", None) if isinstance(propagator, CompositePropagator) else None
    return {type(part) for part in parts or ()} == {TraceContextTextMapPropagator, W3CBaggagePropagator}
