"""Counters go on when a worker's slot goes, and an OTLP destination's ledger outlives it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from infertap import Config
from infertap.choice import Choice, choose
from infertap.clock import SystemClock
from infertap.metrics import FolderCollector
from infertap.otel_env import OtelEnvironment
from infertap.record import LossCause
from infertap.spool.accounts import Accounts, read_ledger
from infertap.targets import OtlpTarget, Targets

WaitFor = Callable[..., Any]


@pytest.fixture
def kept(bench: Any, tmp_path: Path) -> Callable[[], float]:
    """Reads the metric of durable rows from the bench's folder."""
    # The folder is all that the collector takes from a choice that it counts for.
    choice = choose(Config(tables=str(tmp_path / "t")), OtelEnvironment.read({}), cwd=tmp_path)

    class OfBench:
        def __getattr__(self, name: str) -> Any:
            return bench.folder.path if name == "folder" else getattr(choice, name)

    registry = CollectorRegistry()
    registry.register(FolderCollector(_as_choice(OfBench()), SystemClock()))
    return lambda: registry.get_sample_value("infertap_requests_kept_total") or 0.0


def _as_choice(thing: Any) -> Choice:
    chosen: Choice = thing
    return chosen


def test_the_sum_never_falls_when_a_worker_dies_and_a_restart_keeps_it(
    bench: Any, kept: Callable[[], float], wait_for: WaitFor
) -> None:
    """Two workers, one is killed, its slot goes; then all go, and others come: each look shows at least the last."""
    seen = [0.0]

    def look() -> float:
        seen.append(kept())
        assert seen[-1] >= seen[-2]
        return seen[-1]

    first, second = bench.owner(), bench.owner()
    first.tell(rows=["a", "b", "c"])
    second.tell(rows=["d", "e"])
    wait_for(lambda: look() == 5 and len(bench.rows()) == 5)
    first.kill()
    wait_for(lambda: look() == 5 and bench.folder.slot_ids() == [second.slot])
    assert look() == 5
    second.tell(stop=30.0)
    wait_for(lambda: look() == 5 and bench.folder.slot_ids() == [] and bench.is_drained_by_nobody())
    third = bench.owner()
    third.tell(rows=["f"])
    wait_for(lambda: look() == 6)


def _only_otlp(bench: Any) -> Any:
    return replace(bench.settings(), targets=Targets(otlp=OtlpTarget(f"sqlite:{bench.collector}", "grpc")))


def test_the_ledger_of_an_otlp_destination_outlives_its_slots(bench: Any, wait_for: WaitFor) -> None:
    """Seen, kept and written of a process that has ended cleanly stand in the folder, by day of arrival."""
    day = 24 * 60
    writer = bench.spool(["a", "b"], minute=2)
    writer.ledger.lose(2 * day, LossCause.QUEUE_FULL, 3)
    writer.seal()
    writer.close()
    bench.drainer(_only_otlp(bench), follow=False).run()

    assert bench.folder.slot_ids() == []
    assert read_ledger(bench.folder) == {
        "1970-01-01": {"seen": 2, "kept": 2},
        "1970-01-03": {"seen": 3, "lost/queue_full": 3},
    }


def test_the_ledger_tells_of_living_slots_what_is_delivered(bench: Any) -> None:
    """Before the process ends its counts stand in its cursors; where a table keeps the ledger, nowhere else."""
    writer = bench.spool(["a", "b"], minute=2)
    bench.drainer(_only_otlp(bench), follow=False).run()
    assert read_ledger(bench.folder) == {"1970-01-01": {"seen": 2, "kept": 2}}
    writer.close()


def test_a_folder_with_tables_has_no_second_ledger(bench: Any) -> None:
    """There the table `ledger` is the only one."""
    bench.spool(["a"], minute=2).close()
    bench.drainer(follow=False).run()
    assert bench.folder.slot_ids() == []
    assert Accounts.load(bench.folder).counters["kept"] == 1
    assert read_ledger(bench.folder) == {}
