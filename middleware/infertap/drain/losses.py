"""What a segment says of its requests, in the keys of the ledger: what its owner counted, and what is lost of it."""

import contextlib
from collections import Counter
from collections.abc import Mapping

from infertap.destinations.protocol import OutcomeKey
from infertap.record import LossCause
from infertap.spool.reader import Segment

_US_PER_MINUTE = 60_000_000
_NS_PER_MINUTE = 60_000_000_000


def lost_by_minute(destination: str, segment: Segment, cause: LossCause) -> Mapping[OutcomeKey, int]:
    """All requests of a segment, by minute of arrival."""
    counts: Counter[OutcomeKey] = Counter()
    for request in segment.requests:
        time_us = request.get("request_time")
        minute = time_us // _US_PER_MINUTE if isinstance(time_us, int) else _start_minute(segment)
        counts[minute, destination, "lost", cause.value] += 1
    return counts


def damaged_frames(destination: str, segment: Segment) -> Mapping[OutcomeKey, int]:
    """The frames lost to damage, in the minute of the last request that can be read."""
    times = [request.get("request_time") for request in segment.requests]
    known = [time_us for time_us in times if isinstance(time_us, int)]
    minute = max(known) // _US_PER_MINUTE if known else _start_minute(segment)
    return {(minute, destination, "lost", LossCause.DAMAGED.value): segment.damaged}


def owner_counts(segment: Segment) -> Mapping[OutcomeKey, int]:
    """The owner's cumulative counts, by minute of arrival; the last frame wins, one of another shape says nothing."""
    counts: dict[OutcomeKey, int] = {}
    for frame in segment.ledger:
        with contextlib.suppress(KeyError, TypeError, ValueError, AttributeError):
            for minute, outcomes in frame["minutes"].items():
                for name, count in outcomes.items():
                    outcome, _, cause = name.partition("/")
                    counts[int(minute), "", outcome, cause] = int(count)
    return counts


def _start_minute(segment: Segment) -> int:
    started_ns = segment.header.get("started_ns")
    return started_ns // _NS_PER_MINUTE if isinstance(started_ns, int) else 0
