"""What `infertap doctor` says of one folder of the spool: who delivers it, what fails there, what was lost."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from infertap.drain.state import DestinationStatus
from infertap.record import LossCause
from infertap.spool.accounts import read_ledger
from infertap.spool.folder import SpoolFolder
from infertap.words import plural
from infertap_sidecar.places import age_text, short
from infertap_sidecar.spool_survey import FolderReport

_LOST = "lost/"


class Finding(NamedTuple):
    """One line below a folder's own."""

    text: str
    warns: bool = True
    failed: bool = False
    """Whether it is a problem of the settings at hand."""


def findings(folder: FolderReport, now_ns: int, failing: Mapping[str, str]) -> Iterator[Finding]:
    """Everything but the folder's first line.

    Args:
        failing: By name, the destinations of the settings at hand that do not work now, with the words that said so.
    """
    waits = folder.waiting.segments > 0
    for name, status in folder.drainer.destinations.items():
        if status.last_error and (waits or folder.drained):
            known = failing.get(name) if folder.current else None
            said = known is not None and known in status.last_error
            reason = "see above" if said else status.last_error
            text = _failure(name, status, reason, folder, now_ns)
            yield Finding(text, warns=not said, failed=folder.current and known is None)
    if folder.parked:
        yield Finding(f"{plural(folder.parked, 'record')} in its folder `parked`: no destination takes them")
    yield from map(Finding, _losses(folder.counters))
    ledger = read_ledger(SpoolFolder(folder.path))
    if ledger:
        yield Finding(_ledger_words(ledger), warns=False)
    else:
        yield from map(Finding, _given_up(folder))
    if folder.forgotten:
        place = short(folder.path)
        yield Finding(
            f"forgotten: nobody delivers these; infertap drain {place} sends them to {folder.destination}, "
            f"with --redirect to where the settings say now"
        )
    elif waits and folder.current and not folder.drained:
        command = f"infertap drain {short(folder.path)}"
        who = f"the next start does, or {command}" if not folder.owners else f"{command} does"
        yield Finding(f"no drainer is at work, so nobody delivers these now; {who}")


def _failure(name: str, status: DestinationStatus, reason: str, folder: FolderReport, now_ns: int) -> str:
    if not folder.drained:
        return f"{name} failed at the last try, {age_text(now_ns - status.last_error_ns)} ago: {reason}"
    due_s = (status.retry_at_ns - now_ns) / 1e9
    when = f"next try in {due_s:.0f} s" if due_s >= 1 else "the next try is due"
    return f"{name} fails ({when}): {reason}"


def _losses(counters: Mapping[str, int]) -> Iterator[str]:
    """What the processes that write to a folder have lost, up to this moment."""
    causes = {cause: count for cause in LossCause if (count := counters.get(f"lost/{cause}", 0))}
    if causes:
        reasons = ", ".join(f"{cause} {count:,}" for cause, count in causes.items())
        yield f"{sum(causes.values()):,} of {plural(counters['seen'], 'request')} were lost: {reasons}"
    if dropped := counters.get("spans_dropped", 0):
        yield f"{plural(dropped, 'span')} of the app or of a sender did not reach the spool"


def _given_up(folder: FolderReport) -> Iterator[str]:
    """What the drainer has lost of what was spooled; where a table is the ledger, it stands there only."""
    for name, status in folder.drainer.destinations.items():
        causes = {key.removeprefix(_LOST): n for key, n in sorted(status.counts.items()) if key.startswith(_LOST) and n}
        if causes:
            reasons = ", ".join(f"{cause} {count:,}" for cause, count in causes.items())
            yield f"{plural(sum(causes.values()), 'spooled request')} will never reach {name}: {reasons}"


def _ledger_words(ledger: dict[str, Counter[str]]) -> str:
    """What a folder without tables has counted."""
    totals = sum(ledger.values(), Counter())
    return f"requests since {min(ledger)}: " + ", ".join(f"{name} {totals[name]:,}" for name in sorted(totals))
