"""What bounds the memory of an answer that is being read."""

import pytest

from infertap_sidecar.upstream.answer import HEAD_BYTES_MAX, AnswerReader
from infertap_sidecar.upstream.protocol import UpstreamError

PIECE = bytes(1 << 14).replace(b"\0", b"x")
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n"


@pytest.mark.parametrize(
    "start",
    [b"HTTP/1.1 200 ", b"HTTP/1.1 200 OK\r\nX: ", b"HTTP/1.1 200 OK\r\nX", CHUNKED + b"0\r\nX: ", CHUNKED + b"3;x="],
    ids=["reason", "value", "name", "trailer", "chunk extension"],
)
def test_a_line_without_end_is_given_up(start: bytes) -> None:
    """A server that never ends a line is refused once it has sent as much as whole heads may hold."""
    reader = AnswerReader(head_only=False)
    reader.feed(start)
    for _ in range(HEAD_BYTES_MAX // len(PIECE) - 1):
        reader.feed(PIECE)
    with pytest.raises(UpstreamError, match="without end"):
        reader.feed(PIECE * 2)


def test_a_long_body_of_small_chunks_is_no_line_without_end() -> None:
    """What is delivered starts the count anew, however much framing there is."""
    reader = AnswerReader(head_only=False)
    reader.feed(CHUNKED)
    for _ in range(100):
        reader.feed(b"1\r\nx\r\n" * 2_000)
        reader.pieces.clear()
    reader.feed(b"0\r\n\r\n")
    assert reader.complete
