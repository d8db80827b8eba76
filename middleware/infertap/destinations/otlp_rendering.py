"""From a spooled frame to the span that goes out to one target: its content, its resource, and its size.

A span over the limit gives up the larger body first, then the other one, then its largest attributes.
"""

import os
from collections.abc import Mapping
from typing import Any, Literal

from opentelemetry.sdk.trace import ReadableSpan

from infertap.destinations.otlp_limits import Fit, shrunk
from infertap.destinations.readable_spans import Resources, readable_span
from infertap.destinations.server_span import render_server_span
from infertap.destinations.span_content import SIDES, SpanContent
from infertap.destinations.span_size import size_estimate
from infertap.table_identity import IN_TABLE, table_identity
from infertap.targets import OtlpTarget, TableTarget

_SERVICE_NAME = "service.name"
_NAMELESS = "unknown_service"


class SpanRendering:
    """Renders for one target.

    Args:
        target: Limits, content style and resource defaults.
        content: `metadata` lets nothing of a body go.
        tables: Where the same is written, too; the spans say so, for a receiver that writes there as well.
    """

    def __init__(
        self, target: OtlpTarget, *, content: Literal["full", "metadata"] = "full", tables: TableTarget | None = None
    ) -> None:
        tables_uri = tables.uri if tables is not None else None
        self._tables = tables
        self._fit = Fit(target.limits, target.value_length_max)
        self._content = SpanContent(self._fit, style=target.content_style, mode=content, tables_uri=tables_uri)
        self._defaults = dict(target.resource)
        self._resources = Resources()
        limits = (target.limits.span_bytes_max, target.limits.request_bytes_max)
        self._span_bytes_max = min((limit for limit in limits if limit is not None), default=None)

    def request(
        self, payload: Mapping[str, Any], header: Mapping[str, Any], *, bytes_max: int | None = None
    ) -> ReadableSpan | None:
        """The server span of a REQUEST payload; None where the request's span was not sampled.

        Raises:
            UNREADABLE: the payload cannot be read as a span.
        """
        if "span" not in payload:
            return None
        record = render_server_span(payload, header)
        own, resource = record.attributes, header.get("resource", {})
        larger = max(SIDES, key=lambda side: len(payload.get(side) or ""))
        for withhold in ((), (larger,), SIDES):
            record.attributes = {**own, **self._content.attributes(payload, withhold=withhold), **self._mark()}
            fitted = self._fit.payload(record.to_payload())
            span = self._readable(fitted, resource)
            if self._excess(span, bytes_max) <= 0:
                return span
        return self._shrunk(fitted, resource, bytes_max)

    def span(
        self, payload: Mapping[str, Any], header: Mapping[str, Any], *, bytes_max: int | None = None
    ) -> ReadableSpan:
        """The span of a SPAN payload.

        Raises:
            UNREADABLE: the payload cannot be read as a span.
        """
        resource = payload.get("resource") or header.get("resource", {})
        marked = {**payload, "attributes": {**payload.get("attributes", {}), **self._mark()}}
        return self._shrunk(self._fit.payload(marked), resource, bytes_max)

    def _mark(self) -> dict[str, str]:
        identity = table_identity(self._tables, os.environ) if self._tables is not None else None
        return {} if identity is None else {IN_TABLE: identity}

    def _shrunk(self, fitted: Mapping[str, Any], resource: Mapping[str, Any], bytes_max: int | None) -> ReadableSpan:
        span = self._readable(fitted, resource)
        excess = self._excess(span, bytes_max)
        return span if excess <= 0 else self._readable(shrunk(fitted, excess), resource)

    def _readable(self, payload: Mapping[str, Any], resource: Mapping[str, Any]) -> ReadableSpan:
        return readable_span(payload, self._resources.of(self._completed(resource)))

    def _completed(self, resource: Mapping[str, Any]) -> dict[str, Any]:
        """The resource with the platform's own facts where the process said nothing."""
        completed = {**self._defaults, **self._fit.attributes(resource)}
        if _SERVICE_NAME in self._defaults and str(completed[_SERVICE_NAME]).startswith(_NAMELESS):
            completed[_SERVICE_NAME] = self._defaults[_SERVICE_NAME]
        return completed

    def _excess(self, span: ReadableSpan, bytes_max: int | None) -> int:
        limits = [limit for limit in (self._span_bytes_max, bytes_max) if limit is not None]
        return size_estimate(span) - min(limits) if limits else 0
