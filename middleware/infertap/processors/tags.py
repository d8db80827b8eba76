"""What an app sets as a tag, as the redacted text that is stored."""

import orjson

from infertap.processors.attributes import AttributeRedactor
from infertap.record import FIELD_CHARACTERS_MAX
from infertap.texts import text_of

_OPTIONS = orjson.OPT_NON_STR_KEYS | orjson.OPT_SERIALIZE_NUMPY


class Tags:
    """Makes tags into text: lists and maps into JSON, so that readers of the table can look into them."""

    __slots__ = ("_redactor",)

    def __init__(self, redactor: AttributeRedactor) -> None:
        self._redactor = redactor

    def text(self, name: str, value: object) -> tuple[str | None, int]:
        """The redacted text, and how many values in it were redacted; None where it is too long."""
        if isinstance(value, str):
            return self._redactor.one(name, value)
        text = _json(value)
        written = text if text is not None else text_of(value)
        if len(name) + len(written) > FIELD_CHARACTERS_MAX:
            return None, 0
        if text is None:
            return self._redactor.one(name, written)
        # As an attribute first, each text in it as a text: inside of JSON, only names and shapes count.
        shown, hits = self._redactor.one(name, orjson.loads(text))
        shown, more = self._redactor.one(name, shown if isinstance(shown, str) else orjson.dumps(shown).decode())
        return shown, hits + more


def _json(value: object) -> str | None:
    """None for what orjson does not know: keys of other types, integers over 64 bits, half characters."""
    try:
        return orjson.dumps(value, default=_plain, option=_OPTIONS).decode()
    except TypeError:
        return None


def _plain(value: object) -> str:
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else text_of(value)
