"""Makes attributes and spans fit what the receiving platform takes, so that no span is lost for its size.

1. A value over a limit is withheld and named in `infertap.withheld_attributes`, never cut.
2. What a platform refuses by type goes as JSON text, and nothing of it is lost.
3. A span that is too large gives up its largest attributes first, those that name the request last.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from infertap.destinations.span_size import attribute_size, mapping_size, text_size, value_size
from infertap.targets import OtlpLimits

PLATFORM_LIMIT = "platform_limit"
VALUE_LENGTH_LIMIT = "value_length_limit"

_INT64 = range(-(2**63), 2**63)
_NAMES_MAX = 32
"""So many withheld attributes are named; New Relic takes 64 items, and a list of thousands helps nobody."""
_NAME_CHARACTERS_MAX = 100
_LABEL_CHARACTERS_MAX = 200
"""What is left of a span's name or status text in a span that is too large without any attribute."""
_KEPT_TO_THE_END = ("infertap.request_id", "infertap.in_table", "infertap.withheld")
_MARK_BYTES = 160
"""Room for the mark itself, beside the names."""


class Fit:
    """Decides about attributes.

    Args:
        limits: The platform's.
        value_length_max: The operator's own limit of a text, in characters.
    """

    def __init__(self, limits: OtlpLimits | None = None, value_length_max: int | None = None) -> None:
        self.limits = limits or OtlpLimits()
        self.value_length_max = value_length_max

    def attributes(self, attributes: Mapping[str, Any] | None) -> dict[str, Any]:
        """The attributes that can go, with a mark where others cannot."""
        fit: dict[str, Any] = {}
        withheld: list[str] = []
        reasons: list[str] = []
        for name, value in (attributes or {}).items():
            carried = self._carried(value)
            reason = self.why_not(carried)
            if self.limits.name_bytes_max is not None and text_size(name) > self.limits.name_bytes_max:
                reason = PLATFORM_LIMIT
            if reason is None:
                fit[name] = carried
            else:
                withheld.append(name)
                reasons.append(reason)
        return marked(fit, withheld, reasons[0]) if withheld else fit

    def payload(self, payload: Mapping[str, Any]) -> dict[str, Any]:
        """The SPAN payload with the attributes of the span, its events and its links that can go."""
        fit = self.attributes
        return {
            **payload,
            "attributes": fit(payload.get("attributes")),
            "events": [[name, at_ns, fit(values)] for name, at_ns, values in payload.get("events", ())],
            "links": [[*ids, fit(values)] for *ids, values in payload.get("links", ())],
        }

    def why_not(self, value: Any) -> str | None:
        """Which limit a value is over, None where it fits."""
        if self.value_length_max is not None and _longest(value) > self.value_length_max:
            return VALUE_LENGTH_LIMIT
        bytes_max = self.limits.attribute_bytes_max
        if bytes_max is not None and any(value_size(item) > bytes_max for item in _long_ones(value)):
            return PLATFORM_LIMIT
        return None

    def _carried(self, value: Any) -> Any:
        """The value in a type that arrives."""
        if type(value) is int:
            return value if value in _INT64 else str(value)
        if isinstance(value, (list, tuple)):
            items_max = self.limits.array_items_max
            if items_max is not None and len(value) > items_max:
                return _json(value)
            plain = all(isinstance(item, (str, bool, int, float)) for item in value) and len(set(map(type, value))) <= 1
            return value if plain or not self.limits.plain_values else _json(value)
        if self.limits.plain_values and isinstance(value, (Mapping, bytes)):
            return _json(value)
        return value


def marked(attributes: dict[str, Any], withheld: list[str], reason: str) -> dict[str, Any]:
    """The attributes with the names of those that were withheld."""
    before = attributes.get("infertap.withheld_attributes", ())
    attributes["infertap.withheld_attributes"] = [*before, *map(_shown, withheld)][:_NAMES_MAX]
    attributes.setdefault("infertap.withheld", reason)
    return attributes


def _shown(name: str) -> str:
    return name if len(name) <= _NAME_CHARACTERS_MAX else f"{name[:_NAME_CHARACTERS_MAX]}..."


def shrunk(payload: Mapping[str, Any], bytes_over: int) -> dict[str, Any]:
    """A SPAN payload that takes at least `bytes_over` bytes less, or as little as a span can.

    The largest attributes go first, of the span, its events and links; then events and links; then what names the
    request. Drop counts say how many events and links went.
    """
    span = dict(payload)
    span["attributes"] = dict(span.get("attributes", {}))
    span["events"] = [[name, at_ns, dict(values)] for name, at_ns, values in span.get("events", ())]
    span["links"] = [[*ids, dict(values)] for *ids, values in span.get("links", ())]
    withheld: list[str] = []
    over = bytes_over + _MARK_BYTES
    for size, of, name in sorted(_candidates(span), key=lambda found: -found[0]):
        if over <= 0:
            break
        del of[name]
        withheld.append(name)
        over -= size - (value_size([_shown(name)]) if len(withheld) <= _NAMES_MAX else 0)
    for kind in ("events", "links"):
        while over > 0 and span[kind]:
            last = span[kind].pop()
            over -= mapping_size(last[-1]) + 16
            span[f"dropped_{kind}_count"] = span.get(f"dropped_{kind}_count", 0) + 1
    if over > 0:
        _shorten(span)
    if withheld:
        marked(span["attributes"], withheld[: _NAMES_MAX if over <= 0 else 4], PLATFORM_LIMIT)
    return span


def _candidates(span: Mapping[str, Any]) -> Iterator[tuple[int, dict[str, Any], str]]:
    """(size, map, name) of each attribute that can go."""
    for of in (span["attributes"], *(event[-1] for event in span["events"]), *(link[-1] for link in span["links"])):
        for name, value in of.items():
            if not name.startswith(_KEPT_TO_THE_END):
                yield attribute_size(name, value), of, name


def _shorten(span: dict[str, Any]) -> None:
    """Name, status text and trace state: the only texts left that may be long. They are labels, no documents."""
    span["name"] = span["name"][:_LABEL_CHARACTERS_MAX]
    status = span.get("status")
    if status and status[1]:
        span["status"] = [status[0], status[1][:_LABEL_CHARACTERS_MAX]]
    span["trace_state"] = ""


def _long_ones(value: Any) -> Iterator[Any]:
    """The value, or its items, without numbers: those are never too long."""
    for item in value if isinstance(value, (list, tuple)) else (value,):
        if not isinstance(item, (bool, int, float)):
            yield item


def _longest(value: Any) -> int:
    if isinstance(value, str):
        return len(value)
    if isinstance(value, (list, tuple)):
        return max((_longest(item) for item in value), default=0)
    return 0


def _json(value: Any) -> str:
    return orjson.dumps(value, default=_text, option=orjson.OPT_NON_STR_KEYS).decode()


def _text(value: Any) -> Any:
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)
