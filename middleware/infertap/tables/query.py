"""SQL over the tables, behind a gate: the engine would also write files (`COPY ... TO`, even inside EXPLAIN ANALYZE).

1. One statement; it begins with SELECT, WITH or EXPLAIN of one of these, and has no word in it that changes anything.
2. The gate reads tokens as the engine does. What the two could read differently is refused: block comments, strings
   with a prefix, dollar quotes.
3. The engine knows the three tables and nothing else; it has no function that reads a file.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, cast
from uuid import UUID

from arro3.core import DataType, Table
from deltalake import DeltaTable, QueryBuilder

from infertap.errors import InfertapError, UsageError
from infertap.tables.delta import call, open_table, sql_text, table_uri
from infertap.tables.failures import is_foreign_panic
from infertap.tables.schema import INFERENCE, SPANS, TABLES, TableSchema
from infertap.targets import TableTarget

_TOKEN = re.compile(
    r"""
    (?P<space> \s+ | --[^\n]* )
  | (?P<ambiguous> /\* | \$ | \b\w*['"`](?<=\w.) )
  | (?P<quoted> '(?:[^']|'')*' | "(?:[^"]|"")*" | `[^`]*` )
  | (?P<word> [^\W\d]\w* )
  | (?P<other> [^'"`] )
    """,
    re.VERBOSE | re.DOTALL,
)
_CHANGES = frozenset(["ALTER", "COPY", "CREATE", "DELETE", "DROP", "INSERT", "INTO", "MERGE", "TRUNCATE", "UPDATE"])
_MISSING_TABLE = re.compile(r"table 'datafusion\.public\.(\w+)' not found")


class QueryError(InfertapError):
    """The query was refused or failed. The message may quote it, so it is for the one who wrote it, and no log."""


class StatementError(QueryError, UsageError):
    """The gate refuses the statement or the id, before any table is opened."""


def query(target: TableTarget, sql: str) -> Table:
    """The result of one reading statement over `inference`, `spans` and `ledger`.

    Raises:
        QueryError: the gate refuses the statement, or the engine does, or a table in it does not exist (yet).
        RetryableError: the tables cannot be read now.
    """
    check(sql)
    opened = {table: _open(table, target) for table in TABLES}
    return _execute(sql, {table.name: handle for table, handle in opened.items() if handle is not None}, target)


def lookup(target: TableTarget, request_id: str) -> dict[str, Any]:
    """One request: under `inference` its row or None, under `spans` the rows of its trace by start.

    Raises:
        QueryError: `request_id` is no UUID, or nothing was recorded yet.
        RetryableError: the tables cannot be read now.
    """
    try:
        uuid = UUID(request_id)
    except ValueError:
        raise StatementError(f"not a request id: {request_id!r}; the column `request_id` holds UUIDs") from None
    wanted = f"request_id = {sql_text(str(uuid))}"
    found = rows(query(target, f"SELECT * FROM inference WHERE {wanted}{_near(uuid, INFERENCE)}"))
    row = found[0] if found else None
    if row is not None and row["trace_id"]:
        wanted = f"({wanted} OR trace_id = {sql_text(row['trace_id'])})"
    spans = _open(SPANS, target)
    if spans is None:
        return {"inference": row, "spans": []}
    sql = f"SELECT * FROM spans WHERE {wanted}{_near(uuid, SPANS)} ORDER BY start_time_unix_nano"
    return {"inference": row, "spans": rows(_execute(sql, {SPANS.name: spans}, target))}


def rows(table: Table) -> list[dict[str, Any]]:
    """The rows of a result as Python values: TIMESTAMP as aware datetime, DATE as date, MAP and STRUCT as dict."""
    columns = [_python_values(table[name].type, list(table[name].to_pylist())) for name in table.column_names]
    return [dict(zip(table.column_names, values, strict=True)) for values in zip(*columns, strict=True)]


def check(sql: str) -> None:
    """Let one reading statement pass. Raises: QueryError: it is something else, or unclear."""
    words = _words(sql)
    for word in words:
        if word in _CHANGES:
            raise StatementError(f"only reading statements are allowed; {word} in double quotes would be a name")
    if words[:1] == ["EXPLAIN"]:
        del words[0]
        while words[:1] in (["ANALYZE"], ["VERBOSE"], ["FORMAT"]):
            del words[: 2 if words[0] == "FORMAT" else 1]
    if words[:1] not in (["SELECT"], ["WITH"]):
        raise StatementError("a query begins with SELECT, WITH or EXPLAIN")


def _words(sql: str) -> list[str]:
    """The unquoted words of the one statement in `sql`, in upper case."""
    words: list[str] = []
    position = 0
    text = sql.strip().removesuffix(";")
    while position < len(text):
        token = _TOKEN.match(text, position)
        if token is None:
            raise StatementError("a quote is not closed")
        position = token.end()
        if token.lastgroup == "ambiguous":
            raise StatementError(
                f"not understood here: {token.group()} (block comments, E'...' and $$ are not allowed)"
            )
        if token.group() == ";":
            raise StatementError("one statement at a time")
        if token.lastgroup == "word":
            words.append(token.group().upper())
    return words


def _open(table: TableSchema, target: TableTarget) -> DeltaTable | None:
    return call(table, "opening", partial(open_table, table, target))


def _execute(sql: str, tables: Mapping[str, DeltaTable], target: TableTarget) -> Table:
    builder = QueryBuilder()
    for name, handle in tables.items():
        builder.register(name, handle)
    try:
        return builder.execute(sql).read_all()
    except BaseException as error:
        # The border to the engine: plain Exceptions, and panics that are BaseExceptions.
        if not isinstance(error, Exception) and not is_foreign_panic(error):
            raise
        text = str(error)
    missing = _MISSING_TABLE.search(text)
    if missing is None:
        raise QueryError(text)
    known = next((table for table in TABLES if table.name == missing[1]), None)
    if known is None:
        raise QueryError(f"there is no table `{missing[1]}`; the tables are inference, spans and ledger")
    raise QueryError(f"there is no table `{known.name}` yet: nothing was recorded in {table_uri(target, known)}")


def _near(uuid: UUID, table: TableSchema) -> str:
    """A condition on the partition, where the id tells its time: without it every file would be looked at."""
    if uuid.version != 7:
        return ""
    day = datetime.fromtimestamp((uuid.int >> 80) / 1000, UTC).date()
    first, last = day - timedelta(days=1), day + timedelta(days=1)
    return f" AND {table.partition_by} BETWEEN DATE '{first}' AND DATE '{last}'"


def _python_values(type_: DataType, values: list[Any]) -> list[Any]:
    # arro3's stub shadows `bool` inside its class, so the type checker needs the cast.
    if cast(bool, DataType.is_map(type_)):
        return [dict(value) if value is not None else None for value in values]
    return values
