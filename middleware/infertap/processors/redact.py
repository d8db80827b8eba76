"""Redact one body: by name where it is structured, by pattern where it is not; what cannot be read is not kept.

1. A document in which nothing is redacted keeps its exact text, unless that text may hide a repeated key.
2. Anything that raises here withholds the body (the caller's `RedactionError`), never stores it raw.
"""

import json
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote_plus

import orjson

from infertap.processors.media import Kind
from infertap.processors.multipart import redact_multipart
from infertap.processors.secret_names import MARK, SecretNames, redact_text

_KEY_WITH_SPACE = re.compile(r'"\s+:')
_COMPACT_CHARACTERS_MAX = 64 << 10
_URL_HEADERS = frozenset({"content-location", "location", "origin", "referer"})
_FIELDS_REMEMBERED_MAX = 4096
_FIELD_CHARACTERS_MAX = 256
_NESTED_DEPTH_MAX = 2
"""JSON inside a JSON string (tool-call arguments) is opened this often."""


class Redactor:
    """Redacts texts by the given names. One per worker thread; remembers short header values, in memory."""

    __slots__ = ("_fields", "_names")

    def __init__(self, names: SecretNames) -> None:
        self._names = names
        self._fields: dict[tuple[str, str], str] = {}

    def body(self, text: str, kind: Kind, *, boundary: str | None = None) -> tuple[str, int]:
        """The redacted text and the number of redacted values.

        Raises:
            ValueError: multipart without a usable boundary.
            RecursionError: a document nested too deeply to be read.
        """
        if kind is Kind.JSON:
            return self.json(text)
        if kind is Kind.EVENT_STREAM:
            return self._event_stream(text)
        if kind is Kind.NDJSON:
            return self._lines(text)
        if kind is Kind.FORM:
            return self.query(text)
        if kind is Kind.MULTIPART:
            return redact_multipart(text, boundary, self._names, self._any)
        return self._any(text)

    def json(self, text: str, depth: int = 0) -> tuple[str, int]:
        """A JSON document; text that is none, although it says so, is redacted by pattern."""
        if not text or text.isspace():
            return text, 0
        try:
            document = orjson.loads(text)
            dump: Callable[[Any], str] = _dump
        except orjson.JSONDecodeError:
            try:
                # Accepts NaN and lone surrogates, which Python clients do send.
                document = json.loads(text.removeprefix("\ufeff"))
                dump = json.dumps
            except ValueError:
                return redact_text(text)
        if isinstance(document, str):
            document = [document]
            redacted, keys = self._walk(document, depth)
            return (dump(document[0]), redacted) if redacted else (text, 0)
        redacted, keys = self._walk(document, depth)
        # Most clients write compact JSON, and that it comes out the same is the quickest proof.
        compact = redacted == 0 and dump is _dump and len(text) < _COMPACT_CHARACTERS_MAX and _dump(document) == text
        if redacted == 0 and (compact or _says_each_key_once(text, keys)):
            return text, 0
        return dump(document), redacted

    def _walk(self, root: Any, depth: int) -> tuple[int, int]:
        """Redact in place. Returns (values redacted, keys seen)."""
        redacted = keys = 0
        secret = self._names.in_json
        stack = [root]
        while stack:
            node = stack.pop()
            if type(node) is dict:
                keys += len(node)
                for key, value in node.items():
                    if secret(key) and not _harmless(key, value, node):
                        node[key] = MARK
                        redacted += 1
                    elif type(value) is dict or type(value) is list:
                        stack.append(value)
                    elif type(value) is str and value[:1] in ("{", "[") and depth < _NESTED_DEPTH_MAX:
                        node[key], hits = self.json(value, depth + 1)
                        redacted += hits
            elif type(node) is list:
                for index, value in enumerate(node):
                    if type(value) is dict or type(value) is list:
                        stack.append(value)
                    elif type(value) is str and value[:1] in ("{", "[") and depth < _NESTED_DEPTH_MAX:
                        node[index], hits = self.json(value, depth + 1)
                        redacted += hits
        return redacted, keys

    def _any(self, text: str) -> tuple[str, int]:
        """Text of unknown structure: JSON where it looks so, patterns otherwise."""
        return self.json(text) if text.lstrip()[:1] in ("{", "[") else redact_text(text)

    def _lines(self, text: str) -> tuple[str, int]:
        count = 0
        lines = text.split("\n")
        for index, line in enumerate(lines):
            lines[index], hits = self._any(line)
            count += hits
        return "\n".join(lines), count

    def _event_stream(self, text: str) -> tuple[str, int]:
        """Server-sent events, one by one: the `data` lines of an event are one document."""
        count = 0
        out: list[str] = []
        data: list[str] = []

        def end_event() -> None:
            nonlocal count
            if data:
                document, hits = self._any("\n".join(data))
                count += hits
                out.extend(f"data: {line}" for line in document.split("\n")) if hits else out.extend(raw)
                data.clear()
                raw.clear()

        raw: list[str] = []
        for line in text.replace("\r\n", "\n").split("\n") if "\r" in text else text.split("\n"):
            if line.startswith("data:"):
                data.append(line[5:].removeprefix(" "))
                raw.append(line)
                continue
            end_event()
            if line and not line.startswith(("event:", "id:", "retry:")):
                line, hits = redact_text(line)
                count += hits
            out.append(line)
        end_event()
        return "\n".join(out), count

    def query(self, text: str) -> tuple[str, int]:
        """A query string or a form: `name=value` pairs joined by `&`."""
        count = 0
        pairs = text.split("&")
        for index, pair in enumerate(pairs):
            name, equals, value = pair.partition("=")
            if not equals or not value:
                continue
            if self._names.in_fields(unquote_plus(name)):
                pairs[index] = f"{name}={MARK}"
                count += 1
                continue
            shown, hits = self._any(unquote_plus(value))
            if hits:
                pairs[index] = f"{name}={shown}"
                count += hits
        return "&".join(pairs), count

    def url(self, text: str) -> str:
        """A URL in a header: its user information and its query."""
        head, mark, query = text.partition("?")
        head = redact_text(head)[0]
        return f"{head}{mark}{self.query(query)[0]}" if mark else head

    def field(self, name: str, value: str) -> str:
        """A header's value, by the header's name. Answers are remembered, because headers repeat themselves."""
        if self._names.in_fields(name):
            return MARK
        shown = self._fields.get((name, value))
        if shown is None:
            shown = self.url(value) if name in _URL_HEADERS else redact_text(value)[0]
            if len(self._fields) >= _FIELDS_REMEMBERED_MAX:
                self._fields.clear()
            if len(value) <= _FIELD_CHARACTERS_MAX:
                self._fields[name, value] = shown
        return shown

    def attribute(self, name: str, value: Any) -> tuple[Any, int]:
        """An attribute or a tag, by its name, then by its content. Types other than text pass as they are."""
        if self._names.in_json(name.rpartition(".")[2]):
            return MARK, 1
        if isinstance(value, str):
            return self._any(value)
        if isinstance(value, (list, tuple)):
            shown = [self.attribute("", item) for item in value]
            return [item for item, _ in shown], sum(hits for _, hits in shown)
        return value, 0


def _harmless(key: str, value: Any, node: dict[str, Any]) -> bool:
    """Nothing is there to hide, or it is a language model's token and not a caller's."""
    if value is None or value == "" or value == MARK:
        return True
    if len(key) == 5 and key.lower() == "token":
        return not isinstance(value, str) or "logprob" in node
    return isinstance(value, bool)


def _says_each_key_once(text: str, keys: int) -> bool:
    """Whether the text holds exactly the keys that were seen: a parser keeps only the last of two equal ones."""
    if text.count('":') - text.count('\\":') != keys:
        return False
    return _KEY_WITH_SPACE.search(text) is None


def _dump(document: Any) -> str:
    return orjson.dumps(document).decode()
