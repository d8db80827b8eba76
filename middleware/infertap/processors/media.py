"""Media types: what a body says it is, and how it is to be read."""

import re
from enum import Enum
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


class Kind(Enum):
    """How a body is read."""

    JSON = "json"
    NDJSON = "ndjson"
    EVENT_STREAM = "event stream"
    FORM = "form"
    MULTIPART = "multipart"
    TEXT = "text"
    UNKNOWN = "unknown"
    BINARY = "binary"


class MediaType(NamedTuple):
    """A content type taken apart. `name` is lower-case, without parameters; None where there was no header."""

    name: str | None
    charset: str | None
    boundary: str | None

    @property
    def kind(self) -> Kind:
        """How a body of this type is read; without a type it is UNKNOWN until its bytes are looked at."""
        name = self.name
        if name is None:
            return Kind.UNKNOWN
        if name == "application/json" or name.endswith("+json"):
            return Kind.JSON
        if name == "text/event-stream":
            return Kind.EVENT_STREAM
        if name in _NDJSON_TYPES:
            return Kind.NDJSON
        if name == "application/x-www-form-urlencoded":
            return Kind.FORM
        if name == "multipart/form-data":
            return Kind.MULTIPART
        if name.startswith("text/") or name in _TEXT_TYPES or name.endswith("+xml"):
            return Kind.TEXT
        return Kind.BINARY

    @property
    def streams(self) -> bool:
        """Whether an answer of this type is a stream by its nature."""
        return self.kind in (Kind.EVENT_STREAM, Kind.NDJSON)


def parse_media_type(header: str | None) -> MediaType:
    """Take a `Content-Type` value apart; a malformed one loses its parameters, not its name."""
    if header is None or not header.strip():
        return MediaType(None, None, None)
    parameters = {name.lower(): value.strip('"') for name, value in _PARAMETER.findall(header)}
    return MediaType(header.partition(";")[0].strip().lower(), parameters.get("charset"), parameters.get("boundary"))
