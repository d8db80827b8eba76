"""Rows become Arrow batches with arro3 alone, because pyarrow would add 170 MB to every server.

1. TIMESTAMP values are integers of microseconds since the epoch (UTC), DATE values integers of days.
2. A missing map, array or struct becomes an empty one.
3. No error names a value: values are content.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, cast

from arro3.core import Array, DataType, Field, RecordBatch, Schema, list_array, struct_array

from infertap.errors import PermanentError
from infertap.tables.schema import TableSchema

Build = Callable[[Sequence[Any]], Array]

_SCALARS = {
    "STRING": (DataType.utf8(), DataType.utf8()),
    "INT": (DataType.int32(), DataType.int32()),
    "BIGINT": (DataType.int64(), DataType.int64()),
    "DOUBLE": (DataType.float64(), DataType.float64()),
    "BOOLEAN": (DataType.bool(), DataType.bool()),
    "DATE": (DataType.int32(), DataType.date32()),
    "TIMESTAMP": (DataType.int64(), DataType.timestamp("us", tz="UTC")),
}


class UnencodableError(PermanentError):
    """A value does not fit its column, in at least one of the rows."""


@dataclass(frozen=True, slots=True)
class ColumnType:
    """An Arrow type, and how a list of Python values becomes an array of it."""

    arrow: DataType
    build: Build


class BatchEncoder:
    """Turns rows of one table into record batches of its schema."""

    def __init__(self, table: TableSchema) -> None:
        self._types = [(column.name, column_type(column.type)) for column in table.columns]
        self.schema = Schema([Field(name, type_.arrow, nullable=True) for name, type_ in self._types])
        self.names = frozenset(table.names)

    def encode(self, rows: Sequence[Mapping[str, Any]]) -> RecordBatch:
        """One batch with a row for each of `rows`; keys without a column are ignored.

        Raises: UnencodableError: a value has the wrong type, or is out of range.
        """
        arrays: list[Array] = []
        for name, type_ in self._types:
            problem: str | None = None
            try:
                arrays.append(type_.build(_values(rows, name)))
            except (TypeError, ValueError, OverflowError, AttributeError) as error:
                problem = type(error).__name__
            if problem is not None:
                # Raised out here, so that the cause, which may quote the value, is not chained to it.
                raise UnencodableError(f"a value does not fit column `{name}` ({problem})")
        return RecordBatch.from_arrays(arrays, schema=self.schema)


def _values(rows: Sequence[Mapping[str, Any]], name: str) -> list[Any]:
    try:
        # Half the time of `get`, and most columns have a value in every row.
        return list(map(itemgetter(name), rows))
    except KeyError:
        return [row.get(name) for row in rows]


def column_type(sql: str) -> ColumnType:
    """The column type of a SQL type such as `BIGINT` or `ARRAY<STRUCT<name STRING, n INT>>`."""
    return ColumnType(*_compiled(sql))


def _compiled(sql: str) -> tuple[DataType, Build]:
    head, _, inner = sql.partition("<")
    arguments = list(_split(inner[:-1]))
    match head:
        case "ARRAY":
            return _as_declared(*_array(arguments[0]))
        case "MAP":
            return _as_declared(*_map())
        case "STRUCT":
            return _struct([cast(tuple[str, str], tuple(argument.split(" ", 1))) for argument in arguments])
        case _:
            stored, arrow = _SCALARS[head]
            if stored == arrow:
                return arrow, lambda values: Array(values, arrow)
            return arrow, lambda values: Array(values, stored).cast(arrow)


def _as_declared(arrow: DataType, build: Build) -> tuple[DataType, Build]:
    """The same, but the arrays get exactly the type `arrow`.

    arro3 has no map builder, and names list items as it likes. The memory layout is the same, so the array is imported
    again under the type that was declared.
    """
    schema = arrow.__arrow_c_schema__
    return arrow, lambda values: Array.from_arrow_pycapsule(schema(), build(values).__arrow_c_array__()[1])


def _split(arguments: str) -> Iterable[str]:
    """The arguments of a type, split at the commas that no inner bracket encloses."""
    depth = start = 0
    for position, character in enumerate(arguments):
        depth += (character == "<") - (character == ">")
        if character == "," and depth == 0:
            yield arguments[start:position].strip()
            start = position + 1
    yield arguments[start:].strip()


def _array(item: str) -> tuple[DataType, Build]:
    item_type, build_item = _compiled(item)

    def build(values: Sequence[Any]) -> Array:
        offsets = [0]
        items: list[Any] = []
        for value in values:
            if value:
                if isinstance(value, str):
                    raise TypeError("a string where a list belongs")
                items.extend(value)
            offsets.append(len(items))
        return list_array(Array(offsets, DataType.int32()), build_item(items))

    return DataType.list(Field("element", item_type, nullable=True)), build


def _map() -> tuple[DataType, Build]:
    text = DataType.utf8()
    key, value = Field("key", text, nullable=False), Field("value", text, nullable=True)

    def build(values: Sequence[Any]) -> Array:
        offsets = [0]
        keys: list[str] = []
        entries: list[str] = []
        for mapping in values:
            if mapping:
                keys.extend(mapping)
                entries.extend(mapping.values())
            offsets.append(len(keys))
        pairs = struct_array([Array(keys, text), Array(entries, text)], fields=[key, value])
        return list_array(Array(offsets, DataType.int32()), pairs)

    return DataType.map(key, value, False), build


def _struct(members: Sequence[tuple[str, str]]) -> tuple[DataType, Build]:
    compiled = [(name, *_compiled(sql)) for name, sql in members]
    fields = [Field(name, arrow, nullable=True) for name, arrow, _ in compiled]

    def build(values: Sequence[Any]) -> Array:
        structs = [value or {} for value in values]
        return struct_array([member([s.get(name) for s in structs]) for name, _, member in compiled], fields=fields)

    return DataType.struct(fields), build
