"""Appends to one Delta table, each segment exactly once, whoever else writes to it.

1. `refresh`, `committed` and `commit` work on one handle: delta-rs refuses a commit whose transaction id another writer
   moved since that handle was updated. Read and write are thus a compare-and-set; by path they would not be.
2. After any error the handle is thrown away: the error may have come after the commit.
3. For a local table nothing is reported as committed before it is on the disk.
4. What a handle says of transactions changes only with its version, so it is asked once for each slot and version.
5. Each operation of a handle costs more with every version since the checkpoint that it was opened at: after a
   checkpoint it is thrown away, too.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from arro3.core import RecordBatch, Table
from deltalake import (
    ColumnProperties,
    CommitProperties,
    DeltaTable,
    PostCommitHookProperties,
    QueryBuilder,
    Transaction,
    WriterProperties,
    write_deltalake,
)
from deltalake.exceptions import TableNotFoundError

from infertap.clock import Clock
from infertap.errors import DestinationError, RetryableError
from infertap.tables.arrow import BatchEncoder
from infertap.tables.failures import describe, is_foreign_panic
from infertap.tables.local import VersionStamp, prepare_folder, settle, settle_newest
from infertap.tables.rows import SegmentHead
from infertap.tables.schema import TableSchema
from infertap.targets import TableTarget

T = TypeVar("T")

CHECKPOINT_COMMITS = 20
"""Commits between two checkpoints: a reader fetches each commit since the last one (one to two GETs each)."""

_HANDLE_VERSIONS_MAX = 100
_TRANSACTION_TRUSTED_NS = 20 * 86_400 * 10**9
"""A slot older than this is looked up in its rows: the table forgets transaction ids after 30 days."""

NO_HOOKS = PostCommitHookProperties(create_checkpoint=False, cleanup_expired_logs=False)
"""Checkpoints and cleanup are `maintenance`'s: beside a commit they took seconds."""


class DeltaWriter:
    """Appends to one table. Used from one thread; `refresh` before each `commit`.

    All methods raise RetryableError where the table cannot be reached, read or written, and never quote content.
    """

    def __init__(self, table: TableSchema, target: TableTarget, clock: Clock) -> None:
        self.table = table
        self.encoder = BatchEncoder(table)
        self._target = target
        self._clock = clock
        self._properties = writer_properties(table)
        self._folder = local_folder(target, table)
        self._handle: DeltaTable | None = None
        self._opened_version = 0
        self._stamp: VersionStamp | None = None
        """Of the handle's version, where the table is local."""
        self._held: dict[str, int] = {}
        """What the handle said of slots, at its present version."""
        self.checkpoint_due = False
        """Whether a commit of ours crossed a multiple of `CHECKPOINT_COMMITS`: each is crossed by one writer."""

    def refresh(self) -> None:
        """See the newest version of the table; make the table if it is absent."""
        handle = self._handle
        if handle is None or self._is_spent(handle):
            handle = self._handle = self._call(
                "opening", lambda: open_or_create(self.table, self._target, self.encoder)
            )
            self._opened_version = handle.version()
        elif self._stamp is not None and self._stamp.is_newest():
            return
        else:
            self._call("reading the log", handle.update_incremental)
        self._at_version(handle.version())
        self._held = {}

    def committed(self, spool_id: str, *, started_ns: int) -> int:
        """The highest segment of this slot that the table holds; 0 for none.

        Args:
            started_ns: Start of the slot's oldest waiting segment, nanoseconds since the epoch.
        """
        number = self._held.get(spool_id)
        if number is None:
            handle = self._opened()
            number = self._call("reading the log", lambda: handle.transaction_version(spool_id))
        if number is None and self._clock.wall_ns() - started_ns > _TRANSACTION_TRUSTED_NS:
            found = self.select(f"SELECT max(segment_no) AS n FROM t WHERE spool_id = {sql_text(spool_id)}")
            number = found["n"].to_pylist()[0] if found.num_rows else None
        if number is None:
            return 0
        self._held[spool_id] = int(number)
        return int(number)

    def waiting(self, heads: Sequence[SegmentHead]) -> list[SegmentHead]:
        """The segments of `heads`, ascending for each slot, that the table does not hold."""
        oldest: dict[str, SegmentHead] = {}
        for head in heads:
            oldest.setdefault(head.spool_id, head)
        held = {slot: self.committed(slot, started_ns=head.started_ns) for slot, head in oldest.items()}
        return [head for head in heads if head.segment_no > held[head.spool_id]]

    def commit(self, batch: RecordBatch, segments: Mapping[str, int]) -> None:
        """Append `batch` and record for each slot the highest segment that is now in; durable when this returns.

        Raises:
            RetryableError: nothing is known; start again with `refresh`.
            RowsRefusedError: nothing was written; the table refuses at least one of the rows.
        """
        handle = self._opened()
        now_ms = self._clock.wall_ns() // 1_000_000
        transactions = [Transaction(spool_id, number, now_ms) for spool_id, number in segments.items()]
        before = handle.version()
        self._call("committing", lambda: self._append(handle, batch, transactions))
        after = handle.version()
        # Another writer may have come between.
        self._held = {**self._held, **segments} if after == before + 1 else {}
        self.checkpoint_due |= after // CHECKPOINT_COMMITS > before // CHECKPOINT_COMMITS

    def select(self, sql: str) -> Table:
        """The result of a query over `t`, the table at the handle's version. `sql` is ours, never a user's."""
        handle = self._opened()
        return self._call("querying", lambda: QueryBuilder().register("t", handle).execute(sql).read_all())

    def layout(self) -> DeltaTable:
        """The handle, for its schema and settings."""
        return self._opened()

    def forget(self) -> None:
        """Throw the handle away; the next `refresh` opens a fresh one."""
        self._handle = self._stamp = None
        self._held = {}

    def _append(self, handle: DeltaTable, batch: RecordBatch, transactions: list[Transaction]) -> None:
        before = handle.version()
        self._stamp = None
        write_deltalake(
            handle,
            batch,
            mode="append",
            schema_mode="merge",
            writer_properties=self._properties,
            commit_properties=CommitProperties(app_transactions=transactions),
            post_commithook_properties=NO_HOOKS,
        )
        after = handle.version()
        if self._folder is not None:
            settle(self._folder, before + 1, after)
        self._at_version(after)

    def _is_spent(self, handle: DeltaTable) -> bool:
        """Whether it has grown too old, or the place that it looks at is not the same any more."""
        is_old = handle.version() - self._opened_version >= _HANDLE_VERSIONS_MAX
        return is_old or (self._stamp is not None and not self._stamp.still_there())

    def _at_version(self, version: int) -> None:
        self._stamp = VersionStamp.of(self._folder, version) if self._folder is not None else None

    def _opened(self) -> DeltaTable:
        if self._handle is None:
            raise RetryableError(f"table `{self.table.name}`: not opened")
        return self._handle

    def _call(self, doing: str, action: Callable[[], T]) -> T:
        try:
            return call(self.table, doing, action)
        except DestinationError:
            self.forget()
            raise


def call(table: TableSchema, doing: str, action: Callable[[], T]) -> T:
    """The result of `action`; what a foreign library raises in it becomes an error of ours.

    This is the border to delta-rs, whose errors are plain Exceptions and whose panics are BaseExceptions.
    """
    try:
        return action()
    except DestinationError:
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and not is_foreign_panic(error):
            raise
        failure = describe(error, table=table.name, doing=doing)
    # Raised out here, so that the foreign error, whose text may quote rows, is not chained to it.
    raise failure


def open_or_create(table: TableSchema, target: TableTarget, encoder: BatchEncoder) -> DeltaTable:
    """A handle on the table, which is made with our settings if it is absent. Raises what delta-rs raises."""
    folder = local_folder(target, table)
    if folder is not None:
        prepare_folder(folder.parent, table.name)
    handle = open_table(table, target)
    if handle is None:
        handle = DeltaTable.create(
            table_uri(target, table),
            encoder.schema,
            mode="ignore",
            partition_by=[table.partition_by],
            configuration=table_properties(table),
            storage_options=dict(target.storage_options) or None,
        )
    if folder is not None:
        settle_newest(folder, handle.version())
    return handle


def open_table(table: TableSchema, target: TableTarget) -> DeltaTable | None:
    """A handle on the table, or None where it does not exist (yet). Raises what delta-rs raises."""
    try:
        return DeltaTable(table_uri(target, table), storage_options=dict(target.storage_options) or None)
    except TableNotFoundError:
        return None


def is_table(target: TableTarget) -> bool:
    """Whether the root is a table itself. Raises what delta-rs raises."""
    place = str(target.local_path or target.uri)
    return DeltaTable.is_deltatable(place, storage_options=dict(target.storage_options) or None)


def table_uri(target: TableTarget, table: TableSchema) -> str:
    """Where the table is, as delta-rs wants it."""
    folder = local_folder(target, table)
    return str(folder) if folder is not None else f"{target.uri.rstrip('/')}/{table.name}"


def local_folder(target: TableTarget, table: TableSchema) -> Path | None:
    """The table's folder, where its root is a local one."""
    return target.local_path / table.name if target.local_path is not None else None


def table_properties(table: TableSchema) -> dict[str, str | None]:
    """The settings of a new table. delta-rs does not check their values, so a test looks at what they do."""
    return {
        "delta.checkpointInterval": str(CHECKPOINT_COMMITS),
        "delta.logRetentionDuration": "interval 2 days",
        "delta.deletedFileRetentionDuration": "interval 2 days",
        "delta.setTransactionRetentionDuration": "interval 30 days",
        "delta.dataSkippingStatsColumns": ",".join(table.statistics),
    }


def writer_properties(table: TableSchema) -> WriterProperties:
    """How Parquet is written, by commits and by compaction alike.

    Statistics are off by default and on by name, because naming a MAP column switches nothing off: a header's value
    would stand in the footer.
    """
    counted = ColumnProperties(statistics_enabled="CHUNK")
    body = ColumnProperties(statistics_enabled="NONE", dictionary_enabled=False)
    return WriterProperties(
        compression="ZSTD",
        compression_level=1,
        statistics_truncate_length=64,
        default_column_properties=ColumnProperties(statistics_enabled="NONE"),
        column_properties=dict.fromkeys(table.statistics, counted) | dict.fromkeys(table.bodies, body),
    )


def sql_text(value: str) -> str:
    """`value` as a literal of SQL. In it a single quote is doubled, and nothing else is special."""
    return "'" + value.replace("'", "''") + "'"
