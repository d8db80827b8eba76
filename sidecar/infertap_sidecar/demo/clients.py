"""Real clients: a few hundred mixed requests, the same ones in the same order for the same seed.

Each request carries `x-request-id: <run>-<number>`, so that its row can be found again.
"""

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self

import httpx
import openai

from infertap_sidecar.demo.chat import MODEL_NAME
from infertap_sidecar.demo.wine import WineModel

API_KEY = "demo-key-that-no-row-may-hold"
"""Sent as a bearer token and inside bodies: the demo shows afterwards that it is in no row."""
TIMEOUT_S = 30.0
CHUNKS_BEFORE_HANG_UP = 4


class Kind(StrEnum):
    """What a client does, in the words of the demo's summary."""

    SCORE = "scored"
    CHAT = "chat"
    STREAM = "chat, streamed"
    HANG_UP = "chat, hung up midway"
    UNKNOWN_MODEL = "chat, unknown model"
    BAD_NUMBERS = "chat, bad numbers"
    BAD_INPUT = "scored, bad input"
    WRONG_TYPE = "scored, wrong content type"
    CRASH = "server crashed"


SHARES = {
    Kind.SCORE: 42, Kind.CHAT: 14, Kind.STREAM: 22, Kind.HANG_UP: 6, Kind.UNKNOWN_MODEL: 3,
    Kind.BAD_NUMBERS: 3, Kind.BAD_INPUT: 4, Kind.WRONG_TYPE: 2, Kind.CRASH: 4,
}  # fmt: skip
"""Of a hundred requests, how many are of which kind."""


@dataclass(frozen=True, slots=True)
class Planned:
    """One request to be sent. `number` counts from 0; `wine` is a number in the data set."""

    number: int
    kind: Kind
    wine: int


@dataclass(frozen=True, slots=True)
class Answered:
    """What the client saw: the status (of a hung up stream too) and how many pieces of the answer."""

    planned: Planned
    status: int
    pieces: int


def plan(count: int, *, sample_count: int, seed: int) -> list[Planned]:
    """`count` requests of all kinds, each kind at least once, shuffled. `count` is at least the number of kinds."""
    dice = random.Random(seed)
    kinds = [kind for kind, share in SHARES.items() for _ in range(max(1, share * count // 100))]
    kinds = (kinds + [Kind.SCORE] * count)[:count]
    dice.shuffle(kinds)
    return [Planned(number, kind, dice.randrange(sample_count)) for number, kind in enumerate(kinds)]


class Clients:
    """Sends planned requests to `base_url`, several at once. Use as an async context manager."""

    def __init__(self, base_url: str, model: WineModel, *, run: str) -> None:
        self._model = model
        self._run = run
        self._http = httpx.AsyncClient(
            base_url=base_url, timeout=TIMEOUT_S, trust_env=False, headers={"authorization": f"Bearer {API_KEY}"}
        )
        self._openai = openai.AsyncOpenAI(
            api_key=API_KEY, base_url=f"{base_url}/v1", max_retries=0, timeout=TIMEOUT_S,
            http_client=openai.DefaultAsyncHttpxClient(trust_env=False),
        )  # fmt: skip

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._openai.close()
        await self._http.aclose()

    async def send_all(
        self, requests: Sequence[Planned], *, at_once: int, on_answer: Callable[[Answered], None]
    ) -> list[Answered]:
        """Sends all, at most `at_once` at the same time; calls `on_answer` after each. Order is not kept.

        Raises:
            httpx.HTTPError, openai.APIConnectionError: the server could not be reached or broke off.
        """
        waiting = iter(requests)
        answers: list[Answered] = []

        async def work() -> None:
            for planned in waiting:
                answer = await self._send(planned)
                answers.append(answer)
                on_answer(answer)

        async with asyncio.TaskGroup() as group:
            for _ in range(at_once):
                group.create_task(work())
        return answers

    async def _send(self, planned: Planned) -> Answered:
        match planned.kind:
            case Kind.SCORE | Kind.BAD_INPUT | Kind.WRONG_TYPE:
                return await self._score(planned)
            case Kind.CRASH:
                response = await self._http.get(f"/wines/{planned.wine + 1000}", headers=self._headers(planned))
                return Answered(planned, response.status_code, 1)
            case Kind.STREAM | Kind.HANG_UP:
                return await self._stream(planned)
            case _:
                return await self._chat(planned)

    async def _score(self, planned: Planned) -> Answered:
        headers = self._headers(planned)
        payload = scoring_payload(planned, self._model)
        if planned.kind is Kind.WRONG_TYPE:
            headers["content-type"] = "application/xml"
            response = await self._http.post("/invocations", content=b"<rows/>", headers=headers)
        else:
            response = await self._http.post("/invocations", json=payload, headers=headers)
        return Answered(planned, response.status_code, 1)

    async def _chat(self, planned: Planned) -> Answered:
        model = "wine-explainer-xl" if planned.kind is Kind.UNKNOWN_MODEL else MODEL_NAME
        text = (
            "What about 13.2, 1.78 and 2.14?"
            if planned.kind is Kind.BAD_NUMBERS
            else f"Why is wine {planned.wine} what it is?"
        )
        try:
            await self._openai.chat.completions.create(
                model=model, messages=[{"role": "user", "content": text}], extra_headers=self._headers(planned)
            )
        except openai.APIStatusError as error:
            return Answered(planned, error.status_code, 1)
        return Answered(planned, 200, 1)

    async def _stream(self, planned: Planned) -> Answered:
        pieces = 0
        stream = await self._openai.chat.completions.create(
            model=MODEL_NAME,
            messages=[
                {"role": "system", "content": "Explain the classifier's answer."},
                {"role": "user", "content": f"Wine {planned.wine}, please."},
            ],
            stream=True,
            stream_options={"include_usage": planned.wine % 2 == 0},
            extra_headers=self._headers(planned),
        )
        async with stream:
            async for _ in stream:
                pieces += 1
                if planned.kind is Kind.HANG_UP and pieces == CHUNKS_BEFORE_HANG_UP:
                    break
        return Answered(planned, stream.response.status_code, pieces)

    def _headers(self, planned: Planned) -> dict[str, str]:
        return {"x-request-id": f"{self._run}-{planned.number}"}


def scoring_payload(planned: Planned, model: WineModel) -> dict[str, Any]:
    """A body for `/invocations`: one of MLflow's four forms, one to three wines; for bad input a column is missing."""
    wines = [(planned.wine + step) % model.sample_count for step in range(1 + planned.number % 3)]
    rows = [model.sample(number) for number in wines]
    records = [dict(zip(model.features, row, strict=True)) for row in rows]
    if planned.kind is Kind.BAD_INPUT:
        return {"dataframe_records": [{"alcohol": record["alcohol"]} for record in records]}
    match planned.number % 4:
        case 0:
            return {"dataframe_split": {"columns": list(model.features), "data": rows}, "params": {"api_key": API_KEY}}
        case 1:
            return {"dataframe_records": records}
        case 2:
            return {"instances": rows}
        case _:
            return {"inputs": {name: [record[name] for record in records] for name in model.features}}
