"""The server of `lag.py`: one FastAPI app under uvicorn, bare or recorded, and a timer that sees how late its loop is.

Usage: `python lag_server.py CORE ANSWER_BYTES [TABLES]`. It prints its port as a JSON line. On its standard input,
`start` begins a slice, `stop` ends it and prints what was seen as one JSON line, `kept` prints how many requests have
been spooled (null while some wait in memory); the end of input stops the server.
"""

import asyncio
import ctypes
import json
import os
import socket
import struct
import sys
import time
from typing import Any

import uvicorn
from fastapi import FastAPI
from measure import take_core
from pydantic import BaseModel
from worker import chat_body

from infertap import Config, InferenceMiddleware
from infertap.spool.page import KEPT

TIMER_NS = 2_500_000
COMMIT_INTERVAL_S = 2.0
"""Shorter than the default of 10 s, so that every slice holds some commits."""


class Message(BaseModel):
    role: str
    content: str


class Chat(BaseModel):
    model: str
    messages: list[Message]
    max_tokens: int
    temperature: float


def chat_app(answer_bytes: int) -> FastAPI:
    app = FastAPI()
    text = json.loads(chat_body(answer_bytes))["messages"]

    @app.post("/v1/chat/completions")
    async def chat(asked: Chat) -> dict[str, Any]:
        choices = [{"index": index, "message": message, "finish_reason": "stop"} for index, message in enumerate(text)]
        return {"object": "chat.completion", "model": asked.model, "choices": choices}

    return app


class LagTimer:
    """A timerfd in the event loop. uvloop's own timers count in whole milliseconds: too coarse for this question."""

    def __init__(self) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._settime = libc.timerfd_settime
        self._fd = libc.timerfd_create(time.CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0:
            raise SystemExit("this benchmark needs Linux's timerfd")
        self._due_ns = 0
        self.late_ns: list[int] = []

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        self.late_ns = []
        self._due_ns = time.monotonic_ns() + TIMER_NS
        self._set(TIMER_NS, self._due_ns)
        loop.add_reader(self._fd, self._fired)

    def stop(self, loop: asyncio.AbstractEventLoop) -> None:
        loop.remove_reader(self._fd)
        self._set(0, 0)

    def _set(self, interval_ns: int, first_ns: int) -> None:
        absolute = 1
        spec = struct.pack("qqqq", 0, interval_ns, *divmod(first_ns, 10**9))
        self._settime(self._fd, absolute, spec, None)

    def _fired(self) -> None:
        (expired,) = struct.unpack("Q", os.read(self._fd, 8))
        now_ns = time.monotonic_ns()
        # A loop that comes late for several at once was late for each of them.
        for _ in range(expired):
            self.late_ns.append(now_ns - self._due_ns)
            self._due_ns += TIMER_NS


class Control:
    """The orders on standard input, read by the event loop itself."""

    def __init__(self, server: uvicorn.Server, app: Any, timer: LagTimer) -> None:
        self._server = server
        self._app = app
        self._timer = timer
        self._loop = asyncio.get_running_loop()
        self._cpu_ns = self._loop_cpu_ns = 0
        self._loop.add_reader(0, self._order)

    def _order(self) -> None:
        match os.read(0, 64).strip():
            case b"start":
                self._cpu_ns, self._loop_cpu_ns = time.process_time_ns(), time.thread_time_ns()
                self._timer.start(self._loop)
            case b"stop":
                self._timer.stop(self._loop)
                answer(
                    late_ns=self._timer.late_ns,
                    cpu_ns=time.process_time_ns() - self._cpu_ns,
                    loop_cpu_ns=time.thread_time_ns() - self._loop_cpu_ns,
                )
            case b"kept":
                pipeline = self._app.pipeline
                answer(kept=None if pipeline.budget.held else pipeline.worker.writer.totals()[KEPT])
            case _:
                self._loop.remove_reader(0)
                self._server.should_exit = True


def answer(**facts: Any) -> None:
    print(json.dumps(facts), flush=True)


async def serve(app: Any) -> None:
    listener = socket.create_server(("127.0.0.1", 0), backlog=512)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=1))
    control = Control(server, app, LagTimer())
    answer(port=listener.getsockname()[1])
    await server.serve(sockets=[listener])
    del control


def main(core: str, answer_bytes: str, tables: str = "") -> None:
    take_core(int(core))
    app: Any = chat_app(int(answer_bytes))
    if tables:
        app = InferenceMiddleware(app, config=Config(tables=tables, commit_interval_s=COMMIT_INTERVAL_S))
    try:
        import uvloop
    except ImportError:
        asyncio.run(serve(app))
    else:
        uvloop.run(serve(app))


if __name__ == "__main__":
    main(*sys.argv[1:])
