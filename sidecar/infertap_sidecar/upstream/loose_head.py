"""The head of an answer as some old servers write it, made into one that can be read in one way only. No I/O.

1. Lines that end with LF alone (RFC 9112 section 2.2), and one length said several times (RFC 9110 section 8.6).
2. Everything else stays as it is, for the strict parser to refuse: lengths that differ, a bare CR, folded lines.
3. Only heads: chunks are never loose.
"""

import re

_BEGINNING = re.compile(rb"[\r\n]*(?=HTTP/1\.[01] )")
_END = re.compile(rb"\n\r?\n")
_INTERIM = re.compile(rb"HTTP/1\.[01] 1\d\d")


class LooseHead:
    """Takes bytes from the beginning of an answer, gives them back strict, up to the end of the final head."""

    def __init__(self) -> None:
        self.ended = False
        """The final head is out; what follows needs no care."""
        self._waiting = bytearray()
        self._searched_bytes = 0

    def feed(self, data: bytes) -> bytes:
        """What is whole of the heads, and all that follows the last one; b"" as long as nothing is."""
        self._waiting += data
        strict = b""
        while (end := _END.search(self._waiting, self._searched_bytes)) is not None:
            head = bytes(self._waiting[: end.end()])
            del self._waiting[: end.end()]
            self._searched_bytes = 0
            strict += _strict(head)
            if _INTERIM.match(head) is None:
                self.ended = True
                return strict + self._waiting
        self._searched_bytes = max(len(self._waiting) - 2, 0)
        return strict


def loose_head(begun: bytes) -> LooseHead | None:
    """None where this is no answer at all.

    Args:
        begun: What came, from the first byte on.
    """
    return LooseHead() if _BEGINNING.match(begun) else None


def _strict(head: bytes) -> bytes:
    lines = [line.removesuffix(b"\r") for line in head.lstrip(b"\r\n").split(b"\n")]
    named = [index for index, line in enumerate(lines) if line[:15].lower() == b"content-length:"]
    lengths = [length.strip(b" \t") for index in named for length in lines[index][15:].split(b",")]
    if len(lengths) > 1 and len(set(lengths)) == 1:
        lines[named[0]] = lines[named[0]][:15] + b" " + lengths[0]
        for index in reversed(named[1:]):
            del lines[index]
    return b"\r\n".join(lines)
