"""How bodies travel on a span: whole, by reference, or withheld with a mark and a preview."""

import json
from typing import Any

import pytest

from infertap.destinations.otlp_limits import Fit
from infertap.destinations.span_content import SpanContent
from infertap.targets import OtlpLimits


def request_of(**columns: Any) -> dict[str, Any]:
    return {"request_id": "id-1", "request_content_type": "application/json", **columns}


def content(limits: OtlpLimits | None = None, value_length_max: int | None = None, **options: Any) -> SpanContent:
    return SpanContent(Fit(limits, value_length_max), **options)


def test_each_body_once_with_its_type() -> None:
    """An empty body has no attribute; an unknown type is plain text."""
    attributes = content().attributes(request_of(request='{"a":1}', response=""))
    assert attributes == {"input.value": '{"a":1}', "input.mime_type": "application/json"}
    assert content().attributes({"response": "x"}) == {"output.value": "x", "output.mime_type": "text/plain"}


def test_withheld_body_is_marked() -> None:
    """A body that the row does not hold is marked with the reason from its code, also beside references."""
    codes = ["REQUEST_NOT_READ", "RESPONSE_INCOMPLETE", "RESPONSE_BINARY_WITHHELD"]
    request = request_of(request="x", logging_error_codes=codes)
    for tables_uri, there in ((None, "input.value"), ("s3://b/t", "gen_ai.input.messages_ref")):
        attributes = content(tables_uri=tables_uri).attributes(request)
        assert attributes["infertap.withheld"] == attributes["infertap.response.withheld"] == "binary_withheld"
        assert there in attributes
        assert not {"output.value", "gen_ai.output.messages_ref"} & set(attributes)


@pytest.mark.parametrize("tables_uri", [None, "s3://b/t"])
def test_a_body_too_large_for_the_row_is_marked_and_shows_its_beginning(tables_uri: str | None) -> None:
    """With a table or without: neither value nor reference, but the reason and the preview, within the limits."""
    request = request_of(
        logging_error_codes=["REQUEST_OVER_INLINE_LIMIT"], span={"previews": {"request": "\u00fc" * 1000}}
    )
    attributes = content(OtlpLimits(attribute_bytes_max=300), tables_uri=tables_uri).attributes(request)
    assert attributes == {
        "infertap.request.preview": "\u00fc" * 150,
        "infertap.request.withheld": "over_inline_limit",
        "infertap.withheld": "over_inline_limit",
    }
    assert content(mode="metadata").attributes(request) == {}


def test_body_over_the_operators_limit_is_withheld_and_never_cut() -> None:
    """Over the limit there is a mark and a preview, but no value; exactly the limit fits."""
    attributes = content(value_length_max=2000).attributes(request_of(request="p" * 3000, response="r" * 2000))
    assert "input.value" not in attributes
    assert attributes["infertap.request.preview"] == "p" * 1000
    assert attributes["infertap.withheld"] == attributes["infertap.request.withheld"] == "value_length_limit"
    assert attributes["output.value"] == "r" * 2000
    assert "infertap.response.withheld" not in attributes


@pytest.mark.parametrize("text", ["p" * 3000, "ü" * 3000, "🙂" * 3000])
def test_body_over_the_platforms_limit_has_a_preview_within_it(text: str) -> None:
    """1,000 characters, or as many whole ones as the platform's bytes hold."""
    attributes = content(OtlpLimits(attribute_bytes_max=2048)).attributes(request_of(request=text))
    assert attributes["infertap.request.withheld"] == attributes["infertap.withheld"] == "platform_limit"
    preview = attributes["infertap.request.preview"]
    assert text.startswith(preview)
    assert len(preview) == min(1000, 2048 // len(text[0].encode()))


def test_a_side_that_the_span_has_no_room_for_is_withheld() -> None:
    """The other side stays."""
    attributes = content().attributes(request_of(request="question", response="answer"), withhold=("request",))
    assert attributes["infertap.request.withheld"] == "platform_limit"
    assert attributes["infertap.request.preview"] == "question"
    assert attributes["output.value"] == "answer"


def test_references_where_the_tables_hold_the_bodies() -> None:
    """Also for bodies of any size; without credentials; the container of an Azure address stays."""
    limits = OtlpLimits(attribute_bytes_max=10)
    request = request_of(request="x" * 5000, response_ref="payloads/1")
    uri = "abfss://box@account.dfs.core.windows.net/t"
    assert content(limits, tables_uri=uri).attributes(request) == {
        "gen_ai.input.messages_ref": f"{uri}/inference?request_id=id-1",
        "gen_ai.output.messages_ref": f"{uri}/inference?request_id=id-1",
    }
    attributes = content(tables_uri="s3://user:secret@lake/t?sig=secret").attributes(request)
    assert attributes["gen_ai.input.messages_ref"] == "s3://lake/t/inference?request_id=id-1"


def test_metadata_says_nothing_of_bodies() -> None:
    """Neither the bodies nor why they are missing."""
    assert content(mode="metadata").attributes(request_of(request="secret", response="secret")) == {}


def test_mlflows_own_names() -> None:
    """JSON goes as it is, other text as a JSON string, and the type is said."""
    attributes = content(style="mlflow").attributes(request_of(request='{"a": 1}', response="plain ü"))
    assert attributes == {
        "mlflow.spanType": '"CHAIN"', "mlflow.spanInputs": '{"a": 1}', "mlflow.spanOutputs": '"plain ü"',
    }  # fmt: skip
    chat = content(style="mlflow").attributes(request_of(request="[1,", operation="chat"))
    assert json.loads(chat["mlflow.spanType"]) == "CHAT_MODEL"
    assert json.loads(chat["mlflow.spanInputs"]) == "[1,"
