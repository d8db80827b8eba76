"""How many elements a body has, found before any object is made of it: two bytes on the wire may become hundreds.

1. What a body asks for in memory and time is bounded by `ELEMENTS_MAX`, whatever its size and compression.
2. Counting is bounded as well: it ends at the limit.
3. A text is one element, whatever is in it.
"""

import re
from collections.abc import Iterator
from typing import TypeAlias

from google.protobuf.descriptor import Descriptor  # type: ignore[import-untyped]
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from infertap_sidecar.receiver.errors import MalformedError, TooLargeError

ELEMENTS_MAX = 1_000_000
"""Per request: fields in protobuf; brackets, braces and commas in JSON. An attribute is about four in both."""
_FIELD_BYTES_MIN = 2
_VARINT_BYTES_MAX = 10
_JSON_TEXT = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)

_Fields: TypeAlias = "dict[int, _Fields]"
"""Numbers of a message's fields that are messages themselves, each with its own."""


def check_json(body: bytes) -> None:
    """Raises: TooLargeError."""
    if _brackets(body) <= ELEMENTS_MAX:
        return
    # Most of them may be inside of texts, such as prompts and embeddings.
    without, texts = _JSON_TEXT.subn(b"", body, ELEMENTS_MAX)
    if texts == ELEMENTS_MAX or _brackets(without) > ELEMENTS_MAX:
        raise _too_many()


def check_protobuf(body: bytes) -> None:
    """Walk over the fields of an ExportTraceServiceRequest.

    Raises:
        MalformedError: it is none.
        TooLargeError: too many.
    """
    if len(body) <= ELEMENTS_MAX * _FIELD_BYTES_MIN:
        return
    try:
        _walk(body)
    except IndexError:
        raise _malformed() from None


def fields_of(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Number and content of each field of a protobuf message that has a length: texts, bytes and messages.

    Raises:
        MalformedError: it is none.
    """
    position, end = 0, len(message)
    try:
        while position < end:
            tag, position = _varint(message, position)
            wire_type = tag & 7
            if wire_type == 2:
                length, position = _varint(message, position)
                if position + length > end:
                    raise _malformed()
                yield tag >> 3, message[position : position + length]
                position += length
            elif wire_type == 0:
                _, position = _varint(message, position)
            elif wire_type in (1, 5):
                position += _FIXED_BYTES[wire_type]
            else:
                raise _malformed()
    except IndexError:
        raise _malformed() from None
    if position != end:
        raise _malformed()


def _brackets(body: bytes) -> int:
    return body.count(b"{") + body.count(b"[") + body.count(b",")


def _walk(body: bytes) -> None:
    left = ELEMENTS_MAX
    position, end, fields = 0, len(body), _REQUEST
    around: list[tuple[int, _Fields]] = []
    while True:
        if position == end:
            if not around:
                return
            end, fields = around.pop()
            continue
        left -= 1
        if left < 0:
            raise _too_many()
        tag, position = _varint(body, position)
        wire_type = tag & 7
        if wire_type == 2:
            length, position = _varint(body, position)
            if position + length > end:
                raise _malformed()
            inner = fields.get(tag >> 3)
            if inner is None:
                position += length
            else:
                around.append((end, fields))
                end, fields = position + length, inner
        elif wire_type == 0:
            _, position = _varint(body, position)
        elif wire_type in _FIXED_BYTES:
            position += _FIXED_BYTES[wire_type]
        else:
            raise _malformed()
        if position > end:
            raise _malformed()


_FIXED_BYTES = {1: 8, 3: 0, 4: 0, 5: 4}
"""Bytes after the tag; groups (3 and 4) are unknown fields, and what is in them counts as if it were beside them."""


def _varint(body: bytes | memoryview, position: int) -> tuple[int, int]:
    byte = body[position]
    if byte < 0x80:
        return byte, position + 1
    value = byte & 0x7F
    for index in range(1, _VARINT_BYTES_MAX):
        byte = body[position + index]
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value, position + index + 1
    raise _malformed()


def _too_many() -> TooLargeError:
    return TooLargeError(f"the request has more than {ELEMENTS_MAX} elements; send smaller batches")


def _malformed() -> MalformedError:
    return MalformedError("the body is not an ExportTraceServiceRequest in protobuf")


def _fields_of(message: Descriptor, known: dict[str, _Fields]) -> _Fields:
    if message.full_name not in known:
        # Entered first: attribute values hold attribute values.
        fields = known[message.full_name] = {}
        for field in message.fields:
            if field.message_type is not None:
                fields[field.number] = _fields_of(field.message_type, known)
    return known[message.full_name]


_REQUEST = _fields_of(ExportTraceServiceRequest.DESCRIPTOR, {})
