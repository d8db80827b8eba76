"""How a request's bodies travel on its span: as attributes, as references into the tables, or as a mark with a preview.

1. A body is on a span at most once, and never cut: over a limit it is withheld, and a preview in plain text goes along.
2. Where the tables hold the bodies, the span holds references only.
3. What the row does not hold is named with its reason, so that nobody takes a missing body for an empty one.
"""

import json
from collections.abc import Collection, Mapping
from typing import Any, Literal

from infertap.destinations.otlp_limits import PLATFORM_LIMIT, Fit
from infertap.record import PREVIEW_CHARACTERS_MAX, ErrorCode
from infertap.urls import without_password

SIDES = ("request", "response")

_NOT_WITHHELD = (ErrorCode.REQUEST_NOT_READ, ErrorCode.RESPONSE_INCOMPLETE)
"""Codes that say that a body ended early, not that it is kept back."""
_REFERENCES = {"request": "gen_ai.input.messages_ref", "response": "gen_ai.output.messages_ref"}
_OPENINFERENCE = {"request": "input", "response": "output"}
_MLFLOW = {"request": "mlflow.spanInputs", "response": "mlflow.spanOutputs"}
_MLFLOW_TYPES = {"chat": "CHAT_MODEL", "text_completion": "LLM", "embeddings": "EMBEDDING"}


class SpanContent:
    """Makes the content attributes of requests for one destination.

    Args:
        fit: The limits.
        style: `openinference` (`input.value`, `output.value`) or `mlflow` (`mlflow.spanInputs`, `mlflow.spanOutputs`).
        mode: `metadata` lets nothing of a body go.
        tables_uri: Where the tables are written, too; the spans then carry references instead of bodies.
    """

    def __init__(
        self,
        fit: Fit,
        *,
        style: str = "openinference",
        mode: Literal["full", "metadata"] = "full",
        tables_uri: str | None = None,
    ) -> None:
        self._fit = fit
        self._mlflow = style == "mlflow"
        self._mode = mode
        self._tables = None if tables_uri is None else f"{without_password(tables_uri)}/inference?request_id="

    def attributes(self, request: Mapping[str, Any], *, withhold: Collection[str] = ()) -> dict[str, Any]:
        """The content attributes of a REQUEST payload.

        Args:
            withhold: Sides (`request`, `response`) that do not fit the span as a whole.
        """
        attributes: dict[str, Any] = {"mlflow.spanType": _mlflow_type(request)} if self._mlflow else {}
        if self._mode == "metadata":
            return attributes
        reasons: list[str] = []
        for side in SIDES:
            if self._tables is not None and (request.get(side) or request.get(f"{side}_ref")):
                attributes[_REFERENCES[side]] = f"{self._tables}{request['request_id']}"
                continue
            reason = self._add(attributes, request, side, withhold)
            if reason is not None:
                attributes[f"infertap.{side}.withheld"] = reason
                reasons.append(reason)
        if reasons:
            attributes["infertap.withheld"] = ",".join(dict.fromkeys(reasons))
        return attributes

    def _add(
        self, attributes: dict[str, Any], request: Mapping[str, Any], side: str, withhold: Collection[str]
    ) -> str | None:
        """Add one body; returns why it is not there."""
        text: str | None = request.get(side)
        if text is None:
            beginning: str | None = request.get("span", {}).get("previews", {}).get(side)
            if beginning is not None:
                attributes[f"infertap.{side}.preview"] = self._preview(beginning)
            return _why_missing(request, side)
        if not text:
            return None
        value = _as_json(text) if self._mlflow else text
        reason = self._fit.why_not(value) or (PLATFORM_LIMIT if side in withhold else None)
        if reason is not None:
            attributes[f"infertap.{side}.preview"] = self._preview(text)
        elif self._mlflow:
            attributes[_MLFLOW[side]] = value
        else:
            attributes[f"{_OPENINFERENCE[side]}.value"] = value
            attributes[f"{_OPENINFERENCE[side]}.mime_type"] = request.get(f"{side}_content_type") or "text/plain"
        return reason

    def _preview(self, text: str) -> str:
        characters_max = min(PREVIEW_CHARACTERS_MAX, self._fit.value_length_max or PREVIEW_CHARACTERS_MAX)
        preview = text[:characters_max]
        bytes_max = self._fit.limits.attribute_bytes_max
        if bytes_max is None:
            return preview
        return preview.encode("utf-8", "replace")[:bytes_max].decode("utf-8", "ignore")


def _mlflow_type(request: Mapping[str, Any]) -> str:
    return json.dumps(_MLFLOW_TYPES.get(request.get("operation", ""), "CHAIN"))


def _as_json(text: str) -> str:
    """MLflow reads its attributes as JSON; a body that is none becomes a JSON string."""
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return json.dumps(text, ensure_ascii=False)
    return text


def _why_missing(request: Mapping[str, Any], side: str) -> str | None:
    """`binary_withheld` for `REQUEST_BINARY_WITHHELD`; None where nothing was withheld."""
    prefix = f"{side.upper()}_"
    codes = (code for code in request.get("logging_error_codes", ()) if code not in _NOT_WITHHELD)
    return next((code.removeprefix(prefix).lower() for code in codes if code.startswith(prefix)), None)
