"""Find, in text that no parser reads, values whose name is a value itself: `name: API_KEY` beside `value: ...`.

1. Which belong together is decided by what encloses them: a bracket, an item or a column of YAML, a line.
2. It costs the same for each character, whatever encloses what, and nothing where no secret's name is a value.
"""

import re
from collections.abc import Callable

Secret = Callable[[str], bool]

_WORD = (
    r"(?:[Pp]arameter)?(?:[Nn]ame|NAME|[Kk]ey|KEY)"
    r"|header|field|variable|param|parameter|property|attribute|option|label"
)
NAMING_WORDS = frozenset(
    {
        "name", "key", "parametername", "parameterkey", "header", "field", "variable", "param", "parameter",
        "property", "attribute", "option", "label",
    }
)  # fmt: skip
VALUE_WORDS = frozenset({"value", "values", "parametervalue", "parametervalues", "data", "contents", "default"})
_SIGN = r"(?:\\*+[\"'])?+[ \t]*+(?:=>|:=|[:=])"
_NAME = (
    r"[ \t]*+(?:[bBuU]?\\*+[\"'](?P<quoted>[^\"'\\\r\n]{1,128}+)(?:\\*+[\"'])?+"
    # Where more words follow that are no pair it is a sentence.
    r"|(?P<bare>[^\s\"'\\,;{}<>&|]{1,128}+)(?=[ \t]*+(?:[^\w\s.(-]|[\r\n]|\Z|[\w.-]{1,64}+[ \t]*+(?:[:=]|->))))"
)
_TOKEN = re.compile(
    rf"(?<![\w.-])(?:\\*+[\"'])?+(?:(?P<naming>{_WORD}){_SIGN}{_NAME}"
    rf"|(?P<valued>(?:[Pp]arameter)?[Vv]alues?|VALUE|data|contents|default){_SIGN})"
    r"|(?P<line>(?:\A|[\r\n](?:[ \t]*+[\r\n])*+)(?P<indent>[ \t>#*/]*+)(?P<dashes>(?:-[ \t]++)*+)(?P<closes>[}\]])?+)"
    r"|(?P<bracket>[{}])|(?P<tag></?[A-Za-z])"
    r"|\"[^\"\\\r\n]*+\"|(?<=[\s:=,\[{(])'[^'\\\r\n]{0,200}+'(?=[\s,}\]):])"
)
_NAME_HERE = re.compile(_NAME)
_MAY_HOLD_VALUES = re.compile(r"[Vv]alue|VALUE|data|contents|default")
_DEPTH_MAX = 200


class Siblings:
    """Names and values that belong together: of one object, item of a list, mapping, line or element."""

    __slots__ = ("_pending", "_secret", "_words", "found")

    def __init__(self, found: set[int]) -> None:
        self.found = found
        """Where values stand that are secret."""
        self.forget()

    def forget(self) -> None:
        """What comes now belongs to others."""
        self._secret = False
        self._pending: list[int] = []
        self._words: set[str] = set()

    def named(self, word: str, *, secret: bool, repeats: bool) -> None:
        """A name stands here; `repeats` says that the same word again is the next one's."""
        self._seen(word, repeats=repeats)
        if secret:
            self._secret = True
            self.found.update(self._pending)
            self._pending.clear()

    def valued(self, word: str, place: int, *, repeats: bool) -> None:
        """A value stands here."""
        self._seen(word, repeats=repeats)
        if self._secret:
            self.found.add(place)
        else:
            self._pending.append(place)

    def _seen(self, word: str, *, repeats: bool) -> None:
        if repeats and word in self._words:
            self.forget()
        self._words.add(word)


class _Record(Siblings):
    """Siblings in a text; `column`: lines that begin further to the left end it."""

    __slots__ = ("bracket", "column")

    def __init__(self, found: set[int], column: int, *, bracket: bool) -> None:
        super().__init__(found)
        self.column = column
        self.bracket = bracket


class _Records:
    """The records that are open at one place of the text, and the values that were found to be secret."""

    def __init__(self) -> None:
        self.found: set[int] = set()
        self._open = [_Record(self.found, 0, bracket=False)]
        self._line_column = 0
        self._deeper = 0

    def line(self, indent: int, dashes: int, *, closes: bool) -> None:
        """A line begins, at this column, with an item of a list behind so many characters of dashes."""
        self._line_column = indent
        while len(self._open) > 1:
            top = self._open[-1]
            if top.column <= indent or (closes and top.bracket and top.column == indent + 1):
                break
            self._open.pop()
        top = self._open[-1]
        if top.bracket:
            return
        if dashes:
            if top.column == indent + dashes:
                self._open.pop()
            self._push(_Record(self.found, indent + dashes, bracket=False))
        elif top.column < indent:
            self._push(_Record(self.found, indent, bracket=False))

    def opened(self) -> None:
        self._push(_Record(self.found, self._line_column + 1, bracket=True))

    def closed(self) -> None:
        if self._deeper:
            self._deeper -= 1
        elif self._open[-1].bracket:
            self._open.pop()

    def tag(self) -> None:
        """Another element of XML begins."""
        if not self.now.bracket:
            self.now.forget()

    @property
    def now(self) -> _Record:
        """The innermost one."""
        return self._open[-1]

    def _push(self, record: _Record) -> None:
        if len(self._open) < _DEPTH_MAX:
            self._open.append(record)
        elif record.bracket:
            self._deeper += 1


def names_secret(text: str, position: int, secret: Secret) -> bool:
    """Whether what stands behind a naming word here is a secret's name."""
    name = _NAME_HERE.match(text, position)
    return name is not None and secret(_name(name))


def values_of_secret_names(text: str, secret: Secret) -> set[int]:
    """Where the words `value` (or `data`, ...) end whose value is a secret by the name beside them."""
    records = _Records()
    if _MAY_HOLD_VALUES.search(text) is None:
        return records.found
    for token in _TOKEN.finditer(text):
        if token["naming"]:
            now = records.now
            now.named(token["naming"].lower(), secret=secret(_name(token)), repeats=not now.bracket)
        elif token["valued"]:
            now = records.now
            now.valued(token["valued"].lower(), token.end("valued"), repeats=not now.bracket)
        elif token["line"] is not None:
            records.line(len(token["indent"]), len(token["dashes"]), closes=token["closes"] is not None)
            if token["closes"] == "}":
                records.closed()
        elif token["bracket"] == "{":
            records.opened()
        elif token["bracket"]:
            records.closed()
        elif token["tag"]:
            records.tag()
    return records.found


def _name(token: re.Match[str]) -> str:
    return token["quoted"] or token["bare"]
