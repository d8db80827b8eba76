"""Redact a JSON document by the names in it, and keep its exact text where nothing is redacted.

1. Where the text may hide a repeated key, it is written anew: a parser keeps only the last of two equal ones.
2. Strings are opened where they are JSON, and where they are a URL; other text in them is left as it is.
"""

import json
import re
from collections.abc import Callable, Iterable
from typing import Any

import orjson

from infertap.processors.secret_names import MARK
from infertap.processors.secret_shapes import redact_shapes

Redact = Callable[[str], tuple[str, int]]

_KEY_WITH_SPACE = re.compile(r'"\s+:')
_COMPACT_CHARACTERS_MAX = 64 << 10
_LONG_INTEGER = re.compile(r"\d{19}")
_BLANK = " \t\r\n\ufeff"
_OPENED = frozenset("{[h" + _BLANK)
_CONTENT = frozenset({str, dict, list})
_URL = re.compile(r"https?://[^\s]*[?@#;][^\s]*\Z", re.IGNORECASE)
_URL_CHARACTERS_MAX = 16 << 10
_NESTED_DEPTH_MAX = 4
"""JSON inside a JSON string (tool-call arguments) is opened this often; what is deeper is redacted as text."""
_NAMING = ("name", "key", "header", "field", "variable")
"""Beside `value` they hold a name: environments, lists of headers, attributes of OTLP."""
_PAIRED = frozenset({"authorization", "proxy-authorization", "cookie", "set-cookie", "x-api-key", "api-key"})
"""Headers as pairs: `["authorization", "Bearer ..."]`."""
_MODEL_WORDS = frozenset({"token", "pass"})
_PLAIN, _SECRET, _LOOKS_SECRET = range(3)
_KEYS_MAX = 4096
_KEY_CHARACTERS_MAX = 64


class _Keys(dict[str, int]):
    """What is known of a key; a hit costs one dictionary look-up."""

    def __init__(self, secret: Callable[[str], bool]) -> None:
        super().__init__()
        self._secret = secret

    def __missing__(self, key: str) -> int:
        verdict = _SECRET if self._secret(key) else _LOOKS_SECRET if redact_shapes(key)[1] else _PLAIN
        if len(key) <= _KEY_CHARACTERS_MAX:
            if len(self) >= _KEYS_MAX:
                self.clear()
            self[key] = verdict
        return verdict


class JsonText:
    """Redacts documents.

    Args:
        secret: Whether a key's value goes.
        redact_text: For text that is no JSON, although it looks so.
        redact_url: For a string that is a URL.
    """

    __slots__ = ("_keys", "_redact_text", "_redact_url")

    def __init__(self, secret: Callable[[str], bool], *, redact_text: Redact, redact_url: Redact) -> None:
        self._keys = _Keys(secret).__getitem__
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
        renamed: list[tuple[dict[str, Any], str]] = []
        verdict = self._keys
        # A list that is appended to while it is walked: no recursion, and no order to keep.
        nodes: list[Any] = [root]
        for node in nodes:
            if type(node) is dict:
                keys += len(node)
                for key in node:
                    found = verdict(key)
                    if found:
                        if found == _LOOKS_SECRET:
                            renamed.append((node, key))
                            redacted += 1
                        elif not _harmless(key, node[key], node):
                            node[key] = MARK
                            redacted += 1
                if "value" in node:
                    redacted += self._named_value(node)
                items: Iterable[tuple[Any, Any]] = node.items()
            elif _CONTENT.isdisjoint(map(type, node)):
                continue  # an embedding, a row of features: numbers only
            else:
                if len(node) == 2:
                    redacted += _redact_pair(node)
                items = enumerate(node)
            for key, value in items:
                kind = type(value)
                if kind is str:
                    if value[:1] in _OPENED:
                        shown, hits = self._string(value, depth)
                        redacted += hits
                        rewritten = rewritten or shown != value
                        node[key] = shown
                elif kind is dict or kind is list:
                    nodes.append(value)
        for place, (node, key) in enumerate(renamed):
            _rename(node, key, place)
        return redacted, -1 if rewritten else keys

    def _named_value(self, node: dict[str, Any]) -> int:
        """`{"name": "password", "value": ...}`"""
        value = node["value"]
        for naming in _NAMING:
            name = node.get(naming)
            if type(name) is str and self._keys(name) == _SECRET and not _harmless(name, value, node):
                node["value"] = MARK
                return 1
        return 0

    def _string(self, text: str, depth: int) -> tuple[str, int]:
        """A string inside a document that may be one itself, or a URL."""
        if looks_like_json(text):
            return self._nested(text, depth)
        if text[0] == "h" and len(text) <= _URL_CHARACTERS_MAX and _URL.match(text) is not None:
            return self._redact_url(text)
        return text, 0

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


def _harmless(key: str, value: Any, node: dict[str, Any]) -> bool:
    """Nothing is there to hide, or it is a language model's token and not a caller's."""
    if value is None or value == "" or value == MARK:
        return True
    if len(key) <= 8 and key.lower().rstrip("0123456789_-[]@") in _MODEL_WORDS:
        return "logprob" in node or not _holds_text(value)
    return isinstance(value, bool)


def _holds_text(value: Any) -> bool:
    """Whether there is text in a value, as in a secret; a language model's token may be a number or a list of them."""
    if isinstance(value, dict):
        return not {"id", "text"} <= value.keys()  # TGI streams its tokens as such objects
    return isinstance(value, str) or (isinstance(value, list) and any(_holds_text(item) for item in value))


def _redact_pair(pair: list[Any]) -> int:
    name, value = pair
    if type(name) is str and name.lower() in _PAIRED and value not in ("", None, MARK):
        pair[1] = MARK
        return 1
    return 0


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
