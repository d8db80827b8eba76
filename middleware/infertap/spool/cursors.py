"""How far each destination has come in a slot, and what the drainer alone decided about its records.

For a destination with transactions of its own (the table) the cursor is only a hint.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from infertap.record import UNDECIDED
from infertap.spool.folder import SpoolFolder
from infertap.spool.jsonfile import read_json, write_json_atomic

OutcomeKey = tuple[int, str, str, str]
"""(epoch minute of arrival, destination, outcome, cause or ""); destination "" for what its owner counted."""

MINUTES_MAX = 360
"""Minutes before now that are kept apart where `fold` is called; older ones are summed by day."""

_SPANS_MAX = 256
"""Spans of folded minutes that are remembered: more than wrong clocks and rare requests can make in years."""

_MINUTES_OF_A_DAY = 1_440


@dataclass(slots=True)
class Cursors:
    """One slot's cursors. Belongs to the drainer's thread."""

    spool_id: str
    segment_nos: dict[str, int] = field(default_factory=dict)
    """destination -> highest segment number that it has passed."""
    outcomes: dict[OutcomeKey, int] = field(default_factory=dict)
    """Cumulative over the slot's life."""
    days: dict[OutcomeKey, int] = field(default_factory=dict)
    """What `fold` has summed up; the first part of the key is the epoch day."""
    folded: list[tuple[int, int]] = field(default_factory=list)
    """First and last minute of each span that is in `days`, ascending. Several, where a clock has jumped: what lies
    between them is still open."""

    @classmethod
    def load(cls, folder: SpoolFolder, spool_id: str) -> Self:
        """Reads the slot's cursors. Of a missing or damaged file they are empty: what is still there goes out again."""
        data = read_json(folder.cursor(spool_id)) or {}
        try:
            return cls(
                spool_id,
                _parse_segment_nos(data),
                _parse_outcomes(data.get("outcomes", {})),
                _parse_outcomes(data.get("days", {})),
                [(int(first), int(last)) for first, last in data.get("folded", ())],
            )
        except (AttributeError, KeyError, TypeError, ValueError):
            return cls(spool_id)

    def save(self, folder: SpoolFolder) -> None:
        """Replaces the file, durable. Raises OSError, the old file untouched."""
        data: dict[str, Any] = {
            "destinations": {name: {"segment_no": number} for name, number in self.segment_nos.items()},
            "outcomes": _outcomes_text(self.outcomes),
        }
        if self.folded:
            data |= {"days": _outcomes_text(self.days), "folded": self.folded}
        write_json_atomic(folder.cursor(self.spool_id), data)

    def segment_no(self, destination: str) -> int:
        """Highest segment number that `destination` has passed; 0 before the first."""
        return self.segment_nos.get(destination, 0)

    def advance(self, destination: str, segment_no: int) -> None:
        """Moves a cursor forward; a lower number changes nothing."""
        self.segment_nos[destination] = max(segment_no, self.segment_no(destination))

    def add(self, increments: Mapping[OutcomeKey, int]) -> None:
        """Adds to the cumulative outcomes."""
        for key, count in increments.items():
            self.outcomes[key] = self.outcomes.get(key, 0) + count

    def undecided(self, destination: str) -> dict[OutcomeKey, int]:
        """What was given up for `destination` and is not decided yet."""
        return {key: count for key, count in self.outcomes.items() if key[1:3] == (destination, UNDECIDED)}

    def learn(self, cumulative: Mapping[OutcomeKey, int]) -> None:
        """Takes over counts that are cumulative by themselves. Those of folded minutes say nothing new."""
        for key, count in cumulative.items():
            if not any(first <= key[0] <= last for first, last in self.folded):
                self.outcomes[key] = max(count, self.outcomes.get(key, 0))

    def fold(self, now_minute: int) -> None:
        """Sums old minutes up by day, so that the file of a process that runs for years stays small.

        Args:
            now_minute: Later minutes are a wrong clock's, and make no other ones old.
        """
        if not self.outcomes:
            return
        before = min(now_minute, max(minute for minute, *_ in self.outcomes)) - MINUTES_MAX
        old = sorted(key for key in self.outcomes if key[0] < before)
        for key in old:
            day_key = (key[0] // _MINUTES_OF_A_DAY, *key[1:])
            self.days[day_key] = self.days.get(day_key, 0) + self.outcomes.pop(key)
        if old:
            self.folded = _spans([*self.folded, *((key[0], key[0]) for key in old)])


def _spans(pieces: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Ascending, and one span where the gap between two is too small for a clock that jumped."""
    spans: list[tuple[int, int]] = []
    for first, last in sorted(pieces):
        if spans and first - spans[-1][1] <= MINUTES_MAX:
            spans[-1] = (spans[-1][0], max(last, spans[-1][1]))
        else:
            spans.append((first, last))
    surplus = spans[: max(0, len(spans) - _SPANS_MAX + 1)]
    return [(surplus[0][0], surplus[-1][1]), *spans[len(surplus) :]] if len(surplus) > 1 else spans


def _parse_segment_nos(data: Mapping[str, Any]) -> dict[str, int]:
    return {name: int(cursor["segment_no"]) for name, cursor in data.get("destinations", {}).items()}


def _outcomes_text(outcomes: Mapping[OutcomeKey, int]) -> dict[str, int]:
    return {"|".join(map(str, key)): count for key, count in outcomes.items()}


def _parse_outcomes(data: Mapping[str, Any]) -> dict[OutcomeKey, int]:
    outcomes: dict[OutcomeKey, int] = {}
    for text, count in data.items():
        minute, destination, outcome, cause = text.split("|")
        outcomes[int(minute), destination, outcome, cause] = int(count)
    return outcomes
