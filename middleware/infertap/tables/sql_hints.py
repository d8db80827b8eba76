"""What to write instead, where the SQL engine only says what it cannot read, compare or find."""

import re
from collections.abc import Callable
from datetime import datetime

_A_TIME = "'2026-01-31 14:03:00'"
_A_MINUTE = f">= {_A_TIME} AND ... < '2026-01-31 14:04:00'"
_A_DAY = "'2026-01-31'"
_NO_SECONDS = re.compile(r"(\d{4}-\d\d-\d\d[T ]\d\d)(:\d\d)?(Z|[+-]\d\d:?\d\d)?", re.IGNORECASE)
_GERMAN_DAY = re.compile(r"(\d{1,2})\.(\d{1,2})\.(\d{4})")
_JSON = (
    "JSON is text here, without functions of its own: "
    'regexp_match(attributes, \'"http.route":"([^"]*)"\')[1] takes a value out of it; '
    "some are columns already (spans.name, inference.path); DuckDB and Spark read the tables and have such functions"
)


def hint(message: str) -> str | None:
    """One sentence, or None where the engine's own says enough."""
    for pattern, words in _HINTS:
        if (found := pattern.search(message)) is not None:
            return words(found)
    return None


def _time(found: re.Match[str]) -> str:
    text = found[1]
    if (short := _NO_SECONDS.fullmatch(text)) is not None:
        whole = f"{short[1]}{short[2] or ':00'}:00"
        if _exists(whole):
            return f"a time has seconds: write '{whole}{short[3] or ''}' for '{text}'"
    return f"'{text}' is no time: write it as {_A_TIME}, or now() - INTERVAL '1 day'"


def _date(found: re.Match[str]) -> str:
    text = found[1]
    german = _GERMAN_DAY.fullmatch(text)
    day = f"{german[3]}-{german[2]:0>2}-{german[1]:0>2}" if german is not None else ""
    proposed = f"'{day}'" if _exists(day) else _A_DAY
    return f"'{text}' is no date: write it as {proposed}"


def _exists(text: str) -> bool:
    """Whether it is a day, or a time, that a calendar knows."""
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True


def _like(found: re.Match[str]) -> str:
    if found[1].startswith("Timestamp"):
        return f"LIKE is for text, and this is a time: compare it with a range of times (... {_A_MINUTE})"
    if found[1].startswith("Date"):
        return f"LIKE is for text, and this is a date: compare it with dates (= {_A_DAY}, BETWEEN {_A_DAY} AND ...)"
    return f"LIKE is for text, and this is {found[1]}: CAST(... AS VARCHAR) LIKE ..."


def _comparison(found: re.Match[str]) -> str:
    if "Timestamp" in found[1]:
        return f"a time is compared with a time only: write {_A_TIME}, or to_timestamp_seconds(...)"
    return f"these types cannot be compared: {found[1]}; a CAST may help"


def _json_function(found: re.Match[str]) -> str:
    return f"there is no function `{found[1]}`; {_JSON}"


_HINTS: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], str]], ...] = (
    (re.compile(r"Error parsing timestamp from '([^']*)'"), _time),
    (re.compile(r"Cannot cast string '([^']*)' to value of Date\w* type"), _date),
    (re.compile(r"common type to coerce (.+?) and \w+ in I?LIKE expression"), _like),
    (re.compile(r"common argument type for comparison operation (.+)"), _comparison),
    (
        re.compile(r"Cannot coerce arithmetic expression Timestamp\([^)]*\) [-+] Utf8"),
        lambda _: "a duration is written INTERVAL '5 minutes'",
    ),
    (
        re.compile(r'Dot access not supported for non-string expr: Identifier\(Ident \{ value: "([^"]*)"'),
        lambda found: f"write ['{found[1]}'] for .{found[1]} behind a bracket, for example events[1]['name']",
    ),
    (
        re.compile(r'Ambiguous reference to unqualified field "?([^\s"]+)'),
        lambda found: (
            f"more than one of the tables has a column `{found[1]}`: name the table before it, "
            f"for example inference.{found[1]} (or its alias)"
        ),
    ),
    (re.compile(r"Operator (?:->>?|#>>?) is not yet supported"), lambda _: _JSON),
    (re.compile(r"Cannot access field at argument \d+: type Utf8"), lambda _: f"a text has no fields; {_JSON}"),
    (re.compile(r"Invalid function '(\w*(?:json|variant)\w*)'", re.IGNORECASE), _json_function),
)
