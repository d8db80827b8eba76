"""The schema names every column once, and gives statistics to none that holds content."""

from dataclasses import fields

import pytest

from infertap.record import InferenceRecord
from infertap.tables.schema import INFERENCE, TABLES, TableSchema

DRAINER_FILLS = {
    "request_date", "service_name", "instance", "resource", "schema_version", "infertap_version",
    "spool_id", "segment_no",
}  # fmt: skip
CONTENT = {
    "request", "response", "request_headers", "response_headers", "query", "error_message", "tags", "requester",
    "client_request_id", "path", "attributes", "events", "links", "status", "resource", "name",
}  # fmt: skip


def test_every_field_of_a_record_is_a_column_and_every_column_is_filled_by_somebody() -> None:
    """A field of `InferenceRecord` that had no column would be parked, and a column without a source stay empty."""
    recorded = {field.name for field in fields(InferenceRecord)} - {"span"}

    assert recorded | DRAINER_FILLS == set(INFERENCE.names)


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_statistics_are_kept_for_plain_columns_without_content_only(table: TableSchema) -> None:
    """Minima and maxima outlive erasure in the log, so no column of content has them."""
    types = {column.name: column.type for column in table.columns}

    assert not set(table.statistics) & CONTENT
    assert all("<" not in types[name] for name in table.statistics)


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_names_are_unique_and_the_partition_is_a_date(table: TableSchema) -> None:
    """Each table is partitioned by a day that is one of its columns."""
    types = {column.name: column.type for column in table.columns}

    assert len(types) == len(table.columns)
    assert types[table.partition_by] == "DATE"
    assert set(table.bodies) <= set(types)
