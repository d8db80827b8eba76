"""Pipelines that no lifespan starts or ends: one for the same settings, however many middlewares ask for it.

A framework may wrap each of its routes in a middleware of its own, and then none of them sees a lifespan event. What a
lifespan has started is never shared: it ends with its app.
"""

import os
import threading

from infertap.build import prepare_or_idle, start
from infertap.choice import Choice
from infertap.config import Config
from infertap.pipeline import Idle, Pipeline


class _Running:
    """What was started in this process. A forked child has its parent's list, and none of its threads."""

    def __init__(self) -> None:
        self.forget()
        os.register_at_fork(after_in_child=self.forget)

    def forget(self) -> None:
        self._lock = threading.Lock()
        self._known: list[tuple[Config, Choice, Pipeline]] = []

    def start(self, settings: Config, pipeline: Pipeline) -> Pipeline | Idle:
        with self._lock:
            self._known = [known for known in self._known if known[2].alive]
            for known_settings, choice, known in self._known:
                if (known_settings, choice) == (settings, pipeline.choice):
                    return known
            started = start(pipeline)
            if isinstance(started, Pipeline):
                self._known.append((settings, started.choice, started))
            return started


_running = _Running()


def start_or_share(config: Config | None) -> Pipeline | Idle:
    """The pipeline of this process for these settings, started; an `Idle` that has said why where there is none."""
    recorder = prepare_or_idle(config)
    if isinstance(recorder, Pipeline):
        return _running.start(config or Config(), recorder)
    return start(recorder)
