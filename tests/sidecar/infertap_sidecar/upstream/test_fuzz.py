"""Answers cut, mangled and glued at random: the client never hangs, never fails otherwise, never completes half a one.

Seeded, so that a failure comes again; the seed of a failing round is in its message.
"""

import asyncio
import random
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from infertap_sidecar.upstream.answer import AnswerReader
from infertap_sidecar.upstream.protocol import UpstreamError

ROUNDS = 400
CANARY = b"canary7461"


class Made:
    """An answer and what a client may make of it."""

    def __init__(self, chance: random.Random) -> None:
        self.body = chance.choice((b"", CANARY, chance.randbytes(chance.randrange(1, 3_000)), b"\r\n0\r\n\r\n" * 3))
        fields = [b"X-%d: %b" % (number, CANARY) for number in range(chance.randrange(4))]
        self.self_delimiting = chance.random() < 0.8
        if not self.self_delimiting:
            framed = self.body
        elif chance.random() < 0.5:
            fields.append(b"content-length: %d" % len(self.body))
            framed = self.body
        else:
            fields.append(b"Transfer-Encoding: chunked")
            framed = b"".join(_chunked(self.body, chance))
        chance.shuffle(fields)
        interim = b"HTTP/1.1 103 Early\r\nLink: " + CANARY + b"\r\n\r\n" if chance.random() < 0.2 else b""
        self.head = interim + b"\r\n".join([b"HTTP/1.1 200 " + CANARY, *fields, b"", b""])
        self.bytes = self.head + framed


def _chunked(body: bytes, chance: random.Random) -> Iterator[bytes]:
    while body:
        size = chance.randrange(1, len(body) + 1)
        yield b"%x%b\r\n%b\r\n" % (size, chance.choice((b"", b";a=b", b';a="b"')), body[:size])
        body = body[size:]
    yield chance.choice((b"0\r\n\r\n", b"000\r\nX-T: " + CANARY + b"\r\n\r\n"))


def _mangled(data: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(len(data))
    size = chance.randrange(1, 6)
    return chance.choice(
        (
            data[:at] + chance.randbytes(size) + data[at + size :],
            data[:at] + data[at + size :],
            data[:at] + data[at : at + size] * 2 + data[at + size :],
            data[:at] + chance.choice((b"\r\n", b"\n", b"\r", b" ", b":", b"\0", b"0\r\n\r\n")) + data[at:],
            data[:at] + b"Content-Length: 7\r\n" + data[at:],
        )
    )


def _cut(data: bytes, chance: random.Random) -> Iterator[bytes]:
    while data:
        size = chance.choice((1, chance.randrange(1, 50), len(data)))
        yield data[:size]
        data = data[size:]


@pytest.mark.parametrize("seed", range(10))
def test_a_reader_makes_of_every_cut_the_same(seed: int) -> None:
    """However an answer is cut, it is read whole; cut short anywhere, it is never complete."""
    for number in range(ROUNDS):
        chance = random.Random(seed * ROUNDS + number)
        made = Made(chance)
        reader = AnswerReader(head_only=False)
        for part in _cut(made.bytes, chance):
            reader.feed(part)
        reader.eof()
        assert b"".join(reader.pieces) == made.body, number
        short = AnswerReader(head_only=False)
        end = chance.randrange(len(made.bytes))
        for part in _cut(made.bytes[:end], chance):
            short.feed(part)
        assert not short.complete, number
        if made.self_delimiting or end < len(made.head):
            with pytest.raises(UpstreamError):
                short.eof()
        assert made.body.startswith(b"".join(short.pieces)), number


@pytest.mark.parametrize("seed", range(10))
def test_a_reader_survives_every_mangling(seed: int) -> None:
    """It reads or refuses, in bounded words of its own; nothing else is raised."""
    for number in range(ROUNDS):
        chance = random.Random(seed * ROUNDS + number)
        data = Made(chance).bytes
        for _ in range(chance.randrange(1, 4)):
            data = _mangled(data, chance)
        reader = AnswerReader(head_only=chance.random() < 0.1)
        try:
            for part in _cut(data, chance):
                reader.feed(part)
            reader.eof()
        except UpstreamError as error:
            words = str(error)
        else:
            words = ""
            assert reader.complete, number
        assert CANARY.decode() not in words, number
        assert len(words) < 200, number


def test_no_mangled_answer_hangs_or_harms_the_next(native: Any, serve: Any) -> None:
    """Over real sockets: each exchange ends, and an untouched answer after it is read as it is."""
    rounds = 150
    seed = 7461

    def script(talk: Any) -> None:
        talk.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while True:
            number = int(talk.head().split(b" ")[1][1:])
            chance = random.Random(seed + number)
            made = Made(chance)
            if number % 2:
                talk.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % number + bytes(number))
                continue
            data = _mangled(made.bytes, chance) if chance.random() < 0.5 else made.bytes[: chance.randrange(2_000)]
            for part in _cut(data, chance):
                talk.send(part)
            if chance.random() < 0.3:
                talk.reset()
            return

    async def all_rounds(url: str) -> None:
        async with native.opened(url) as upstream:
            for number in range(rounds):
                request = native.request()
                request = type(request)("GET", b"/%d" % number, request.headers, None)
                try:
                    async with asyncio.timeout(60):
                        answer = await native.answer(upstream, request)
                    body = answer.body
                except UpstreamError as error:
                    body = str(error).encode()
                assert number % 2 == 0 or body == bytes(number), number

    native.run(all_rounds(serve(script).url))
