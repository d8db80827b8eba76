"""An OpenAI-compatible chat about wines: the answers are the classifier's own explanations, word by word."""

import json
import re
import time
import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from anyio import to_thread

from infertap_sidecar.demo.wine import WineModel

MODEL_NAME = "wine-explainer"

_SAMPLE = re.compile(r"\bwine\s+#?(\d+)", re.IGNORECASE)
_NAMED = re.compile(r"([a-z][a-z0-9_/]+)\s*[=:]\s*(-?\d+(?:\.\d+)?)", re.IGNORECASE)
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
_TOKEN = re.compile(r"\s*\S+")


class ChatError(Exception):
    """A request that OpenAI's API would refuse, with the status it would answer."""

    def __init__(self, status: int, message: str, param: str, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code

    def body(self) -> dict[str, Any]:
        """The JSON object of the answer."""
        error = {"message": self.message, "type": "invalid_request_error", "param": self.param, "code": self.code}
        return {"error": error}


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """What this server reads of a chat completion request."""

    row: tuple[float, ...]
    stream: bool
    include_usage: bool
    tokens_max: int | None
    prompt_tokens: int


def parse_chat(body: bytes, model: WineModel) -> ChatRequest:
    """Reads a chat completion request.

    Raises:
        ChatError: 404 for an unknown model, 400 for everything else that cannot be answered.
    """
    try:
        document = json.loads(body)
    except ValueError as error:
        raise ChatError(400, "We could not parse the JSON body of your request.", "body") from error
    if not isinstance(document, dict):
        raise ChatError(400, "The body must be a JSON object.", "body")
    name = document.get("model")
    if name != MODEL_NAME:
        raise ChatError(404, f"The model `{name}` does not exist.", "model", "model_not_found")
    messages = document.get("messages")
    if not isinstance(messages, list) or not messages or not all(isinstance(item, dict) for item in messages):
        raise ChatError(400, "messages must be a list of at least one message.", "messages")
    texts = [_text(message.get("content")) for message in messages]
    options = document.get("stream_options")
    return ChatRequest(
        row=tuple(_measurements(texts[-1], model)),
        stream=document.get("stream") is True,
        include_usage=isinstance(options, dict) and options.get("include_usage") is True,
        tokens_max=_limit(document.get("max_completion_tokens", document.get("max_tokens"))),
        prompt_tokens=sum(len(_TOKEN.findall(text)) for text in texts),
    )


class Answer:
    """One answer while it is computed: iterate over its tokens, then ask for the rest."""

    def __init__(self, request: ChatRequest, model: WineModel) -> None:
        self.finish_reason = "stop"
        self._request = request
        self._sentences = model.explain(request.row)
        self._token_count = 0
        self._head = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": MODEL_NAME}

    async def completion(self) -> dict[str, Any]:
        """The whole answer as a `chat.completion` object."""
        text = "".join([token async for token in self._tokens()])
        message = {"role": "assistant", "content": text, "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": self.finish_reason}
        return {**self._head, "object": "chat.completion", "choices": [choice], "usage": self._usage()}

    async def events(self) -> AsyncIterator[bytes]:
        """The answer as the events of a stream, one a token, ended by `[DONE]`."""
        yield self._event({"role": "assistant", "content": ""})
        async for token in self._tokens():
            yield self._event({"content": token})
        yield self._event({}, self.finish_reason)
        if self._request.include_usage:
            yield self._encode({"choices": [], "usage": self._usage()})
        yield b"data: [DONE]\n\n"

    async def _tokens(self) -> AsyncIterator[str]:
        first = True
        while (sentence := await to_thread.run_sync(_next, self._sentences)) is not None:
            for token in _TOKEN.findall(sentence if first else " " + sentence):
                if self._token_count == self._request.tokens_max:
                    self.finish_reason = "length"
                    return
                self._token_count += 1
                yield token
            first = False

    def _event(self, delta: dict[str, str], finish_reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        usage: dict[str, None] = {"usage": None} if self._request.include_usage else {}
        return self._encode({"choices": [choice], **usage})

    def _encode(self, fields: dict[str, Any]) -> bytes:
        return b"data: " + json.dumps({**self._head, "object": "chat.completion.chunk", **fields}).encode() + b"\n\n"

    def _usage(self) -> dict[str, int]:
        prompt, answer = self._request.prompt_tokens, self._token_count
        return {"prompt_tokens": prompt, "completion_tokens": answer, "total_tokens": prompt + answer}


def _next(sentences: Iterator[str]) -> str | None:
    return next(sentences, None)


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return " ".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    raise ChatError(400, "content must be text, or a list of text parts.", "messages")


def _limit(value: Any) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ChatError(400, "max_tokens must be a positive integer.", "max_tokens")
    return value


def _measurements(text: str, model: WineModel) -> Sequence[float]:
    """The wine that a message is about: by number, by named measurements, or by all of them in order."""
    if match := _SAMPLE.search(text):
        number = int(match[1])
        if number >= model.sample_count:
            raise ChatError(400, f"There are {model.sample_count} wines, numbered from 0.", "messages")
        return model.sample(number)
    named = {name.lower(): float(value) for name, value in _NAMED.findall(text)}
    if named:
        unknown = sorted(set(named) - set(model.features))
        if unknown:
            raise ChatError(400, f"Unknown measurements {unknown}; known are {list(model.features)}.", "messages")
        return [named.get(name, usual) for name, usual in zip(model.features, model.usual, strict=True)]
    numbers = [float(value) for value in _NUMBER.findall(text)]
    if len(numbers) != len(model.features):
        raise ChatError(400, f"Expected {len(model.features)} numbers, got {len(numbers)}.", "messages")
    return numbers
