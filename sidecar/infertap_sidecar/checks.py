"""Tries what a recording process would do, without leaving anything behind: can it write, can it reach."""

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from infertap.choice import Choice
from infertap.targets import OtlpTarget, TableTarget
from infertap_sidecar.places import short, why_unwritable, without_secrets

REACH_S = 15.0
"""Longest wait for a destination; delta-rs alone would retry for minutes."""

_TABLES = ("inference", "spans", "ledger")


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was tried."""

    what: str
    passed: bool
    words: str
    destination: str = ""
    """Name of the destination that was tried; empty for the spool."""


def run_checks(choice: Choice) -> Iterable[Check]:
    """The spool first, then each destination."""
    if choice.kind == "none":
        return
    yield _check_folders(f"spool {short(choice.folder)}", [choice.folder], "requests pass unrecorded")
    if choice.targets.table is not None:
        yield replace(_check_table(choice.targets.table), destination="table")
    if choice.targets.otlp is not None:
        yield replace(_check_otlp(choice.targets.otlp), destination="otlp")


def _check_table(target: TableTarget) -> Check:
    local = target.local_path
    if local is not None:
        folders = [local, *(folder for folder in (local / name for name in _TABLES) if folder.exists())]
        return _check_folders(f"tables {short(local)}", folders, "records wait in the spool")
    what = f"tables {without_secrets(target.uri)}"

    def reach() -> tuple[bool, str]:
        from deltalake import DeltaTable

        exists = DeltaTable.is_deltatable(f"{target.uri}/inference", storage_options=dict(target.storage_options))
        return True, "reached; the tables exist" if exists else "reached; the tables will be made"

    return _within_time(what, reach, words_for=_opening_words)


def _check_folders(what: str, folders: Iterable[Path], otherwise: str) -> Check:
    reason = next(filter(None, map(why_unwritable, folders)), "")
    return Check(what, not reason, f"NOT WRITABLE, so {otherwise}: {reason}" if reason else "writable")


def _check_otlp(target: OtlpTarget) -> Check:
    def reach() -> tuple[bool, str]:
        from infertap.destinations.otlp_probe import probe

        result = probe(target)
        return result.ok, result.line

    return _within_time(f"OTLP {without_secrets(target.endpoint)} ({target.protocol})", reach)


def _within_time(
    what: str, reach: Callable[[], tuple[bool, str]], *, words_for: Callable[[Exception], str] | None = None
) -> Check:
    """The check, or that it took too long; it goes on in a thread that the process does not wait for."""
    results: list[tuple[bool, str]] = []

    def attempt() -> None:
        try:
            results.append(reach())
        except Exception as error:  # whatever the destination's library raises is the answer to the question
            results.append((False, f"NOT REACHED: {(words_for or _first_line)(error)}"))

    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(REACH_S)
    passed, words = results[0] if results else (False, f"NOT REACHED: no answer within {REACH_S:g} s")
    return Check(what, passed, words)


def _opening_words(error: Exception) -> str:
    # Here, because the tables' side is loaded only where tables are looked at.
    from infertap.tables.failures import opening_words

    return opening_words(error)


def _first_line(error: Exception) -> str:
    lines = str(error).splitlines()
    return lines[0][:300] if lines else type(error).__name__
