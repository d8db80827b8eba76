"""Pipelines that no lifespan starts or ends: one for the same settings, however many middlewares ask for it.

1. A framework may wrap each of its routes in a middleware of its own, and then none of them sees a lifespan event.
2. What a lifespan has started is never shared: it ends with its app.
3. Where one middleware's pipeline is stopped, the others that share it begin anew with their next request.
"""

import os
import threading
from collections.abc import Callable

from infertap.build import prepare_or_idle, start
from infertap.choice import Choice
from infertap.config import Config
from infertap.pipeline import Idle, Pipeline

LetGo = Callable[[Pipeline], None]


class _Running:
    """What was started in this process. A forked child has its parent's list, and none of its threads."""

    def __init__(self) -> None:
        self.forget()
        os.register_at_fork(after_in_child=self.forget)

    def forget(self) -> None:
        self._lock = threading.Lock()
        self._known: list[tuple[Config, Choice, Pipeline]] = []

    def start(self, settings: Config, pipeline: Pipeline, let_go: LetGo) -> Pipeline | Idle:
        with self._lock:
            self._known = [known for known in self._known if known[2].alive]
            for known_settings, choice, known in self._known:
                if (known_settings, choice) == (settings, pipeline.choice) and known.hold(let_go):
                    return known
            started = start(pipeline)
            if isinstance(started, Pipeline):
                started.hold(let_go)
                self._known.append((settings, started.choice, started))
            return started


_running = _Running()


def start_or_share(config: Config | None, let_go: LetGo) -> Pipeline | Idle:
    """The pipeline of this process for these settings, started; an `Idle` that has said why where there is none.

    Args:
        let_go: Called with the pipeline when it stops: it records nothing from then on.
    """
    recorder = prepare_or_idle(config)
    if isinstance(recorder, Pipeline):
        return _running.start(config or Config(), recorder, let_go)
    return start(recorder)
