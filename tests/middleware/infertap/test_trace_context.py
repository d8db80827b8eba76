"""Trace context: the own parser and samplers give OpenTelemetry's verdicts, and the rest is left to OpenTelemetry."""

import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from opentelemetry import baggage
from opentelemetry import context as otel_context
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.context import Context
from opentelemetry.propagators.composite import CompositePropagator
from opentelemetry.propagators.textmap import (
    CarrierT,
    Getter,
    Setter,
    TextMapPropagator,
    default_getter,
    default_setter,
)
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_OFF,
    ALWAYS_ON,
    Decision,
    ParentBased,
    Sampler,
    SamplingResult,
    TraceIdRatioBased,
)
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    TraceFlags,
    TraceState,
    get_current_span,
    set_span_in_context,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import Attributes

from infertap.record import Headers
from infertap.trace_context import (
    HeaderGetter,
    PureSampler,
    TraceSettings,
    derive_ids,
    marked_state,
    parse_traceparent,
    random_bits,
)

_VALID = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
_TRACE_ID, _PARENT_ID = 0x0AF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331
_STANDARD = CompositePropagator([TraceContextTextMapPropagator(), W3CBaggagePropagator()])

_trace_ids = st.integers(1, (1 << 128) - 1)
_hex = "0123456789abcdef"
_nearly = st.builds(
    lambda lead, version, trace, span, flags, rest, trail: (
        f"{lead}{version}-{trace}-{span}-{flags}{rest}{trail}".encode("latin-1")
    ),
    st.sampled_from(["", " ", "\t", "\xa0", "\r"]),
    st.sampled_from(["00", "01", "ff", "FF", "cc", "0", "0g"]),
    st.sampled_from(["0" * 32, "A" * 32, "1" * 31, "1" * 33]) | st.text(_hex, min_size=32, max_size=32),
    st.sampled_from(["0" * 16, "1" * 15, "1" * 17]) | st.text(_hex, min_size=16, max_size=16),
    st.sampled_from(["00", "01", "02", "03", "ff", "1", "001", "0x", "\xb22"]),
    st.sampled_from(["", "-", "-extra", "-a-b", "extra", "-\xe9"]),
    st.sampled_from(["", " ", "\t ", "\x0b", "\x00"]),
)


def _by_opentelemetry(raw: bytes) -> tuple[int, int, int] | None:
    context = TraceContextTextMapPropagator().extract({"traceparent": raw.decode("latin-1")}, Context())
    span = get_current_span(context).get_span_context()
    return (span.trace_id, span.span_id, int(span.trace_flags)) if span.is_valid else None


@given(raw=_nearly | st.binary(max_size=80).filter(lambda raw: b"\n" not in raw))
@example(raw=_VALID)
@example(raw=b"00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01")
@example(raw=b"01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-what-comes-later")
@example(raw=_VALID + b", " + _VALID)
@example(raw=b"")
def test_the_own_parser_gives_opentelemetrys_verdict(raw: bytes) -> None:
    """On any header value (a newline, which HTTP cannot carry, aside)."""
    assert parse_traceparent(raw) == _by_opentelemetry(raw)


@given(
    name=st.sampled_from(["always_on", "always_off", "traceidratio"]),
    parent_based=st.booleans(),
    argument=st.sampled_from(["", "0", "1", "0.5", "0.000001", "1e-9", "0.9999999999"]),
    trace_id=_trace_ids,
    parent_flags=st.none() | st.integers(0, 255),
)
def test_the_own_samplers_give_the_sdks_verdict(
    name: str, parent_based: bool, argument: str, trace_id: int, parent_flags: int | None
) -> None:
    """For roots and for children of remote parents, whatever the other flag bits are."""
    ours = PureSampler.from_name(f"parentbased_{name}" if parent_based else name, argument)
    assert ours is not None
    theirs: Sampler = {"always_on": ALWAYS_ON, "always_off": ALWAYS_OFF}.get(name) or TraceIdRatioBased(
        float(argument or 1)
    )
    theirs = ParentBased(theirs) if parent_based else theirs
    context = Context()
    if parent_flags is not None:
        remote = SpanContext(trace_id, 7, is_remote=True, trace_flags=TraceFlags(parent_flags))
        context = set_span_in_context(NonRecordingSpan(remote), context)
    verdict = theirs.should_sample(context, trace_id, "x", SpanKind.SERVER).decision is Decision.RECORD_AND_SAMPLE
    assert ours.sampled(trace_id, parent_flags) is verdict


@given(ratio=st.floats(0, 1), offset=st.integers(-3, 3))
def test_the_bound_of_a_ratio_is_the_sdks_to_the_last_id(ratio: float, offset: int) -> None:
    """Ids right at the bound fall on the same side."""
    theirs = TraceIdRatioBased(ratio)
    low = min(max(theirs.bound + offset, 1), (1 << 64) - 1)
    verdict = theirs.should_sample(Context(), low, "x").decision is Decision.RECORD_AND_SAMPLE
    assert PureSampler(ratio=ratio, parent_based=False).sampled(low, None) is verdict


@pytest.mark.parametrize("argument", ["abc", "1.5", "-0.1", "nan", "inf", "0,5"])
def test_a_ratio_that_is_none_counts_as_one(argument: str) -> None:
    """As in the SDK; an app's start never fails on it (`otel_env` names the mistake)."""
    sampler = PureSampler.from_name("traceidratio", argument)
    assert sampler is not None
    assert sampler.sampled((1 << 64) - 1, None)


@pytest.mark.parametrize("name", ["", "jaeger_remote", "parentbased_jaeger_remote", "parentbased_", "ALWAYS_ON"])
def test_other_samplers_are_not_pure(name: str) -> None:
    """They are left to OpenTelemetry."""
    assert PureSampler.from_name(name, "0.5") is None


@given(traceparent=st.none() | _nearly, bits=st.integers(0, (1 << 256) - 1))
def test_derived_ids_are_valid_and_always_the_same(traceparent: bytes | None, bits: int) -> None:
    """No id is zero, a valid parent is continued, and twice the same input gives twice the same ids."""
    sampler = PureSampler(ratio=1, parent_based=True)
    ids = derive_ids(traceparent, bits, sampler)
    assert ids == derive_ids(traceparent, bits, sampler)
    assert 0 < ids.trace_id < 1 << 128
    assert 0 < ids.span_id < 1 << 64
    parent = _by_opentelemetry(traceparent) if traceparent else None
    if parent is None:
        assert (ids.parent_span_id, ids.trace_flags) == (0, 1)
    else:
        assert (ids.trace_id, ids.parent_span_id, ids.trace_flags) == (*parent[:2], parent[2] & 1)


def test_without_a_sampler_nothing_is_sampled() -> None:
    """The context is continued, no span is made."""
    assert derive_ids(_VALID, 1, None).trace_flags == 0
    assert derive_ids(_VALID, 1, None).trace_id == _TRACE_ID


def test_bits_are_random() -> None:
    """As many as asked for, and others each time."""
    drawn = {random_bits(64) for _ in range(1_000)}
    assert len(drawn) == 1_000
    assert all(bits < 1 << 64 for bits in drawn)
    assert random_bits(256).bit_length() > 128


def test_a_forked_child_draws_other_bits() -> None:
    """Neither the parent's next bits nor those of a global generator that the app has seeded."""
    program = (
        "import os, random\n"
        "from infertap.trace_context import random_bits\n"
        "random.seed(42)\n"
        "for _ in range(2):\n"
        "    if os.fork() == 0:\n"
        "        random.seed(42); print(random_bits(256), flush=True); os._exit(0)\n"
        "    os.wait()\n"
        "print(random_bits(256))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    assert len(set(done.stdout.split())) == 3


def test_the_standard_case_is_lazy() -> None:
    """With the standard propagators and a pure sampler only the raw header is kept."""
    settings = TraceSettings(PureSampler(ratio=1, parent_based=True), None, _STANDARD)
    assert settings.arrive(((b"host", b"x"), (b"traceparent", _VALID)), 1) == (_VALID, None, None, 16 + len(_VALID))
    assert settings.arrive(((b"host", b"x"),), 1) == (None, None, None, 5)


@given(first=_nearly | st.just(b""), second=_nearly)
def test_of_two_traceparents_the_first_counts(first: bytes, second: bytes) -> None:
    """Lazy and eager agree about it, and with OpenTelemetry."""
    settings = TraceSettings(PureSampler(ratio=1, parent_based=True), None, _STANDARD)
    headers = ((b"traceparent", first), (b"traceparent", second))
    raw, _, _, _ = settings.arrive(headers, 5 << 128)
    lazy = derive_ids(raw, 5 << 128, settings.pure)
    _, eager, _, _ = settings.arrive((*headers, (b"baggage", b"a=b")), 5 << 128)
    assert eager == lazy


def test_tracestate_and_baggage_are_read_at_once() -> None:
    """By OpenTelemetry's propagators, into the ids and into the context of the request."""
    settings = TraceSettings(PureSampler(ratio=1, parent_based=True), None, _STANDARD)
    headers = (
        (b"traceparent", _VALID),
        (b"tracestate", b"a=1,b=2"),
        (b"tracestate", b"c=3"),
        (b"baggage", b"user=ann%20b,arm=2"),
    )
    raw, ids, context, _ = settings.arrive(headers, 9 << 64)
    assert raw is None
    assert ids is not None
    assert context is not None
    assert (ids.trace_id, ids.parent_span_id, ids.span_id, ids.trace_flags) == (_TRACE_ID, _PARENT_ID, 9, 1)
    assert ids.trace_state == "a=1,b=2,c=3"
    assert baggage.get_all(context) == {"user": "ann b", "arm": "2"}


@given(state=st.binary(max_size=60), bag=st.binary(max_size=60), raw=_nearly)
def test_broken_tracestate_and_baggage_never_raise(state: bytes, bag: bytes, raw: bytes) -> None:
    """Odd bytes give the ids that the traceparent alone gives."""
    settings = TraceSettings(PureSampler(ratio=1, parent_based=True), None, _STANDARD)
    _, ids, _, _ = settings.arrive(((b"traceparent", raw), (b"tracestate", state), (b"baggage", bag)), 1 << 128)
    lazy = derive_ids(raw, 1 << 128, settings.pure)
    assert ids is not None
    assert ids._replace(trace_state="") == lazy


def test_a_context_that_is_there_already_stays() -> None:
    """What an outer layer attached is still there beside the baggage that was read."""
    key = otel_context.create_key("outer")
    token = otel_context.attach(otel_context.set_value(key, "kept"))
    try:
        settings = TraceSettings(PureSampler(ratio=1, parent_based=True), None, _STANDARD)
        _, _, context, _ = settings.arrive(((b"baggage", b"a=b"),), 1)
    finally:
        otel_context.detach(token)
    assert context is not None
    assert context.get(key) == "kept"


class _CountingSampler(Sampler):
    """Samples, and says so in the trace state."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, int]] = []

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        self.asked.append((trace_id, get_current_span(parent_context).get_span_context().span_id))
        return SamplingResult(Decision.RECORD_AND_SAMPLE, trace_state=TraceState([("by", "sampler")]))

    def get_description(self) -> str:
        return "counting"


@pytest.mark.parametrize("headers", [(), ((b"traceparent", _VALID),), ((b"traceparent", b"nonsense"),)])
def test_a_custom_sampler_is_asked_exactly_once(headers: Headers) -> None:
    """At arrival, with the parent's context and the final trace id; its trace state is kept."""
    sampler = _CountingSampler()
    settings = TraceSettings(None, sampler, _STANDARD)
    raw, ids, _, _ = settings.arrive(headers, 3 << 128)
    assert raw is None
    assert ids is not None
    assert sampler.asked == [(ids.trace_id, ids.parent_span_id)]
    assert (ids.trace_flags, ids.trace_state) == (1, "by=sampler")


class _OneHeader(TextMapPropagator):
    """A propagator of a kind of its own: the header `x-one` holds the trace id."""

    def extract(
        self, carrier: CarrierT, context: Context | None = None, getter: Getter[CarrierT] = default_getter
    ) -> Context:
        values = getter.get(carrier, "x-one")
        if not values:
            return context or Context()
        remote = SpanContext(int(values[0], 16), 1, is_remote=True, trace_flags=TraceFlags(1))
        return set_span_in_context(NonRecordingSpan(remote), context)

    def inject(
        self, carrier: CarrierT, context: Context | None = None, setter: Setter[CarrierT] = default_setter
    ) -> None:
        raise NotImplementedError

    @property
    def fields(self) -> set[str]:
        return {"x-one"}


def test_another_propagator_decides_alone() -> None:
    """`traceparent` means nothing where the propagator does not read it."""
    settings = TraceSettings(PureSampler(ratio=1, parent_based=True), None, _OneHeader())
    _, ids, _, _ = settings.arrive(((b"X-One", b"abc"), (b"traceparent", _VALID)), 1)
    assert ids is not None
    assert (ids.trace_id, ids.parent_span_id) == (0xABC, 1)
    _, ids, _, _ = settings.arrive(((b"traceparent", _VALID),), 7 << 128)
    assert ids is not None
    assert (ids.trace_id, ids.parent_span_id) == (7, 0)


def test_the_header_getter_is_blind_to_case_and_keeps_repeats() -> None:
    """Names are compared in lower case; values are latin-1, which cannot fail."""
    getter = HeaderGetter()
    headers = ((b"B3", b"\xff"), (b"b3", b"2"), (b"x", b""))
    assert getter.get(headers, "b3") == ["ÿ", "2"]
    assert getter.get(headers, "X") == [""]
    assert getter.get(headers, "missing") is None
    assert getter.keys(headers) == ["b3", "b3", "x"]


def _python(program: str, **variables: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
        env={**os.environ, **variables},
    )
    return done.stdout.strip()


def test_a_propagator_that_is_not_installed_does_not_stop_an_app() -> None:
    """OpenTelemetry cannot be asked then; the standard pair stands in, and `import infertap` works."""
    program = (
        "import os, infertap\n"
        "from infertap.trace_context import TraceSettings\n"
        f"raw = {_VALID!r}\n"
        "settings = TraceSettings.from_environment(os.environ)\n"
        "print(settings.arrive(((b'traceparent', raw),), 1)[0] == raw)\n"
        "print(f\"{settings.arrive(((b'traceparent', raw), (b'baggage', b'a=b')), 1)[1].trace_id:x}\")\n"
    )
    assert _python(program, OTEL_PROPAGATORS="misspelled").split() == ["True", f"{_TRACE_ID:x}"]


@pytest.mark.parametrize(
    ("variables", "root", "child"),
    [
        ({}, 1, 1),
        ({"OTEL_TRACES_SAMPLER": "always_off"}, 0, 0),
        ({"OTEL_TRACES_SAMPLER": "Parentbased_Always_Off"}, 0, 1),
        ({"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0"}, 0, 0),
        ({"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": " 0.0 "}, 0, 1),
        ({"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "many"}, 1, 1),
        ({"OTEL_SDK_DISABLED": "TRUE"}, 0, 0),
        ({"OTEL_SDK_DISABLED": "true", "OTEL_TRACES_SAMPLER": "always_on"}, 0, 0),
    ],
)
def test_the_environment_names_the_sampler(variables: dict[str, str], root: int, child: int) -> None:
    """By the standard names; a switched-off SDK samples nothing."""
    settings = TraceSettings.from_environment(variables)
    arrived: list[Any] = [settings.arrive(headers, 1 << 128)[0] for headers in ((), ((b"traceparent", _VALID),))]
    assert [derive_ids(raw, 1 << 128, settings.pure).trace_flags for raw in arrived] == [root, child]


def test_our_mark_comes_first_and_once() -> None:
    """An older mark of ours goes; what is over the standard's 32 members goes at the end."""
    assert marked_state("", 0xAB) == "infertap=00000000000000ab"
    assert marked_state("a=1, infertap=01 ,b=2", 0xAB) == "infertap=00000000000000ab,a=1,b=2"
    assert len(marked_state(",".join(f"k{n}={n}" for n in range(32)), 1).split(",")) == 32
