"""The SQL engine's errors in one plain sentence, with the nearest name where one is misspelt."""

import difflib
import re
from collections.abc import Sequence

from infertap.tables.sql_hints import hint

_TABLE = re.compile(r"table 'datafusion\.([^']+)' not found")
_FIELD = re.compile(r"No field named (\S+)\.(?:\s|$)")
_VALID = re.compile(r"Valid fields are (.*?)\.?$", re.DOTALL | re.MULTILINE)
_FUNCTION = re.compile(r"Invalid function '([^']+)'\.(?:\s*Did you mean '([^']+)'\?)?")
_SYNTAX = re.compile(r'ParserError\("(.*?)(?: at Line: (\d+), Column: (\d+))?"\)', re.DOTALL)
_TYPES = re.compile(r"No function matches the given name and argument types '([^']+)'")
_GROUP = re.compile(r'column "([^"]+)" must appear in the GROUP BY clause')
_LAYERS = re.compile(
    r"^(?:(?:Error during planning|\w+ error|Context|External|Internal): ?"
    r"|(?:Optimizer rule '\w+' failed|\w+)\s+caused by\s+)"
)
_NOISE = re.compile(r"\s*(?:This issue was likely caused by a bug|Backtrace|Candidate functions).*", re.DOTALL)
_CHARACTERS_MAX = 400


def missing_table(message: str) -> str | None:
    """The name of the table that the engine does not know, if that is its trouble."""
    found = _TABLE.search(message)
    return found[1].removeprefix("public.") if found is not None else None


def no_table(name: str, tables: Sequence[str]) -> str:
    """That there is none of this name, and which one may be meant."""
    return f"there is no table `{name}`{_hint(name, tables) or f'; the tables are {_listed(tables)}'}"


def plain(message: str, *, tables: Sequence[str]) -> str:
    """The engine's message as a person would say it.

    Args:
        tables: The names that a query may use.
    """
    unknown = missing_table(message)
    if unknown is not None:
        return no_table(unknown, tables)
    if (instead := hint(message)) is not None:
        return instead
    if (field := _FIELD.search(message)) is not None:
        return _no_column(field[1].replace('"', ""), message)
    if (function := _FUNCTION.search(message)) is not None:
        return f"there is no function `{function[1]}`" + (f"; did you mean `{function[2]}`?" if function[2] else "")
    if (types := _TYPES.search(message)) is not None:
        return f"no function takes these types: {types[1]}; a CAST may help"
    if (group := _GROUP.search(message)) is not None:
        return f"column `{_bare(group[1])}` must be in GROUP BY, or inside an aggregate function"
    if (syntax := _SYNTAX.search(message)) is not None:
        return _syntax(*syntax.groups())
    return _stripped(message)


def _no_column(name: str, message: str) -> str:
    valid = _VALID.search(message)
    fields = valid[1].split(", ") if valid is not None else []
    qualifier = name.rpartition(".")[0]
    names = {_bare(field): field for field in fields if not qualifier or field.startswith(f"{qualifier}.")}
    hint = _hint(_bare(name), list(names))
    return f"there is no column `{name}`{hint or '; DESCRIBE with the name of a table lists them all'}"


def _hint(name: str, known: Sequence[str]) -> str:
    lower = name.lower()
    nearest = difflib.get_close_matches(lower, known, n=1) or [other for other in known if lower and lower in other]
    return f"; did you mean `{nearest[0]}`?" if nearest else ""


def _listed(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}"


def _bare(field: str) -> str:
    return field.rpartition(".")[2]


def _syntax(words: str, line: str | None, column: str | None) -> str:
    place = f" at line {line}, column {column}" if line is not None else ""
    said = words.replace("Expected: ", "expected ").replace("found: EOF", "the statement ends")
    return f"this SQL is not understood{place}: {said.replace('found: ', 'found ')}"


def _stripped(message: str) -> str:
    text = _NOISE.sub("", message).strip()
    while (layer := _LAYERS.match(text)) is not None:
        text = text[layer.end() :]
    text = " ".join(text.split())
    return text if len(text) <= _CHARACTERS_MAX else f"{text[:_CHARACTERS_MAX]} …"
