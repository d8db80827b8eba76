"""What the cap skips is counted once, also where a table has it already and could not say so: real tables."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable, QueryBuilder

from infertap.clock import SystemClock
from infertap.destinations.table import TableDestination
from infertap.drain.loop import Drainer, Stop
from infertap.errors import RetryableError
from infertap.record import InferenceRecord, LossCause
from infertap.spool.frames import Kind, pack
from infertap.spool.lock import FileLock
from infertap.targets import TableTarget

ONLY_THE_LEDGER_FAILS, NOTHING_ARRIVES = "ledger", ""


def _fail_after_the_commit(destination: TableDestination, *, times: int) -> None:
    assert destination._tables is not None
    counter = destination._tables.ledger
    real = counter.count
    left = times

    def count(*args: Any) -> Any:
        nonlocal left
        counted = real(*args)
        if left:
            left -= 1
            raise RetryableError("the answer was lost")
        return counted

    counter.count = count  # type: ignore[method-assign]


@pytest.fixture
def drain(bench: Any) -> Callable[..., None]:
    """One pass of a drainer over the bench's folder into Delta tables."""

    def drain(*, spool_bytes_max: int = 1 << 30, spoil: Callable[[TableDestination], None] | None = None) -> None:
        settings = bench.settings(spool_bytes_max=spool_bytes_max)
        destination = TableDestination(
            TableTarget(str(bench.tables)), parked_dir=bench.folder.parked_dir, clock=SystemClock()
        )
        destination.open()
        if spoil is not None:
            spoil(destination)
        lock = FileLock.try_acquire(bench.folder.drainer_lock)
        assert lock is not None
        Drainer(
            settings,
            [destination],
            SystemClock(),
            lock=lock,
            state=bench.state(),
            stop=Stop(bench.folder),
            follow=False,
        ).run()

    return drain


def _rows(tables: Path, table: str, columns: str) -> list[tuple[Any, ...]]:
    found = QueryBuilder().register("t", DeltaTable(str(tables / table))).execute(f"SELECT {columns} FROM t").read_all()
    return list(zip(*(found.column(index).to_pylist() for index in range(found.num_columns)), strict=True))


def _sums(tables: Path) -> dict[str, int]:
    sums: Counter[str] = Counter()
    for destination, outcome, cause, count in _rows(tables, "ledger", "destination, outcome, cause, count"):
        sums["/".join(filter(None, (destination, outcome, cause)))] += count
    return dict(sums)


@pytest.mark.parametrize(
    ("broken", "became"),
    [(ONLY_THE_LEDGER_FAILS, "table/written/recovered"), (NOTHING_ARRIVES, "table/lost/spool_full")],
)
def test_rows_whose_count_could_not_be_written_are_counted_once(
    bench: Any, drain: Callable[..., None], broken: str, became: str
) -> None:
    """The cap skips them while the ledger is away; when it is back, the tables say whether they hold the rows."""
    writer = bench.spool(["a", "b"], ["c"])
    writer.ledger.lose(0, LossCause.QUEUE_FULL, 2)
    writer.seal()
    writer.close()
    obstacle = bench.tables / broken
    obstacle.parent.mkdir(exist_ok=True)
    obstacle.write_text("in the way")
    drain()
    drain(spool_bytes_max=1)
    assert bench.segments() == []
    obstacle.unlink()
    drain()
    assert _sums(bench.tables) == {"seen": 5, "kept": 3, "lost/queue_full": 2, became: 3}
    arrived = broken == ONLY_THE_LEDGER_FAILS
    assert len(_rows(bench.tables, "inference", "request_id")) == (3 if arrived else 0)
    assert bench.folder.slot_ids() == []


def test_rows_that_are_counted_already_are_not_lost_as_well(bench: Any, drain: Callable[..., None]) -> None:
    """The ledger's commit went through and its answer did not: the skip adds nothing."""
    bench.spool(["a", "b"]).close()
    drain(spool_bytes_max=1, spoil=lambda destination: _fail_after_the_commit(destination, times=1))
    assert bench.segments() == []
    drain()
    assert _sums(bench.tables) == {"seen": 2, "kept": 2, "table/written": 2}


def test_what_comes_behind_a_skip_does_not_change_what_became_of_it(bench: Any, drain: Callable[..., None]) -> None:
    """Decided before anything later is delivered: afterwards the tables would claim to hold the skipped rows."""
    writer = bench.spool(["a", "b"])
    bench.tables.write_text("in the way")
    drain(spool_bytes_max=1)
    bench.tables.unlink()
    _spool(writer, "c")
    drain()
    writer.close()
    drain()
    assert _sums(bench.tables) == {"seen": 3, "kept": 3, "table/written": 1, "table/lost/spool_full": 2}


def _spool(writer: Any, request_id: str) -> None:
    writer.append([(Kind.REQUEST, pack(InferenceRecord(request_id, 0).to_payload()))], minutes=[0])
    writer.flush()
    writer.seal()
