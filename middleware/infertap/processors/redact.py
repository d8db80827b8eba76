"""Redact one text as what it is: a body of some kind, a URL, a header, a label; what cannot be read is not kept.

1. Anything that raises here withholds the body (the caller's `RedactionError`), never stores it raw.
2. Every answer is a pair: the redacted text, and how many values were redacted.
"""

import re
from typing import TypeVar

from infertap.processors.delimited import redact_delimited
from infertap.processors.event_stream import redact_event_stream
from infertap.processors.json_text import JsonText, looks_like_json
from infertap.processors.markup import redact_markup
from infertap.processors.media import Kind
from infertap.processors.multipart import redact_multipart
from infertap.processors.named_values import redact_named_values
from infertap.processors.parameters import redact_pairs, redact_parameters
from infertap.processors.secret_names import MARK, SecretNames
from infertap.processors.secret_shapes import redact_shapes

K = TypeVar("K")
Redacted = tuple[str, int]

_URL_HEADERS = frozenset({"content-location", "location", "origin", "referer"})
_SIGNS = (":", "=", "-", "',", '",', "：", "＝")
"""One of them stands between a name and its value."""
_PLACE = re.compile(r"(\{\w{1,64}(?::(?:path|str|int|float|uuid))?\})")
_REMEMBERED_MAX = 4096
_REMEMBERED_CHARACTERS_MAX = 256
_HARMLESS_CHARACTERS_MAX = 4
"""No name with a value and no secret's shape is this short."""


class Redactor:
    """Redacts texts by the given names. One per worker thread; remembers short texts and their answers, in memory."""

    __slots__ = ("_documents", "_fields", "_labels", "_names", "_queries")

    def __init__(self, names: SecretNames) -> None:
        self._names = names
        self._documents = JsonText(names, redact_text=self.text, redact_url=self.url)
        self._fields: dict[tuple[str, str], Redacted] = {}
        self._labels: dict[str, Redacted] = {}
        self._queries: dict[str, Redacted] = {}

    def body(self, text: str, kind: Kind, *, boundary: str | None = None) -> Redacted:
        """A whole body.

        Raises:
            ValueError: multipart without a usable boundary, a table with secrets that cannot be read.
            RecursionError: a document nested too deeply to be read.
        """
        if kind is Kind.JSON:
            return self.json(text)
        if kind is Kind.EVENT_STREAM:
            return redact_event_stream(text, self._any, self.label)
        if kind is Kind.NDJSON:
            return self._lines(text)
        if kind is Kind.FORM:
            return self.form(text)
        if kind is Kind.DELIMITED:
            text, count = redact_delimited(text, self._names.in_text)
            shown, hits = self._any(text)
            return shown, count + hits
        if kind is Kind.MULTIPART:
            return redact_multipart(text, boundary, self._names.in_fields, self.part)
        return self._any(text)

    def part(self, text: str, kind: Kind) -> Redacted:
        """A part of a body; one that cannot be read goes alone, and not all the rest with it."""
        try:
            return self.body(text, kind)
        except (RecursionError, ValueError):
            return MARK, 1

    def text(self, text: str) -> Redacted:
        """Text of no structure that we read: by name where a name stands before a value, then by shape."""
        count = 0
        if "\0" in text:
            # Between the letters of a name they would hide it (the bytes of UTF-16, printed).
            shown = self.text(text.replace("\0", ""))
            return shown if shown[1] else (text, 0)
        if "<" in text or "&lt;" in text:
            text, hits = redact_markup(text, self._names.in_text, self._names.doubtful_in_text)
            count += hits
        if "=" in text or "%3" in text:
            text, hits = redact_parameters(text, self._names.in_queries)
            count += hits
        if any(sign in text for sign in _SIGNS):
            text, hits = redact_named_values(text, self._names.in_text, self._names.doubtful_in_text)
            count += hits
        text, hits = redact_shapes(text)
        return text, count + hits

    def json(self, text: str) -> Redacted:
        """A JSON document; text that is none, although it says so, is redacted as such."""
        shown = self._documents.redact(text)
        return self.text(text) if shown is None else shown

    def value(self, text: str) -> Redacted:
        """One value among others, of unknown structure: JSON where it looks so."""
        try:
            return self._any(text)
        except RecursionError:
            return MARK, 1

    def label(self, text: str) -> Redacted:
        """A short text that repeats itself: a method, a path, the name of a span or of an attribute."""
        if len(text) <= _HARMLESS_CHARACTERS_MAX:
            return text, 0
        shown = self._labels.get(text)
        if shown is None:
            shown = self.text(text)
            _remember(self._labels, text, shown, characters=len(text))
        return shown

    def route(self, text: str) -> Redacted:
        """A route, or a name made of one: `{token:path}` in it is a parameter of the app's, and no value."""
        if "{" not in text:
            return self.label(text)
        redacted = [(piece, 0) if _PLACE.fullmatch(piece) else self.label(piece) for piece in _PLACE.split(text)]
        return "".join(piece for piece, _ in redacted), sum(hits for _, hits in redacted)

    def query(self, text: str) -> Redacted:
        """A URL's query string."""
        if not text:
            return text, 0
        shown = self._queries.get(text)
        if shown is None:
            shown = redact_pairs(text, self._names.in_queries, self.value)
            _remember(self._queries, text, shown, characters=len(text))
        return shown

    def form(self, text: str) -> Redacted:
        """A form. What JSON clients send under this type (curl does, by itself) is JSON."""
        count = 0
        if looks_like_json(text):
            shown = self._documents.redact(text)
            if shown is not None:
                return shown
            text, count = self.text(text)
        text, hits = redact_pairs(text, self._names.in_fields, self.value)
        return text, count + hits

    def url(self, text: str) -> Redacted:
        """A URL, whole or from its path on: user information, parameters, query and fragment."""
        count = 0
        if "@" in text:
            # A password may hold what ends a path.
            text, count = redact_shapes(text)
        rest, hash_mark, fragment = text.partition("#")
        head, question_mark, query = rest.partition("?")
        head, hits = self.text(head)
        count += hits
        query, hits = self.query(query)
        fragment, more = self.query(fragment)
        return f"{head}{question_mark}{query}{hash_mark}{fragment}", count + hits + more

    def field(self, name: str, value: str) -> Redacted:
        """A header's value, by the header's lower-case name."""
        shown = self._fields.get((name, value))
        if shown is None:
            shown = self._field(name, value)
            if shown[0] != MARK:
                _remember(self._fields, (name, value), shown, characters=len(value))
        return shown

    def _field(self, name: str, value: str) -> Redacted:
        if self._names.in_fields(name):
            return (MARK, 1) if value else (value, 0)
        if name in _URL_HEADERS:
            return self.url(value)
        if name == "baggage":
            return redact_pairs(value, self._names.in_fields, self.value, joined_by=",")
        return self.text(value)

    def _any(self, text: str) -> Redacted:
        """Text of unknown structure: JSON where it looks so."""
        return self.json(text) if looks_like_json(text) else self.text(text)

    def _lines(self, text: str) -> Redacted:
        count = 0
        whole = True
        lines = text.split("\n")
        for index, line in enumerate(lines):
            record = line.removeprefix("\x1e")  # application/json-seq
            shown = self._documents.redact(record)
            if shown is None:
                whole = False
                shown = self.text(record)
            count += shown[1]
            if shown[0] != record:
                lines[index] = f"{line[: len(line) - len(record)]}{shown[0]}"
        joined = "\n".join(lines)
        if whole:
            return joined, count
        # A document over several lines: a name may stand on one of them, and its value on the next.
        joined, hits = self.text(joined)
        return joined, count + hits


def _remember(answers: dict[K, Redacted], question: K, answer: Redacted, *, characters: int) -> None:
    if len(answers) >= _REMEMBERED_MAX:
        answers.clear()
    if characters <= _REMEMBERED_CHARACTERS_MAX:
        answers[question] = answer
