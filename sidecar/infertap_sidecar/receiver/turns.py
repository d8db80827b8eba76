"""Whose gRPC message may be read now: who keeps others waiting for its message loses its turn.

gRPC tells nobody how much of a message is there, so a call that sends nothing holds as much room as the largest one.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from infertap.clock import Clock
from infertap_sidecar.receiver.errors import BusyError
from infertap_sidecar.receiver.room import Room

WAIT_S_MAX = 5.0
"""Longest wait for a turn."""
PATIENCE_S_MAX = 1.0
"""Longest turn while others wait."""
_LOOK_S = 0.1


class Turns:
    """Turns to read a message of `size` bytes or less. Any thread.

    Args:
        room: What the bytes are taken from.
        size: Bytes that a turn takes; what the message does not need is given back when it is there.
    """

    def __init__(self, room: Room, size: int, clock: Clock) -> None:
        self._room = room
        self._size = size
        self._clock = clock
        self._reading: dict[object, tuple[float, Callable[[], None]]] = {}
        """In order of their beginning: since when, and how to end it."""
        self._lock = threading.Lock()

    @contextmanager
    def received(self, read: Callable[[], bytes], cancel: Callable[[], None]) -> Iterator[bytes]:
        """The message; its bytes count as long as this lasts.

        Args:
            read: Waits for it.
            cancel: Makes `read` raise; called from another thread where the message takes too long.

        Raises:
            BusyError: no turn in time.
        """
        self._wait()
        taken = self._size
        try:
            body = self._read(read, cancel)
            self._room.give_back(taken - len(body))
            taken = len(body)
            yield body
        finally:
            self._room.give_back(taken)

    def _wait(self) -> None:
        deadline_s = self._clock.monotonic_s() + WAIT_S_MAX
        while not self._room.take(self._size, _LOOK_S):
            if self._clock.monotonic_s() >= deadline_s:
                raise BusyError("too many bytes are being received at once")
            self._end_slowest()

    def _read(self, read: Callable[[], bytes], cancel: Callable[[], None]) -> bytes:
        turn = object()
        with self._lock:
            self._reading[turn] = (self._clock.monotonic_s(), cancel)
        try:
            return read()
        finally:
            with self._lock:
                self._reading.pop(turn, None)

    def _end_slowest(self) -> None:
        with self._lock:
            turn, (since_s, cancel) = next(iter(self._reading.items()), (None, (0.0, None)))
            if cancel is None or self._clock.monotonic_s() - since_s < PATIENCE_S_MAX:
                return
            del self._reading[turn]
        cancel()
