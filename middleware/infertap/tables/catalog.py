"""Answers `SHOW TABLES` and `DESCRIBE table` from the schemas: the engine is not to be asked more than queries."""

import re
from collections.abc import Collection, Sequence

from arro3.core import Array, DataType, Table
from deltalake import DeltaTable

from infertap.tables.schema import TABLES, TableSchema

_TABLES = re.compile(r"SHOW\s+TABLES", re.IGNORECASE)
_COLUMNS = re.compile(
    r"(?:DESCRIBE|DESC|SHOW\s+COLUMNS\s+(?:FROM|IN))\s+(?:TABLE\s+)?(?P<quote>[\"`]?)(?P<name>\w+)(?P=quote)",
    re.IGNORECASE,
)
_SQL_TYPES = {"LONG": "BIGINT", "INTEGER": "INT", "SHORT": "SMALLINT", "BYTE": "TINYINT"}
"""What Delta calls otherwise than SQL does."""


def asks_for_tables(sql: str) -> bool:
    """Whether it is `SHOW TABLES`."""
    return _TABLES.fullmatch(_bare(sql)) is not None


def described_table(sql: str) -> str | None:
    """The name in `DESCRIBE name` or `SHOW COLUMNS FROM name`; None where it is neither."""
    columns = _COLUMNS.fullmatch(_bare(sql))
    return columns["name"] if columns is not None else None


def all_tables(existing: Collection[str]) -> Table:
    """A row for each table: `table`, and whether it `exists` yet."""
    there = Array([table.name in existing for table in TABLES], DataType.bool())
    return Table.from_arrays([_texts([table.name for table in TABLES]), there], names=["table", "exists"])


def columns_of(table: TableSchema, handle: DeltaTable | None) -> Table:
    """A row for each column: `column`, `type` and `meaning`; those that users have added are the last ones.

    Args:
        handle: The table itself, where it exists.
    """
    rows = [(column.name, column.type, column.meaning) for column in table.columns]
    if handle is not None:
        added = [field for field in handle.schema().fields if field.name not in table.names]
        rows += [
            (field.name, _sql_type(field.type.type), "added by a user; infertap leaves it NULL") for field in added
        ]
    names, types, meanings = zip(*rows, strict=True)
    return Table.from_arrays([_texts(names), _texts(types), _texts(meanings)], names=["column", "type", "meaning"])


def _bare(sql: str) -> str:
    return sql.strip().removesuffix(";").rstrip()


def _texts(values: Sequence[str]) -> Array:
    return Array(list(values), DataType.utf8())


def _sql_type(delta: str) -> str:
    return _SQL_TYPES.get(delta.upper(), delta.upper())
