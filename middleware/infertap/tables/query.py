"""SQL over the tables, behind a gate: the engine would also write files (`COPY ... TO`, even inside EXPLAIN ANALYZE).

1. One statement; it begins with SELECT, WITH or EXPLAIN of one of these, and has no word in it that changes anything.
2. The gate reads tokens as the engine does. What the two could read differently is refused: block comments, strings
   with a prefix, dollar quotes.
3. The engine knows the three tables and nothing else; it has no function that reads a file.
4. What asks for tables and columns is answered here; the engine, and with it the gate, stays closed for it.
"""

import re
from collections.abc import Mapping
from functools import partial
from typing import Any, cast

from arro3.core import ChunkedArray, DataType, Table
from deltalake import DeltaTable, QueryBuilder

from infertap.errors import InfertapError, UsageError
from infertap.tables.catalog import all_tables, asks_for_tables, columns_of, described_table
from infertap.tables.delta import call, is_table, open_table, table_uri
from infertap.tables.failures import is_foreign_panic
from infertap.tables.schema import TABLES, TableSchema
from infertap.tables.sql_errors import missing_table, no_table, plain
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
_NAMES = tuple(table.name for table in TABLES)


class QueryError(InfertapError):
    """The query was refused or failed. The message may quote it, so it is for the one who wrote it, and no log."""


class StatementError(QueryError, UsageError):
    """The gate refuses the statement or the id, before any table is opened."""


class NoTableError(QueryError):
    """The statement asks a table that does not exist yet."""

    def __init__(self, name: str, place: str) -> None:
        super().__init__(f"there is no table `{name}` yet: nothing was recorded in {place}")
        self.name = name


def query(target: TableTarget, sql: str) -> Table:
    """The result of one reading statement over `inference`, `spans` and `ledger`, of SHOW TABLES or DESCRIBE.

    Raises:
        QueryError: the gate refuses the statement, or the engine does.
        NoTableError: a table in it does not exist yet.
        RetryableError: the tables cannot be read now.
    """
    if asks_for_tables(sql):
        return all_tables([table.name for table in TABLES if _open(table, target) is not None])
    if (name := described_table(sql)) is not None:
        described = next((table for table in TABLES if table.name == name.lower()), None)
        if described is None:
            raise QueryError(no_table(name, _NAMES))
        return columns_of(described, _open(described, target))
    check(sql)
    opened = {table: _open(table, target) for table in TABLES}
    return _execute(sql, {table.name: handle for table, handle in opened.items() if handle is not None}, target)


def query_if_there(target: TableTarget, table: TableSchema, sql: str) -> Table | None:
    """The result of a statement over one table; None where that table does not exist yet. Raises as `query`."""
    handle = _open(table, target)
    return _execute(sql, {table.name: handle}, target) if handle is not None else None


def rows(table: Table) -> list[dict[str, Any]]:
    """The rows of a result as Python values: TIMESTAMP as aware datetime, DATE as date, MAP and STRUCT as dict.

    A TIMESTAMP with digits behind its microseconds is text, so that none is lost.

    Raises: QueryError: a column's type has no value in Python.
    """
    columns = [_python_values(name, table.column(index)) for index, name in enumerate(table.column_names)]
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
        raise StatementError(
            "a query begins with SELECT, WITH or EXPLAIN; SHOW TABLES lists the tables, DESCRIBE inference its columns"
        )


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
        return _distinct(builder.execute(sql).read_all())
    except BaseException as error:
        # The border to the engine: plain Exceptions, and panics that are BaseExceptions.
        if not isinstance(error, Exception) and not is_foreign_panic(error):
            raise
        text = str(error)
    known = next((table for table in TABLES if table.name == missing_table(text)), None)
    if known is not None:
        if call(known, "opening", partial(is_table, target)):
            above = target.uri.rstrip("/").rpartition("/")[0]
            raise QueryError(f"{target.uri} is a table itself; name the root, the folder above it: {above}")
        raise NoTableError(known.name, table_uri(target, known))
    raise QueryError(plain(text, tables=_NAMES))


def _distinct(result: Table) -> Table:
    """With a number behind each name that a join brought twice: of two columns `path`, one would be lost."""
    names: list[str] = []
    for name in result.column_names:
        number = 2
        distinct = name
        while distinct in names:
            distinct, number = f"{name}_{number}", number + 1
        names.append(distinct)
    return result if names == result.column_names else result.rename_columns(names)


def _python_values(name: str, column: ChunkedArray) -> list[Any]:
    # arro3's stub shadows `bool` inside its class, so the type checker needs the casts.
    type_ = column.type
    if cast(bool, DataType.is_interval(type_)):
        # arro3 cannot give one out, and would panic.
        raise QueryError(f"column `{name}` is an interval; cast it to VARCHAR in the query")
    values = list(column.to_pylist())
    if cast(bool, DataType.is_map(type_)):
        return [dict(value) if value is not None else None for value in values]
    if cast(bool, DataType.is_timestamp(type_)) and type_.time_unit == "ns":
        return _nanoseconds(values, list(column.cast(DataType.int64()).to_pylist()))
    return values


def _nanoseconds(values: list[Any], ticks: list[int | None]) -> list[Any]:
    """Text in RFC 3339 where Python's datetime, which ends at microseconds, would cut one."""
    return [
        value
        if tick is None or tick % 1000 == 0
        else f"{value:%Y-%m-%dT%H:%M:%S}.{tick % 10**9:09d}{'+00:00' if value.tzinfo is not None else ''}"
        for value, tick in zip(values, ticks, strict=True)
    ]
