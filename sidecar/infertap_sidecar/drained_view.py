"""What `infertap drain` says of one folder: what was delivered where, what is left, and why."""

from collections.abc import Iterator, Mapping

from infertap.drain.state import DestinationStatus
from infertap.spool.waiting import Waiting
from infertap_sidecar.places import short, size_text
from infertap_sidecar.spool_survey import FolderReport, places

_NAMES = {"table": "tables", "otlp": "OTLP"}


def drained_lines(
    before: FolderReport, after: FolderReport, redirected_to: Mapping[str, str] | None = None
) -> Iterator[str]:
    """One line for the folder, one for each destination, one for what is left; no line end at the end.

    `redirected_to`: name of each destination and where it is, where these are others than the folder's own.
    """
    if not before.waiting.segments and not after.waiting.segments:
        yield f"{short(after.path)}: nothing to deliver to {after.destination}{_by_another(after)}"
    else:
        instead = f", written for {after.destination} and redirected" if redirected_to else ""
        yield f"{short(after.path)}{instead}:"
        for name, place in (redirected_to or places(after.path)).items():
            status = after.drainer.destinations.get(name, DestinationStatus())
            yield f"  {_NAMES[name]} {place}: {_delivered(before.drainer.destinations.get(name), status)}"
        yield f"  {_left(after)}"
    if after.parked:
        refused = "1 record that no destination takes is" if after.parked == 1 else f"{after.parked:,} records are"
        yield f"  {refused} in its folder `parked`"


def abandoned_lines(abandoned: Mapping[str, Waiting], places: Mapping[str, str]) -> Iterator[str]:
    """One line, with its end, for each destination that the settings no longer name: what it never got."""
    for name, waiting in abandoned.items():
        yield f"  {_NAMES[name]} {places[name]}: {waiting.words} not sent; the settings do not name it any more\n"


def waiting_elsewhere(report: FolderReport) -> str:
    """One line about a folder beside, in which something waits."""
    return (
        f"{short(report.path)}: {report.waiting.sentence} for {report.destination}"
        f" (infertap drain {short(report.path)})"
    )


def _delivered(before: DestinationStatus | None, after: DestinationStatus) -> str:
    earlier = before or DestinationStatus()
    requests, spans = after.records - earlier.records, after.spans - earlier.spans
    if after.last_error and not requests and not spans:
        return f"nothing delivered: {after.last_error}"
    words = f"{Waiting(1, requests, spans).words} delivered" if requests or spans else "nothing delivered"
    return f"{words}; the rest is refused: {after.last_error}" if after.last_error else words


def _left(report: FolderReport) -> str:
    if not report.waiting.segments:
        return "nothing is left"
    newer = report.drainer.unsupported_segments
    why = " (a newer infertap wrote some of it, and delivers that)" if newer else ""
    return f"{report.waiting.sentence}, {size_text(report.size_bytes)}{why}{_by_another(report)}"


def _by_another(report: FolderReport) -> str:
    if not report.drained:
        return ""
    return f"; process {report.drainer.pid} drains this folder" if report.drainer.pid else "; another process drains it"
