"""Ends an exchange when its client has left, and drops what the upstream did not want of the client's body."""

import asyncio
from collections.abc import Callable

from infertap.asgi_types import Receive

BEGIN_S = 0.05
"""Answers that come sooner are not watched: a task for each would cost as much as half of the forwarding."""

LOOK_S = 0.2
"""How often the kernel is asked about a client whose body is still being sent: nobody reads from it while the upstream
takes nothing."""


class ClientWatch:
    """Cancels the task that made it, once the client is gone. For use within one task, until `stop`.

    Args:
        receive: The exchange's; read only once `body_done` is set.
        body_done: Nobody else will read the client's body any more.
        gone: Whether the client is gone though nobody reads from it; `receive` says so, too, then.
    """

    def __init__(self, receive: Receive, body_done: asyncio.Event, gone: Callable[[], bool]) -> None:
        self._receive = receive
        self._gone = gone
        self._body_done = body_done
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._cancelling = task.cancelling()
        self._left = False
        self._watcher: asyncio.Task[None] | None = None
        self._start = asyncio.get_running_loop().call_later(BEGIN_S, self._begin)

    def client_left(self) -> bool:
        """Whether the cancellation under way is ours alone. To be asked once, while it is handled."""
        return self._left and self._task.uncancel() <= self._cancelling

    def stop(self) -> None:
        """Watch no more."""
        self._start.cancel()
        if self._watcher is not None:
            self._watcher.cancel()

    def _begin(self) -> None:
        self._watcher = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        while not self._body_done.is_set() and not self._gone():
            await self._look_later()
        # What is left of a body that the upstream did not want is dropped, or the client might never read the answer.
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._left = True
        self._task.cancel()

    async def _look_later(self) -> None:
        try:
            async with asyncio.timeout(LOOK_S):
                await self._body_done.wait()
        except TimeoutError:
            pass
