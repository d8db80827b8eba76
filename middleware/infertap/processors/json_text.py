"""Redact a JSON document by the names in it, and keep its exact text where nothing is redacted.

1. Where the text may hide a repeated key, it is written anew: a parser keeps only the last of two equal ones.
2. Strings are opened where they are JSON, and where they are a URL; other text in them is left as it is.
3. All is found in one walk, and a key that is nothing special costs one look-up.
"""

import json
import re
from collections.abc import Callable, Iterable
from typing import Any

import orjson

from infertap.processors.json_names import (
    TABLE_NAMES,
    VALUES,
    harmless,
    redact_named_value,
    redact_pair,
    redact_table,
)
from infertap.processors.secret_names import MARK, SecretNames, looks_like_key
from infertap.processors.secret_shapes import redact_path, redact_shapes

Redact = Callable[[str], tuple[str, int]]

_KEY_WITH_SPACE = re.compile(r'"\s+:')
_COMPACT_CHARACTERS_MAX = 64 << 10
_LONG_INTEGER = re.compile(r"\d{19}")
_BLANK = " \t\r\n\ufeff"
_CONTENT = frozenset({str, dict, list})
_OPENED = frozenset("{[" + _BLANK)
_SCHEME_CHARACTERS_MAX = 24
_URL = re.compile(r"[A-Za-z][\w+.-]*://\S+")
_URL_CHARACTERS_MAX = 16 << 10
_URL_PARTS = re.compile(r"[?@#;]")
_NESTED_DEPTH_MAX = 4
"""JSON inside a JSON string (tool-call arguments) is opened this often; what is deeper is redacted as text."""
_PLAIN, _SECRET, _LOOKS_SECRET, _DOUBTFUL, _VALUE, _TABLE = range(6)
_KEYS_MAX = 4096
_KEY_CHARACTERS_MAX = 64


class _Keys(dict[str, int]):
    """What is known of a key; a hit costs one dictionary look-up."""

    def __init__(self, names: SecretNames) -> None:
        super().__init__()
        self._names = names

    def __missing__(self, key: str) -> int:
        verdict = self._verdict(key)
        if len(key) <= _KEY_CHARACTERS_MAX:
            if len(self) >= _KEYS_MAX:
                self.clear()
            self[key] = verdict
        return verdict

    def _verdict(self, key: str) -> int:
        if self._names.in_json(key):
            return _SECRET
        if key.lower() in self._names.doubtful_in_json:
            return _DOUBTFUL
        if key in VALUES:
            return _VALUE
        if key in TABLE_NAMES:
            return _TABLE
        return _LOOKS_SECRET if redact_shapes(key)[1] else _PLAIN


class JsonText:
    """Redacts documents.

    Args:
        names: Which keys' values go.
        redact_text: For text that is no JSON, although it looks so.
        redact_url: For a string that is a URL.
    """

    __slots__ = ("_keys", "_redact_text", "_redact_url", "_secret")

    def __init__(self, names: SecretNames, *, redact_text: Redact, redact_url: Redact) -> None:
        self._keys = _Keys(names).__getitem__
        self._secret = names.in_json
        self._redact_text = redact_text
        self._redact_url = redact_url

    def redact(self, text: str, depth: int = 0) -> tuple[str, int] | None:
        """The redacted document and the number of redacted values; None where the text is no JSON.

        Raises:
            RecursionError: a document nested too deeply to be read.
        """
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
                return None
        if isinstance(document, str) and not looks_like_json(document):
            shown, redacted = self._redact_text(document)
            return (dump(shown), redacted) if redacted else (text, 0)
        root = [document]
        urls = "/" in text or "\\" in text  # an escape may stand for it
        redacted, keys = self._walk(root, depth, urls)
        # Most clients write compact JSON, and that it comes out the same is the quickest proof.
        compact = redacted == 0 and dump is _dump and len(text) < _COMPACT_CHARACTERS_MAX and _dump(root[0]) == text
        if redacted == 0 and (compact or _says_each_key_once(text, keys)):
            return text, 0
        if dump is _dump and _LONG_INTEGER.search(text) is not None:
            # orjson has read integers over 64 bits as floats; what is not secret must stay as it was.
            root = [json.loads(text)]
            redacted, _ = self._walk(root, depth, urls)
            dump = json.dumps
        return dump(root[0]), redacted

    def _walk(self, root: list[Any], depth: int, urls: bool) -> tuple[int, int]:
        """Redact in place. Returns (values redacted, keys seen; -1 where a document inside a string was rewritten).

        Args:
            urls: Whether a string may be one.
        """
        redacted = keys = 0
        rewritten = False
        renamed: list[tuple[dict[str, Any], str]] = []
        verdict = self._keys
        # A list that is appended to while it is walked: no recursion, and no order to keep.
        nodes: list[Any] = [root]
        for node in nodes:
            listed = False
            if type(node) is dict:
                keys += len(node)
                for key in node:
                    found = verdict(key)
                    if found:
                        if found == _LOOKS_SECRET:
                            renamed.append((node, key))
                            redacted += 1
                        else:
                            redacted += self._found(found, key, node)
                items: Iterable[tuple[Any, Any]] = node.items()
            elif _CONTENT.isdisjoint(map(type, node)):
                continue  # an embedding, a row of features: numbers only
            else:
                listed = True
                items = enumerate(node)
            for key, value in items:
                kind = type(value)
                if kind is str:
                    if value[:1] in _OPENED or (urls and value.find("://", 1, _SCHEME_CHARACTERS_MAX) > 0):
                        shown, hits = self._string(value, depth)
                        redacted += hits
                        rewritten = rewritten or shown != value
                        node[key] = shown
                elif kind is dict or kind is list:
                    nodes.append(value)
                    if kind is list and len(value) == 2:
                        redacted += redact_pair(value, self._secret, listed=listed)
        for place, (node, key) in enumerate(renamed):
            _rename(node, key, place)
        return redacted, -1 if rewritten else keys

    def _found(self, found: int, key: str, node: dict[str, Any]) -> int:
        """Redact what a key of some meaning says of its own value, or of one beside it."""
        if found == _VALUE:
            return redact_named_value(node, key, self._secret)
        if found == _TABLE:
            return redact_table(node, key, self._secret)
        value = node[key]
        if found == _DOUBTFUL:
            gone = isinstance(value, str) and value != MARK and looks_like_key(value)
        else:
            gone = not harmless(key, value, node)
        if gone:
            node[key] = MARK
        return int(gone)

    def _string(self, text: str, depth: int) -> tuple[str, int]:
        """A string inside a document that may be one itself, or a URL."""
        if looks_like_json(text):
            return self._nested(text, depth)
        if len(text) > _URL_CHARACTERS_MAX or _URL.fullmatch(text) is None:
            return text, 0
        return self._redact_url(text) if _URL_PARTS.search(text) is not None else redact_path(text)

    def _nested(self, text: str, depth: int) -> tuple[str, int]:
        if depth >= _NESTED_DEPTH_MAX:
            return self._redact_text(text)
        try:
            return self.redact(text, depth + 1) or self._redact_text(text)
        except RecursionError:
            return MARK, 1


def looks_like_json(text: str) -> bool:
    """Whether the first character that is not blank opens an object or a list."""
    first = text[:1]
    if first in _BLANK:
        first = text.lstrip(_BLANK)[:1]
    return first == "{" or first == "["


def _rename(node: dict[str, Any], key: str, place: int) -> None:
    """Take a secret out of a key; where two would be the same, `place` tells them apart."""
    shown = redact_shapes(key)[0]
    node[shown if shown not in node else f"{shown} ({place})"] = node.pop(key)


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
