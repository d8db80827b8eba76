"""The client of `lag.py`: constant rate, whatever the server does; a request's time counts from when it was due.

Usage: `python lag_client.py CORE PORT BODY_BYTES RATE_PER_S DURATION_S`. It says `ready`, begins at a line on its
standard input, and prints all latencies (ns) as one JSON line.
"""

import json
import select
import socket
import sys
import time

from measure import take_core
from worker import chat_body

_DRAIN_S = 10.0
_CONNECTIONS_MAX = 500
"""Below the limit of select(2). Where all are busy, a request is sent late, and its time still counts from `due_ns`."""


class Connection:
    """A keep-alive connection with at most one request on its way."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._received = b""
        self._length = -1
        self.due_ns = 0

    def send(self, request: bytes, due_ns: int) -> None:
        self.due_ns, self._received, self._length = due_ns, b"", -1
        self.socket.sendall(request)

    def answered(self) -> bool:
        """Takes what has come; whether that completes the answer."""
        data = self.socket.recv(1 << 18)
        if not data:
            raise SystemExit("the server closed a connection")
        self._received += data
        if self._length < 0:
            head, separator, _ = self._received.partition(b"\r\n\r\n")
            if not separator:
                return False
            if not head.startswith(b"HTTP/1.1 200"):
                raise SystemExit(f"the server answered {head[:60]!r}")
            length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            self._length = len(head) + 4 + int(length.partition(b":")[2])
        return len(self._received) >= self._length


def run(port: int, request: bytes, rate_per_s: float, duration_s: float) -> list[int]:
    idle: list[Connection] = []
    busy: dict[socket.socket, Connection] = {}
    latencies: list[int] = []
    interval_ns, total = 1e9 / rate_per_s, int(rate_per_s * duration_s)
    began_ns, sent = time.monotonic_ns(), 0
    end_ns = began_ns + int((duration_s + _DRAIN_S) * 1e9)
    while sent < total or busy:
        now_ns = time.monotonic_ns()
        if now_ns > end_ns:
            raise SystemExit("the server does not keep up with this rate")
        while sent < total and len(busy) < _CONNECTIONS_MAX:
            due_ns = began_ns + int(sent * interval_ns)
            if due_ns > now_ns:
                break
            connection = idle.pop() if idle else Connection(port)
            connection.send(request, due_ns)
            busy[connection.socket] = connection
            sent += 1
        more = sent < total and len(busy) < _CONNECTIONS_MAX
        wait_s = max(0.0, (began_ns + sent * interval_ns - time.monotonic_ns()) / 1e9) if more else 1.0
        # select(2) waits in microseconds; epoll's milliseconds would send in bursts.
        for ready in select.select(list(busy), [], [], wait_s)[0]:
            if busy[ready].answered():
                connection = busy.pop(ready)
                latencies.append(time.monotonic_ns() - connection.due_ns)
                idle.append(connection)
    return latencies


def main(core: str, port: str, body_bytes: str, rate_per_s: str, duration_s: str) -> None:
    take_core(int(core))
    body = chat_body(int(body_bytes))
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nuser-agent: lag\r\naccept: */*\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    print("ready", flush=True)
    sys.stdin.readline()
    print(json.dumps(run(int(port), head.encode() + body, float(rate_per_s), float(duration_s))))


if __name__ == "__main__":
    main(*sys.argv[1:])
