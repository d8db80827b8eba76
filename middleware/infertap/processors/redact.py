"""Redact one body: by name where it is structured, by pattern where it is not; what cannot be read is not kept.

1. A document in which nothing is redacted keeps its exact text, unless that text may hide a repeated key.
2. Anything that raises here withholds the body (the caller's `RedactionError`), never stores it raw.
"""

import json
import re
from collections.abc import Callable, Iterable
from typing import Any, TypeVar
from urllib.parse import unquote_plus

import orjson

from infertap.processors.media import Kind
from infertap.processors.multipart import redact_multipart
from infertap.processors.named_values import redact_named_values
from infertap.processors.secret_names import MARK, SecretNames, redact_text

K = TypeVar("K")

_KEY_WITH_SPACE = re.compile(r'"\s+:')
_COMPACT_CHARACTERS_MAX = 64 << 10
_URL_HEADERS = frozenset({"content-location", "location", "origin", "referer"})
_REMEMBERED_MAX = 4096
_REMEMBERED_CHARACTERS_MAX = 256
_LONG_INTEGER = re.compile(r"\d{19}")
_LINE_END = re.compile(r"\r\n|\r|\n")
_BLANK = " \t\r\n\ufeff"
_MAY_BEGIN_JSON = frozenset("{[" + _BLANK)
_CONTENT = frozenset({str, dict, list})
_NESTED_DEPTH_MAX = 4
"""JSON inside a JSON string (tool-call arguments) is opened this often; what is deeper is redacted as text."""


class Redactor:
    """Redacts texts by the given names. One per worker thread; remembers short headers and queries, in memory."""

    __slots__ = ("_fields", "_names", "_queries")

    def __init__(self, names: SecretNames) -> None:
        self._names = names
        self._fields: dict[tuple[str, str], str] = {}
        self._queries: dict[str, str] = {}

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
            return self.form(text)
        if kind is Kind.MULTIPART:
            return redact_multipart(text, boundary, self._names, self._value)
        return self._any(text)

    def text(self, text: str) -> tuple[str, int]:
        """Text of no structure that we read: by name where a name stands before a value, then by pattern."""
        text, named = redact_named_values(text, self._names.in_json)
        text, hits = redact_text(text)
        return text, named + hits

    def json(self, text: str, depth: int = 0) -> tuple[str, int]:
        """A JSON document; text that is none, although it says so, is redacted as such."""
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
                return self.text(text)
        if isinstance(document, str) and not _looks_like_json(document):
            shown, redacted = self.text(document)
            return (dump(shown), redacted) if redacted else (text, 0)
        root = [document]
        redacted, keys = self._walk(root, depth)
        # Most clients write compact JSON, and that it comes out the same is the quickest proof.
        compact = redacted == 0 and dump is _dump and len(text) < _COMPACT_CHARACTERS_MAX and _dump(root[0]) == text
        if redacted == 0 and (compact or _says_each_key_once(text, keys)):
            return text, 0
        if dump is _dump and _LONG_INTEGER.search(text) is not None:
            # orjson has read integers over 64 bits as floats; what is not secret must stay as it was.
            root = [json.loads(text)]
            redacted, _ = self._walk(root, depth)
            dump = json.dumps
        return dump(root[0]), redacted

    def _walk(self, root: list[Any], depth: int) -> tuple[int, int]:
        """Redact in place. Returns (values redacted, keys seen; -1 where a document inside a string was rewritten)."""
        redacted = keys = 0
        rewritten = False
        secret = self._names.in_json
        # A list that is appended to while it is walked: no recursion, and no order to keep.
        nodes: list[Any] = [root]
        for node in nodes:
            if type(node) is dict:
                keys += len(node)
                for key in node:
                    if secret(key) and not _harmless(key, node[key], node):
                        node[key] = MARK
                        redacted += 1
                items: Iterable[tuple[Any, Any]] = node.items()
            elif _CONTENT.isdisjoint(map(type, node)):
                continue  # an embedding, a row of features: numbers only
            else:
                items = enumerate(node)
            for key, value in items:
                kind = type(value)
                if kind is str:
                    if value[:1] in _MAY_BEGIN_JSON and _looks_like_json(value):
                        shown, hits = self._nested(value, depth)
                        redacted += hits
                        rewritten = rewritten or shown != value
                        node[key] = shown
                elif kind is dict or kind is list:
                    nodes.append(value)
        return redacted, -1 if rewritten else keys

    def _nested(self, text: str, depth: int) -> tuple[str, int]:
        """A string inside a JSON document that looks like one itself."""
        if depth >= _NESTED_DEPTH_MAX:
            return self.text(text)
        try:
            return self.json(text, depth + 1)
        except RecursionError:
            return MARK, 1

    def _any(self, text: str) -> tuple[str, int]:
        """Text of unknown structure: JSON where it looks so."""
        return self.json(text) if _looks_like_json(text) else self.text(text)

    def _value(self, text: str) -> tuple[str, int]:
        """As `_any`, for one value among others: what cannot be read goes alone, and not all the rest with it."""
        try:
            return self._any(text)
        except RecursionError:
            return MARK, 1

    def _lines(self, text: str) -> tuple[str, int]:
        count = 0
        lines = text.split("\n")
        for index, line in enumerate(lines):
            record = line.removeprefix("\x1e")  # application/json-seq
            shown, hits = self._any(record)
            count += hits
            if shown != record:
                lines[index] = f"{line[: len(line) - len(record)]}{shown}"
        return "\n".join(lines), count

    def _event_stream(self, text: str) -> tuple[str, int]:
        """Server-sent events, one by one; where nothing is redacted the text stays, line ends and all."""
        stream = text.removeprefix("\ufeff")
        lines = _LINE_END.split(stream) if "\r" in stream else stream.split("\n")
        out: list[str] = []
        count = start = 0
        rewritten = False
        for index, line in enumerate([*lines, ""]):
            if not line:
                event = lines[start:index]
                shown, hits = self._event(event)
                count += hits
                rewritten = rewritten or shown != event
                out += [*shown, ""]
                start = index + 1
        out.pop()
        return ("\n".join(out), count) if rewritten else (text, 0)

    def _event(self, lines: list[str]) -> tuple[list[str], int]:
        """One event: its `data` lines are one document, wherever other fields stand between them."""
        count = 0
        data: list[str] = []
        shown: list[str] = []
        first = 0
        for line in lines:
            if line.startswith("data:"):
                first = first if data else len(shown)
                data.append(line[5:].removeprefix(" "))
            elif line.startswith(("event:", "retry:")):
                shown.append(line)
            else:
                other, hits = redact_text(line)
                count += hits
                shown.append(other)
        if not data:
            return shown, count
        document = "\n".join(data)
        kept, hits = self._any(document)
        if kept == document and count == 0:
            return lines, 0
        shown[first:first] = [f"data: {line}" for line in kept.split("\n")]
        return shown, count + hits

    def query(self, text: str) -> str:
        """A URL's query string. Answers are remembered, because queries repeat themselves."""
        if not text:
            return text
        shown = self._queries.get(text)
        if shown is None:
            shown = self.form(text)[0]
            _remember(self._queries, text, shown, characters=len(text))
        return shown

    def form(self, text: str) -> tuple[str, int]:
        """`name=value` pairs joined by `&`."""
        count = 0
        pairs = text.split("&")
        for index, pair in enumerate(pairs):
            name, equals, value = pair.partition("=")
            if not equals:
                name, value = "", pair
            if not value:
                continue
            if name and self._names.in_fields(unquote_plus(name)):
                pairs[index] = f"{name}={MARK}"
                count += 1
                continue
            plain = unquote_plus(value)
            shown, hits = self._value(plain)
            if shown != plain:
                pairs[index] = f"{name}{equals}{shown}"
                count += hits
        return "&".join(pairs), count

    def url(self, text: str) -> str:
        """A URL in a header: its user information and its query."""
        head, mark, query = text.partition("?")
        head = redact_text(head)[0]
        return f"{head}{mark}{self.query(query)}" if mark else head

    def field(self, name: str, value: str) -> str:
        """A header's value, by the header's name. Answers are remembered, because headers repeat themselves."""
        shown = self._fields.get((name, value))
        if shown is None:
            if self._names.in_fields(name):
                return MARK
            shown = self.url(value) if name in _URL_HEADERS else redact_text(value)[0]
            _remember(self._fields, (name, value), shown, characters=len(value))
        return shown

    def attribute(self, name: str, value: Any) -> tuple[Any, int]:
        """An attribute or a tag, by its name, then by its content. Types other than text pass as they are."""
        if self._names.in_attributes(name):
            return MARK, 1
        if isinstance(value, str):
            return self._value(value)
        if isinstance(value, (list, tuple)):
            shown = [self.attribute("", item) for item in value]
            return [item for item, _ in shown], sum(hits for _, hits in shown)
        if isinstance(value, dict):
            by_name = {key: self.attribute(key, item) for key, item in value.items()}
            return {key: item for key, (item, _) in by_name.items()}, sum(hits for _, hits in by_name.values())
        return value, 0


def _remember(answers: dict[K, str], question: K, answer: str, *, characters: int) -> None:
    if len(answers) >= _REMEMBERED_MAX:
        answers.clear()
    if characters <= _REMEMBERED_CHARACTERS_MAX:
        answers[question] = answer


def _harmless(key: str, value: Any, node: dict[str, Any]) -> bool:
    """Nothing is there to hide, or it is a language model's token and not a caller's."""
    if value is None or value == "" or value == MARK:
        return True
    if len(key) == 5 and key.lower() == "token":
        return "logprob" in node or not _holds_text(value)
    return isinstance(value, bool)


def _holds_text(value: Any) -> bool:
    """Whether there is text in a value, as in a secret; a language model's token may be a number or a list of them."""
    if isinstance(value, dict):
        return not {"id", "text"} <= value.keys()  # TGI streams its tokens as such objects
    return isinstance(value, str) or (isinstance(value, list) and any(_holds_text(item) for item in value))


def _looks_like_json(text: str) -> bool:
    first = text[:1]
    if first in _BLANK:
        first = text.lstrip(_BLANK)[:1]
    return first == "{" or first == "["


def _says_each_key_once(text: str, keys: int) -> bool:
    """Whether the text holds exactly the keys that were seen: a parser keeps only the last of two equal ones."""
    if text.count('":') - text.count('\\":') != keys or '\\\\":' in text:
        return False
    return _KEY_WITH_SPACE.search(text) is None


def _dump(document: Any) -> str:
    try:
        return orjson.dumps(document).decode()
    except TypeError:  # orjson writes less deep than it reads
        return json.dumps(document, ensure_ascii=False, separators=(",", ":"))
