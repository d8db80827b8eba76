"""Where the makers of spans put what went into a model and what came out: one reading for all their dialects.

Attributes are looked for in the order MLflow, OpenInference, GenAI, and the first dialect that is there counts.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import orjson

from infertap.processors.span_request import infertap_request_id
from infertap.record import SpanRecord

JSON = "application/json"
_TEXT = "text/plain"

_DIALECTS = (
    ("mlflow", "mlflow.spanInputs", "mlflow.spanOutputs"),
    ("otlp", "input.value", "output.value"),
    ("otlp", "gen_ai.input.messages", "gen_ai.output.messages"),
)
_CONTENT = (
    "input.value", "output.value", "mlflow.spanInputs", "mlflow.spanOutputs", "mlflow.traceInputs",
    "mlflow.traceOutputs", "mlflow.chunk.value", "mlflow.chat.tools", "gen_ai.input.messages",
    "gen_ai.output.messages", "gen_ai.system_instructions", "gen_ai.tool.definitions", "gen_ai.tool.call.arguments",
    "gen_ai.tool.call.result", "gen_ai.event.content", "gen_ai.prompt", "gen_ai.completion",
    "traceloop.entity.input", "traceloop.entity.output", "gen_ai.headers", "llm.headers", "llm.prompts",
    "llm.input_messages", "llm.output_messages", "llm.tools", "llm.invocation_parameters", "embedding.embeddings",
    "retrieval.documents", "reranker.input_documents", "reranker.output_documents", "infertap.request.preview",
    "infertap.response.preview",
)  # fmt: skip
"""Attributes (or what they begin with) that hold content, by the conventions in use."""


class Content(NamedTuple):
    """What a span says went in and came out; texts as they are, not redacted."""

    protocol: str
    """`mlflow` or `otlp`; `http` for the span of a sender's infertap."""
    inputs: str | None
    """None only in the span of a sender's infertap: the request had no body, or it was not kept."""
    inputs_type: str
    """Media type."""
    outputs: str | None
    """None where the call failed before there was any; of a sender's infertap also where it was not kept."""
    outputs_type: str


def is_content(name: str) -> bool:
    """Whether an attribute of that name holds content, so that `content = "metadata"` leaves it out."""
    return name.startswith(_CONTENT)


def request_content(span: SpanRecord) -> Content | None:
    """The span's inputs and outputs; None where it has not both.

    A span that failed needs no outputs; a request's span by a sender's infertap needs neither.
    """
    attributes = span.attributes
    if infertap_request_id(span) is not None:
        return _infertap_content(attributes)
    failed = span.status is not None and span.status[0] == "ERROR"
    for protocol, inputs, outputs in _DIALECTS:
        if inputs in attributes and (outputs in attributes or failed):
            return Content(
                protocol,
                _text(attributes[inputs]),
                _media_type(attributes, inputs),
                _text(attributes[outputs]) if outputs in attributes else None,
                _media_type(attributes, outputs),
            )
    return None


def _infertap_content(attributes: Mapping[str, Any]) -> Content:
    """Whichever sides there are, in whichever style they were sent."""
    _, inputs, outputs = next(
        (dialect for dialect in _DIALECTS if dialect[1] in attributes or dialect[2] in attributes), _DIALECTS[1]
    )
    return Content(
        "http",
        _text(attributes[inputs]) if inputs in attributes else None,
        _media_type(attributes, inputs),
        _text(attributes[outputs]) if outputs in attributes else None,
        _media_type(attributes, outputs),
    )


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return orjson.dumps(value, default=str, option=orjson.OPT_NON_STR_KEYS).decode()


def _media_type(attributes: Mapping[str, Any], name: str) -> str:
    if not name.endswith(".value"):
        return JSON
    given = attributes.get(name.replace(".value", ".mime_type"))
    return given if isinstance(given, str) and given else _TEXT
