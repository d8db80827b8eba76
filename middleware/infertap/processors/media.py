"""Media types: what a body says it is, and how it is to be read."""

import re
from enum import Enum
from functools import lru_cache
from typing import NamedTuple

_PARAMETER = re.compile(r';\s*([^=;\s]+)\s*=\s*("(?:[^"\\]|\\.)*"|[^;\s]*)')
_TEXT_TYPES = frozenset(
    {
        "application/xml", "application/javascript", "application/yaml", "application/x-yaml", "application/graphql",
        "application/sql", "application/toml", "application/xhtml+xml",
    }
)  # fmt: skip
_NDJSON_TYPES = frozenset({"application/x-ndjson", "application/ndjson", "application/jsonl", "application/x-jsonlines",
                           "application/json-lines", "application/jsonlines", "application/json-seq"})  # fmt: skip
_DELIMITED_TYPES = frozenset({"text/csv", "application/csv", "text/tab-separated-values"})
_REMEMBERED_MAX = 256
_REMEMBERED_CHARACTERS_MAX = 256


class Kind(Enum):
    """How a body is read."""

    JSON = "json"
    NDJSON = "ndjson"
    EVENT_STREAM = "event stream"
    FORM = "form"
    DELIMITED = "delimited"
    MULTIPART = "multipart"
    TEXT = "text"
    UNKNOWN = "unknown"
    BINARY = "binary"


class MediaType(NamedTuple):
    """A content type taken apart. `name` is lower-case, without parameters; None where there was no header."""

    name: str | None
    charset: str | None
    boundary: str | None
    kind: Kind
    """How a body of this type is read; without a type it is UNKNOWN until its bytes are looked at."""

    @property
    def streams(self) -> bool:
        """Whether an answer of this type is a stream by its nature."""
        return self.kind in (Kind.EVENT_STREAM, Kind.NDJSON)


def parse_media_type(header: str | None) -> MediaType:
    """Take a `Content-Type` value apart; a malformed one loses its parameters, not its name."""
    if header is None:
        return _NONE
    return _parsed(header) if len(header) <= _REMEMBERED_CHARACTERS_MAX else _parsed.__wrapped__(header)


_NONE = MediaType(None, None, None, Kind.UNKNOWN)


@lru_cache(_REMEMBERED_MAX)
def _parsed(header: str) -> MediaType:
    if not header.strip():
        return _NONE
    name = header.partition(";")[0].strip().lower()
    parameters = {name.lower(): value.strip('"') for name, value in _PARAMETER.findall(header)}
    return MediaType(name, parameters.get("charset"), parameters.get("boundary"), _kind_of(name))


def _kind_of(name: str) -> Kind:
    if name == "application/json" or name.endswith("+json"):
        return Kind.JSON
    if name == "text/event-stream":
        return Kind.EVENT_STREAM
    if name in _NDJSON_TYPES:
        return Kind.NDJSON
    if name == "application/x-www-form-urlencoded":
        return Kind.FORM
    if name in _DELIMITED_TYPES:
        return Kind.DELIMITED
    if name == "multipart/form-data":
        return Kind.MULTIPART
    if name.startswith("text/") or name in _TEXT_TYPES or name.endswith("+xml"):
        return Kind.TEXT
    return Kind.BINARY
