"""How many bytes of requests the receiver holds at once, over HTTP and gRPC together, before they are spans."""

import threading
import time


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
