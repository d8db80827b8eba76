"""`infertap query` and `show` say what the tables do not hold yet."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from infertap.drain.state import DestinationStatus, DrainerState
from infertap.spool.cursors import Cursors
from infertap.spool.folder import SpoolFolder, list_segments, segment_no_of
from infertap.spool.lock import FileLock

COUNT = "SELECT count(*) AS n FROM inference"


def folder_in(spool: Path) -> SpoolFolder:
    """The spool's only folder."""
    (path,) = (path.parent for path in spool.glob("*/destination.json"))
    return SpoolFolder(path)


@contextmanager
def drainer_at_work(folder: SpoolFolder, status: DestinationStatus | None = None) -> Iterator[None]:
    """The lock and the report of a living one."""
    lock = FileLock.try_acquire(folder.drainer_lock)
    assert lock is not None
    DrainerState(destinations={"table": status or DestinationStatus()}).save(folder.drainer_state)
    yield
    lock.close()


@pytest.mark.parametrize("arguments", [("query", COUNT), ("show",), ("show", "0193e0a2")])
def test_before_the_first_commit_nobody_is_told_that_nothing_was_recorded(
    infertap: Any, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    """What waits, and what brings it into the tables: the command, or the drainer that is at work."""
    infertap.record()
    folder = folder_in(tmp_path / "inference_tables" / ".spool")
    result = infertap(*arguments)
    assert result.returncode == 1
    assert result.stderr == (
        f"infertap {arguments[0]}: there is no table `inference` yet: 3 requests wait in the spool; no drainer is at "
        f"work: infertap drain ./inference_tables/.spool/{folder.path.name} delivers them\n"
    )
    with drainer_at_work(folder):
        result = infertap(*arguments)
    assert "3 requests wait in the spool; they land with the next commit (commit_interval_s)\n" in result.stderr


def test_a_spool_that_cannot_be_seen_is_no_reason_to_refuse_the_tables(infertap: Any, tmp_path: Path) -> None:
    """A loop of symbolic links stands for another user's slot, which root could read all the same."""
    infertap.record()
    assert infertap("drain").returncode == 0
    infertap.record()
    slots = folder_in(tmp_path / "inference_tables" / ".spool").path / "slots"
    (slots / "0123456789abcdef").symlink_to("0123456789abcdef")
    for arguments in (("query", COUNT), ("show",), ("query", "SHOW TABLES")):
        result = infertap(*arguments)
        assert result.returncode == 0, result.stderr
        assert "cannot be seen: Too many levels of symbolic links" in result.stderr


def test_a_delivery_that_fails_promises_nothing(infertap: Any, tmp_path: Path) -> None:
    """Its reason stands in place of the time."""
    infertap.record()
    with drainer_at_work(folder_in(tmp_path / "inference_tables" / ".spool"), DestinationStatus(last_error="no room")):
        result = infertap("show")
    assert "3 requests wait in the spool, and the delivery fails: no room (infertap doctor says more)" in result.stderr
    assert "land" not in result.stderr


def test_an_answer_from_the_tables_says_what_is_not_in_it(infertap: Any) -> None:
    """On standard error, so that the data stay data; once all has landed, nothing is said."""
    infertap.record()
    infertap("drain")
    assert (infertap("query", COUNT).stderr, infertap("show").stderr) == ("", "")
    infertap.record()
    counted, newest, unknown = infertap("query", COUNT), infertap("show", "--json"), infertap("show", "ffff")
    assert json.loads(counted.stdout) == {"n": 3}
    assert counted.stderr.startswith("infertap query: 3 requests wait in the spool; ")
    assert json.loads(newest.stdout)["inference"]["path"] == "/v1/broken"
    assert newest.stderr.startswith("infertap show: there may be newer ones: 3 requests wait in the spool; ")
    assert "no request ffff in ./inference_tables (3 requests wait in the spool; " in unknown.stderr
    known = json.loads(newest.stdout)["inference"]["request_id"]
    assert infertap("show", known).stderr == ""


def test_the_spool_of_other_tables_is_not_theirs(infertap: Any, tmp_path: Path) -> None:
    """Several tables may share a `spool_dir`; one that is set is looked into, also from elsewhere."""
    infertap.record("one", INFERTAP_SPOOL_DIR="spool")
    (tmp_path / "away").mkdir()
    for tables, words in (("one", "3 requests wait in the spool"), ("two", "nothing was recorded")):
        result = infertap("query", COUNT, "--tables", tables, INFERTAP_SPOOL_DIR="spool")
        assert words in result.stderr
    assert "nothing was recorded" in infertap("query", COUNT, "--tables", "one").stderr


def test_what_waits_for_another_destination_is_in_the_tables(infertap: Any, tmp_path: Path) -> None:
    """With `both`, a segment stays for OTLP after the table has it."""
    infertap.record()
    infertap("drain")
    both = {
        "INFERTAP_DESTINATION": "both",
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1",
        "OTEL_TRACES_SAMPLER": "always_off",
    }
    shutil.rmtree(tmp_path / "inference_tables" / ".spool")
    infertap.record(**both)
    assert "3 requests wait" in infertap("query", COUNT, **both).stderr
    folder = folder_in(tmp_path / "inference_tables" / ".spool")
    for spool_id in folder.slot_ids():
        cursors = Cursors.load(folder, spool_id)
        cursors.advance("table", max(map(segment_no_of, list_segments(folder.slot_dir(spool_id)))))
        cursors.save(folder)
    assert infertap("query", COUNT, **both).stderr == ""
