"""Whether a client has gone, asked of the kernel, while nobody reads from its connection.

A reset is known at once. An orderly end is known once all before it has arrived, which a full window prevents; and it
means nothing where the rest of the request has arrived with it: whoever sends and ends is still to be served.
"""

import fcntl
import os
import select
import socket
import struct
import termios

_ENDED = getattr(select, "POLLRDHUP", 0)  # macOS has none: there, only a reset is known
_BROKEN = select.POLLHUP | select.POLLERR
_PEEK_BYTES_MAX = 256 << 10
_LAST_CHUNK = b"\r\n\r\n"


class ClientSocket:
    """A connected stream socket that somebody else owns.

    Args:
        fd: Its descriptor; open as long as this is asked.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._poll = select.poll()
        self._poll.register(fd, _ENDED)

    def gone(self, missing_bytes: int | None) -> bool:
        """Whether the request can never become whole.

        Args:
            missing_bytes: Of the request's body; None where only its chunks tell.
        """
        events = sum(event for _, event in self._poll.poll(0))
        if events & _BROKEN:
            return True
        if not events:
            return False
        waiting_bytes = int(struct.unpack("i", fcntl.ioctl(self._fd, termios.FIONREAD, bytes(4)))[0])
        if missing_bytes is not None:
            return waiting_bytes < missing_bytes
        # Too much to look at is taken for whole.
        return waiting_bytes <= _PEEK_BYTES_MAX and not self._peeked(waiting_bytes).endswith(_LAST_CHUNK)

    def _peeked(self, size: int) -> bytes:
        with socket.socket(fileno=os.dup(self._fd)) as duplicate:
            try:
                return duplicate.recv(size, socket.MSG_PEEK | socket.MSG_DONTWAIT) if size else b""
            except OSError:
                return b""
