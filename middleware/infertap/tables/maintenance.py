"""Keeps a commit as cheap after a month as after an hour: compaction, checkpoints, cleanup of log and dead files.

1. One maintainer per table and hour: an empty commit under the transaction id `infertap.maintain` with the hour as its
   version elects it, because delta-rs refuses the second of two such commits.
2. Compaction writes with the properties of the commits, or bodies' minima would come back into the footers.
3. Nothing younger than the table's own retention is deleted, so that readers and other writers never lose a file.
"""

import json
from dataclasses import dataclass
from functools import partial

from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError

from infertap.tables.arrow import BatchEncoder
from infertap.tables.delta import NO_HOOKS, call, local_folder, open_table, writer_properties
from infertap.tables.local import settle, settle_newest
from infertap.tables.schema import TABLES, TableSchema
from infertap.targets import TableTarget

_HOUR_NS = 3600 * 10**9
_HOURS_OF_A_WEEK = 168
_FILE_BYTES = 128 * 1024 * 1024
"""Compaction aims at files of this size, and leaves larger ones alone."""

_ELECTION = "infertap.maintain"
_VACUUM = "infertap.vacuum"


@dataclass(frozen=True, slots=True)
class TableReport:
    """What was done to one table."""

    table: str
    exists: bool
    elected: bool
    """Whether this call did the work: False where another one has done it within this hour."""
    files_removed: int = 0
    files_added: int = 0
    bytes_removed: int = 0
    bytes_added: int = 0
    files: int = 0
    """Data files of the newest version; those that are not compacted included."""
    size_bytes: int = 0
    """Of these."""
    checkpoint_version: int | None = None
    files_vacuumed: int | None = None
    """Dead files deleted; None where the weekly vacuum was not due."""


def maintain(target: TableTarget, *, now_ns: int, force: bool) -> tuple[TableReport, ...]:
    """Maintain all tables of a root.

    Args:
        now_ns: Nanoseconds since the epoch; names the hour that the election is about.
        force: Do the work also where it was done within this hour, or this week.

    Raises: RetryableError: a table cannot be read or written.
    """
    hour = now_ns // _HOUR_NS
    return tuple(call(table, "maintaining", partial(_maintain, table, target, hour, force)) for table in TABLES)


def make_checkpoint(table: TableSchema, target: TableTarget) -> int | None:
    """Write a checkpoint of the newest version; None where there is no table. Raises: RetryableError."""
    return call(table, "writing a checkpoint", lambda: _checkpoint(table, target))


def _maintain(table: TableSchema, target: TableTarget, hour: int, force: bool) -> TableReport:
    handle = open_table(table, target)
    if handle is None:
        return TableReport(table.name, exists=False, elected=False)
    first = handle.version() + 1
    if not _claim(handle, table, _ELECTION, hour, force):
        return TableReport(table.name, exists=True, elected=False)
    metrics = handle.optimize.compact(
        target_size=_FILE_BYTES,
        max_concurrent_tasks=1,
        writer_properties=writer_properties(table),
        post_commithook_properties=NO_HOOKS,
    )
    vacuumed = None
    if _claim(handle, table, _VACUUM, hour // _HOURS_OF_A_WEEK, force):
        vacuumed = len(handle.vacuum(dry_run=False, full=True, post_commithook_properties=NO_HOOKS))
    folder = local_folder(target, table)
    if folder is not None:
        settle(folder, first, handle.version())
    version = _checkpoint(table, target)
    handle.cleanup_metadata()
    sizes = handle.get_add_actions(flatten=True)["size_bytes"].to_pylist()
    return TableReport(
        table.name,
        exists=True,
        elected=True,
        files_removed=int(metrics["numFilesRemoved"]),
        files_added=int(metrics["numFilesAdded"]),
        bytes_removed=_total_bytes(metrics["filesRemoved"]),
        bytes_added=_total_bytes(metrics["filesAdded"]),
        files=len(sizes),
        size_bytes=sum(sizes),
        checkpoint_version=version,
        files_vacuumed=vacuumed,
    )


def _total_bytes(files: str) -> int:
    """Of one side of a compaction; delta-rs gives its figures as JSON."""
    return int(json.loads(files)["totalSize"])


def _claim(handle: DeltaTable, table: TableSchema, what: str, period: int, force: bool) -> bool:
    """Whether `period` is ours to work in."""
    handle.update_incremental()
    if (handle.transaction_version(what) or 0) >= period and not force:
        return False
    try:
        write_deltalake(
            handle,
            BatchEncoder(table).encode([]),
            mode="append",
            schema_mode="merge",
            commit_properties=CommitProperties(app_transactions=[Transaction(what, period)]),
            post_commithook_properties=NO_HOOKS,
        )
    except CommitFailedError:
        return False
    return True


def _checkpoint(table: TableSchema, target: TableTarget) -> int | None:
    handle = open_table(table, target)
    if handle is None:
        return None
    handle.create_checkpoint()
    folder = local_folder(target, table)
    if folder is not None:
        settle_newest(folder, handle.version())
    return handle.version()
