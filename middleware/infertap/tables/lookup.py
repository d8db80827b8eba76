"""Finds one recorded request: by its id, by the beginning of it, by its trace's id, or simply the newest.

The commands that only take a whole id are those that delete or repeat something; looking may guess.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from infertap.tables.delta import sql_text
from infertap.tables.query import QueryError, StatementError, query, query_if_there, rows
from infertap.tables.schema import INFERENCE, SPANS, TableSchema
from infertap.targets import TableTarget

CANDIDATES_MAX = 10
PREFIX_CHARACTERS_MIN = 4

_HEX = re.compile(r"[0-9a-f]+(?:-[0-9a-f]*)*")
_TRACE_ID = re.compile(r"[0-9a-f]{32}")
_DAYS = (datetime.min.replace(tzinfo=UTC) + timedelta(days=2), datetime.max.replace(tzinfo=UTC) - timedelta(days=2))
_BRIEF = "request_id, request_time, method, path, status_code"


class Found(NamedTuple):
    """What was recorded of one request. A trace may have spans here and its request elsewhere, or in the spool."""

    inference: dict[str, Any] | None
    spans: list[dict[str, Any]]
    """Of its trace, by start."""


class AmbiguousError(QueryError):
    """Several requests fit. The message lists the newest of them."""


def lookup(target: TableTarget, given: str | None) -> Found:
    """One request with the spans of its trace; nothing in it where none fits.

    Args:
        given: A request's id or the beginning of it, or a trace's; None for the newest request.

    Raises:
        StatementError: `given` is nothing of these.
        AmbiguousError: More than one request fits.
        QueryError: Nothing was recorded yet.
        RetryableError: The tables cannot be read now.
    """
    text = given.strip().lower() if given is not None else None
    uuid, trace_id = _uuid(text), text if text is not None and _TRACE_ID.fullmatch(text) else None
    row = _row(target, text, uuid, trace_id)
    if row is not None:
        uuid, trace_id = _uuid(row["request_id"]), row["trace_id"]
    near = _near(uuid, SPANS)
    wanted = [] if uuid is None else [f"request_id = {sql_text(str(uuid))}{near}"]
    if trace_id:
        # Without a row the id may be a trace's alone, and tells no time.
        wanted.append(f"trace_id = {sql_text(trace_id)}{near if row is not None else ''}")
    return Found(row, _spans(target, wanted))


def _row(target: TableTarget, text: str | None, uuid: UUID | None, trace_id: str | None) -> dict[str, Any] | None:
    if text is None:
        newest = "request_date = (SELECT max(request_date) FROM inference) ORDER BY request_time DESC LIMIT 1"
        return _first(target, newest)
    if uuid is not None:
        row = _first(target, f"request_id = {sql_text(str(uuid))}{_near(uuid, INFERENCE)}")
        return row if row is not None or trace_id is None else _only(target, f"trace_id = {sql_text(trace_id)}", text)
    bare = text.replace("-", "")
    if _HEX.fullmatch(text) is None or not PREFIX_CHARACTERS_MIN <= len(bare) < 32:
        raise StatementError(
            f"not a request id: {text!r}; give a UUID from the column `request_id`, the beginning of one "
            f"({PREFIX_CHARACTERS_MIN} characters or more), or a trace id of 32 hex digits"
        )
    row = _only(target, f"request_id LIKE {sql_text(_dashed(bare) + '%')}", text)
    return row if row is not None else _only(target, f"trace_id LIKE {sql_text(bare + '%')}", text)


def _first(target: TableTarget, condition: str) -> dict[str, Any] | None:
    found = rows(query(target, f"SELECT * FROM inference WHERE {condition}"))
    return found[0] if found else None


def _only(target: TableTarget, condition: str, text: str) -> dict[str, Any] | None:
    """The one row that fits. Raises: AmbiguousError: there are more."""
    limit = CANDIDATES_MAX + 1
    sql = f"SELECT {_BRIEF} FROM inference WHERE {condition} ORDER BY request_time DESC LIMIT {limit}"
    found = rows(query(target, sql))
    if len(found) > 1:
        lines = [_brief(row) for row in found[:CANDIDATES_MAX]]
        more = "more than 10 requests fit" if len(found) > CANDIDATES_MAX else f"{len(found)} requests fit"
        raise AmbiguousError("\n  ".join([f"{more} {text}; name one by its id:", *lines]))
    if not found:
        return None
    return _first(target, f"request_id = {sql_text(found[0]['request_id'])}")


def _spans(target: TableTarget, wanted: list[str]) -> list[dict[str, Any]]:
    if not wanted:
        return []
    condition = " OR ".join(f"({one})" for one in wanted)
    found = query_if_there(target, SPANS, f"SELECT * FROM spans WHERE {condition} ORDER BY start_time_unix_nano")
    return rows(found) if found is not None else []


def _brief(row: Mapping[str, Any]) -> str:
    at = row["request_time"].strftime("%Y-%m-%d %H:%M:%S")
    return f"{row['request_id']}  {at}  {row['status_code']}  {row['method']} {row['path']}"


def _uuid(text: str | None) -> UUID | None:
    try:
        return UUID(text) if text is not None and len(text) in (32, 36) else None
    except ValueError:
        return None


def _dashed(bare: str) -> str:
    """The beginning of a UUID as it is written; a dash that would end it is left out."""
    parts = (bare[:8], bare[8:12], bare[12:16], bare[16:20], bare[20:])
    return "-".join(part for part in parts if part)


def _near(uuid: UUID | None, table: TableSchema) -> str:
    """A condition on the partition, where the id tells its time: without it every file would be looked at."""
    if uuid is None or uuid.version != 7:
        return ""
    seconds = (uuid.int >> 80) / 1000
    first, last = _DAYS
    if not first.timestamp() <= seconds <= last.timestamp():
        return ""
    day = datetime.fromtimestamp(seconds, UTC).date()
    return f" AND {table.partition_by} BETWEEN DATE '{day - timedelta(days=1)}' AND DATE '{day + timedelta(days=1)}'"
