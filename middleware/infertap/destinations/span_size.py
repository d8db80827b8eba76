"""About how many bytes a span takes on the wire: never too few, so that a batch that fits by estimate fits."""

from collections.abc import Mapping, Sequence
from typing import Any

from opentelemetry.sdk.trace import ReadableSpan

_SPAN_BYTES = 160
"""Ids, times, kind, status and framing of a span; 60 less in practice."""
_ENTRY_BYTES = 16
"""Framing of one attribute, event or link; at most so much below 2 MiB of value."""


def size_estimate(span: ReadableSpan) -> int:
    """Bytes of the encoded span: never too few, rarely a fifth too many."""
    size = _SPAN_BYTES + text_size(span.name) + mapping_size(span.attributes)
    size += text_size(span.status.description or "")
    for event in span.events:
        size += _ENTRY_BYTES + text_size(event.name) + mapping_size(event.attributes)
    for link in span.links:
        size += 64 + mapping_size(link.attributes)
    context = span.get_span_context()
    return size + (text_size(context.trace_state.to_header()) if context and context.trace_state else 0)


def attribute_size(name: str, value: Any) -> int:
    """Bytes of one attribute."""
    return _ENTRY_BYTES + text_size(name) + value_size(value)


def mapping_size(attributes: Mapping[str, Any] | None) -> int:
    """Bytes of all of them."""
    if not attributes:
        return 0
    return sum(attribute_size(name, value) for name, value in attributes.items())


def value_size(value: Any) -> int:
    """Bytes of a value without its framing; a number counts as the largest one."""
    if isinstance(value, str):
        return text_size(value)
    if isinstance(value, bytes):
        return len(value)
    if isinstance(value, Mapping):
        return mapping_size({str(name): item for name, item in value.items()})
    if isinstance(value, Sequence):
        return sum(_ENTRY_BYTES + value_size(item) for item in value)
    return 12


def text_size(text: str) -> int:
    """Bytes of UTF-8."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "replace"))
