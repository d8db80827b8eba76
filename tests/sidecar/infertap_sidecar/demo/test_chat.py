"""The chat about wines: what it reads, and what it answers."""

import asyncio
import json
from typing import Any

import pytest

from infertap_sidecar.demo.chat import MODEL_NAME, Answer, ChatError, parse_chat
from infertap_sidecar.demo.wine import WineModel


def body(text: Any = "Why is wine 42 what it is?", **fields: Any) -> bytes:
    """A chat completion request."""
    messages = [{"role": "user", "content": text}]
    return json.dumps({"model": MODEL_NAME, "messages": messages, **fields}).encode()


def events_of(answer: Answer) -> list[Any]:
    """The decoded events of a stream, its end included."""

    async def collect() -> bytes:
        return b"".join([event async for event in answer.events()])

    lines = [line for line in asyncio.run(collect()).decode().split("\n\n") if line]
    assert all(line.startswith("data: ") for line in lines)
    return [line if line == "data: [DONE]" else json.loads(line.removeprefix("data: ")) for line in lines]


def test_a_wine_is_found_by_number_by_name_and_by_all_its_numbers(model: WineModel) -> None:
    """Three ways to say which wine is meant."""
    wine = model.sample(42)
    listed = ", ".join(str(value) for value in wine)
    parts = [{"type": "text", "text": "proline=1000, hue: 1.5"}]
    assert parse_chat(body(), model).row == tuple(wine)
    assert parse_chat(body(f"[{listed}]"), model).row == tuple(wine)
    named = dict(zip(model.features, parse_chat(body(parts), model).row, strict=True))
    assert (named["proline"], named["hue"]) == (1000, 1.5)
    assert named["alcohol"] == model.usual[0]


@pytest.mark.parametrize(
    ("request_body", "status", "words"),
    [
        (b"{", 400, "parse the JSON"),
        (b"[]", 400, "JSON object"),
        (body(model="gpt-4o"), 404, "`gpt-4o` does not exist"),
        (body(messages=[]), 400, "at least one message"),
        (body(5), 400, "content must be text"),
        (body("wine 100000"), 400, "178 wines"),
        (body("1, 2 and 3"), 400, "Expected 13 numbers, got 3"),
        (body("sugar=3"), 400, "['sugar']"),
        (body(max_tokens=0), 400, "positive integer"),
    ],
)
def test_what_cannot_be_answered_is_an_error_as_openai_gives_it(
    model: WineModel, request_body: bytes, status: int, words: str
) -> None:
    """With OpenAI's statuses and OpenAI's shape."""
    with pytest.raises(ChatError) as caught:
        parse_chat(request_body, model)
    assert caught.value.status == status
    error = caught.value.body()["error"]
    assert words in error["message"]
    assert error["type"] == "invalid_request_error"


def test_a_streamed_answer_is_the_same_as_a_whole_one(model: WineModel) -> None:
    """One event a token, the role first, the finish reason last, then the end."""
    request = parse_chat(body(stream=True), model)
    whole = asyncio.run(Answer(request, model).completion())
    events = events_of(Answer(request, model))
    assert events.pop() == "data: [DONE]"
    deltas = [event["choices"][0]["delta"] for event in events]
    assert deltas[0] == {"role": "assistant", "content": ""}
    assert "".join(delta.get("content", "") for delta in deltas) == whole["choices"][0]["message"]["content"]
    assert [event["choices"][0]["finish_reason"] for event in events[-2:]] == [None, "stop"]
    assert len(events) == whole["usage"]["completion_tokens"] + 2
    assert not any("usage" in event for event in events)


def test_usage_is_streamed_when_asked_for(model: WineModel) -> None:
    """In a last event without choices, as OpenAI does."""
    request = parse_chat(body(stream=True, stream_options={"include_usage": True}), model)
    *events, last, _ = events_of(Answer(request, model))
    assert last["choices"] == []
    assert last["usage"] == asyncio.run(Answer(request, model).completion())["usage"]
    assert all(event["usage"] is None for event in events)


def test_an_answer_stops_at_its_limit(model: WineModel) -> None:
    """After `max_tokens` tokens, and says so."""
    answer = asyncio.run(Answer(parse_chat(body(max_tokens=5), model), model).completion())
    assert answer["choices"][0]["finish_reason"] == "length"
    assert len(answer["choices"][0]["message"]["content"].split()) == 5
    assert answer["usage"] == {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}
