"""How many bytes of requests the receiver holds at once before they are spans: a room for HTTP and one for gRPC."""

import threading
import time
from typing import NamedTuple


class Room:
    """Bytes that may be taken and are given back. Any thread."""

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self._taken = 0
        self._changed = threading.Condition()

    def take(self, size: int, wait_s_max: float = 0.0) -> bool:
        """Take `size` bytes, waiting for others to give theirs back; False where they are not to be had in time."""
        deadline_s = time.monotonic() + wait_s_max
        with self._changed:
            while self._taken + size > self.bytes_max:
                left_s = deadline_s - time.monotonic()
                if left_s <= 0:
                    return False
                self._changed.wait(left_s)
            self._taken += size
            return True

    def give_back(self, size: int) -> None:
        """Undo a `take`, whole or in part."""
        with self._changed:
            self._taken -= size
            self._changed.notify_all()

    @property
    def taken(self) -> int:
        """Bytes that are held now."""
        return self._taken


class Rooms(NamedTuple):
    """One for each transport, so that senders of the one cannot take what the other needs."""

    http: Room
    grpc: Room


def rooms(bytes_max: int, *, message_bytes_max: int, http: bool, grpc: bool) -> Rooms:
    """The rooms of a receiver that holds `bytes_max` in all.

    Args:
        message_bytes_max: Largest request. gRPC takes room for so much before it reads one, so its room holds as many
            of them as fit in a half (one at least, then a smaller one), and HTTP, which takes room as bytes arrive,
            has the rest.
        http: Whether HTTP is open; a transport that stands alone has all of it.
        grpc: Whether gRPC is.
    """
    if not (http and grpc):
        return Rooms(Room(bytes_max), Room(bytes_max))
    half = bytes_max // 2
    messages = max(half // message_bytes_max, 1)
    for_grpc = min(messages * message_bytes_max, half)
    return Rooms(Room(bytes_max - for_grpc), Room(for_grpc))
