"""Tries what a recording process would do, without leaving anything behind: can it write, can it reach."""

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from infertap.choice import Choice
from infertap.targets import OtlpTarget, TableTarget
from infertap_sidecar.places import without_secrets, writable

REACH_S = 15.0
"""Longest wait for a destination; delta-rs alone would retry for minutes."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was tried."""

    what: str
    passed: bool
    words: str


def run_checks(choice: Choice) -> Iterable[Check]:
    """The spool first, then each destination."""
    if choice.kind == "none":
        return
    fine = writable(choice.folder)
    yield Check(f"spool {choice.folder}", fine, "writable" if fine else "NOT WRITABLE: requests pass unrecorded")
    if choice.targets.table is not None:
        yield _check_table(choice.targets.table)
    if choice.targets.otlp is not None:
        yield _check_otlp(choice.targets.otlp)


def _check_table(target: TableTarget) -> Check:
    what = f"tables {without_secrets(target.uri)}"
    local = target.local_path
    if local is not None:
        fine = writable(local)
        return Check(what, fine, "writable" if fine else "NOT WRITABLE: records wait in the spool")

    def reach() -> tuple[bool, str]:
        from deltalake import DeltaTable

        exists = DeltaTable.is_deltatable(f"{target.uri}/inference", storage_options=dict(target.storage_options))
        return True, "reached; the tables exist" if exists else "reached; the tables will be made"

    return _within_time(what, reach)


def _check_otlp(target: OtlpTarget) -> Check:
    def reach() -> tuple[bool, str]:
        from infertap.destinations.otlp_probe import probe

        result = probe(target)
        return result.ok, result.line

    return _within_time(f"OTLP {without_secrets(target.endpoint)} ({target.protocol})", reach)


def _within_time(what: str, reach: Callable[[], tuple[bool, str]]) -> Check:
    """The check, or that it took too long; it goes on in a thread that the process does not wait for."""
    results: list[tuple[bool, str]] = []

    def attempt() -> None:
        try:
            results.append(reach())
        except Exception as error:  # whatever the destination's library raises is the answer to the question
            results.append((False, f"NOT REACHED: {_first_line(error)}"))

    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(REACH_S)
    passed, words = results[0] if results else (False, f"NOT REACHED: no answer within {REACH_S:g} s")
    return Check(what, passed, words)


def _first_line(error: Exception) -> str:
    lines = str(error).splitlines()
    return lines[0][:300] if lines else type(error).__name__
