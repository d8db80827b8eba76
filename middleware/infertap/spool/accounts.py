"""What is left of slots that are gone: the sums of their counters and, where no table keeps a ledger, a ledger by day.

1. A slot is added before it is removed, and its id noted with it: after a crash in between it is not added again.
2. Only the holder of `drainer.lock` writes. Whoever sums up reads the slots first and this file after them, and leaves
   out the slots that it names: so no sum ever falls, and nothing counts twice.
3. Its size is bounded: days beyond `DAYS_MAX` become one sum.
"""

import contextlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any, Self

from infertap.errors import SpoolError
from infertap.record import LossCause
from infertap.spool.cursors import Cursors
from infertap.spool.folder import SpoolFolder
from infertap.spool.jsonfile import read_json, write_json_atomic
from infertap.spool.page import PageView

DAYS_MAX = 400
EARLIER = "earlier"
"""Stands in the ledger for all days that are not kept apart any more."""

_RETIRED_MAX = 256
"""Ids that are remembered: more slots than a drainer can remove while somebody sums up."""
_MINUTES_OF_A_DAY = 1_440
_EPOCH = date(1970, 1, 1)
_COUNTERS = ("seen", "finished", "kept", "sampled", "background_failures", "capture_failures", "spans_dropped")

Ledger = dict[str, Counter[str]]
"""UTC day (`2026-11-28`) -> `outcome`, `lost/cause`, or either behind `otlp:` -> requests."""


@dataclass(slots=True)
class Accounts:
    """The content of `totals.json`."""

    counters: Counter[str] = field(default_factory=Counter)
    """Names of `PageView`'s fields, and `lost/cause`."""
    ledger: Ledger = field(default_factory=dict)
    retired: list[str] = field(default_factory=list)
    """The slots that were added last, the newest at the end."""

    @classmethod
    def load(cls, folder: SpoolFolder) -> Self:
        """Reads the file; of a missing or damaged one, what can be understood.

        Raises:
            OSError: It is there and cannot be read now; what is written after that would forget it.
        """
        data = read_json(folder.totals) or {}
        days = data.get("ledger")
        retired = data.get("retired")
        return cls(
            _counter(data.get("counters")),
            {str(day): _counter(of_day) for day, of_day in days.items()} if isinstance(days, dict) else {},
            [str(spool_id) for spool_id in retired] if isinstance(retired, list) else [],
        )

    @classmethod
    def look(cls, folder: SpoolFolder) -> Self:
        """As `load`, for those who write nothing; empty where it cannot be read now."""
        try:
            return cls.load(folder)
        except OSError:
            return cls()

    def retire(self, folder: SpoolFolder, page: PageView | None, cursors: Cursors, *, keep_ledger: bool) -> None:
        """Adds a slot that is about to be removed, durably; one that was added before changes nothing.

        Args:
            page: None where it cannot be read.
            cursors: The slot's, with all that was counted of it.
            keep_ledger: Whether no table does.

        Raises:
            OSError: Nothing is written.
        """
        if cursors.spool_id in self.retired:
            return
        if page is not None:
            self.counters.update(counters_of(page))
        if keep_ledger:
            add_ledger(self.ledger, cursors)
        self._bound()
        self.retired = [*self.retired, cursors.spool_id][-_RETIRED_MAX:]
        data = {"counters": self.counters, "ledger": self.ledger, "retired": self.retired}
        write_json_atomic(folder.totals, data)

    def _bound(self) -> None:
        days = sorted(day for day in self.ledger if day != EARLIER)
        for day in days[:-DAYS_MAX]:
            self.ledger.setdefault(EARLIER, Counter()).update(self.ledger.pop(day))


def counted(folder: SpoolFolder) -> tuple[list[PageView], Counter[str]]:
    """The pages of the slots, and all counters: theirs and those of slots that are gone."""
    pages: dict[str, PageView] = {}
    for spool_id in folder.slot_ids():
        # A slot may end while we look.
        with contextlib.suppress(SpoolError):
            pages[spool_id] = PageView.read(folder.slot_dir(spool_id) / "page")
    accounts = Accounts.look(folder)
    pages = {spool_id: page for spool_id, page in pages.items() if spool_id not in accounts.retired}
    totals = accounts.counters
    for page in pages.values():
        totals.update(counters_of(page))
    return list(pages.values()), totals


def counters_of(page: PageView) -> Counter[str]:
    """A page's counters under the names of `Accounts.counters`."""
    counters = Counter({name: getattr(page, name) for name in _COUNTERS})
    counters.update({f"lost/{cause}": count for cause, count in page.lost.items() if cause in LossCause})
    return counters


def add_ledger(ledger: Ledger, cursors: Cursors) -> None:
    """Adds what a slot's cursors have counted, day by day."""
    for (minute, destination, outcome, cause), count in cursors.outcomes.items():
        _add(ledger, minute // _MINUTES_OF_A_DAY, destination, outcome, cause, count)
    for (day, destination, outcome, cause), count in cursors.days.items():
        _add(ledger, day, destination, outcome, cause, count)


def read_ledger(folder: SpoolFolder) -> Ledger:
    """Of slots that are gone, and of those that are there, as far as delivered; empty where a table is the ledger."""
    if "table" in (read_json(folder.destination) or {}):
        return {}
    cursors = [Cursors.load(folder, spool_id) for spool_id in folder.slot_ids()]
    accounts = Accounts.look(folder)
    for of_slot in cursors:
        if of_slot.spool_id not in accounts.retired:
            add_ledger(accounts.ledger, of_slot)
    return accounts.ledger


def _add(ledger: Ledger, day: int, destination: str, outcome: str, cause: str, count: int) -> None:
    name = f"{outcome}/{cause}" if cause else outcome
    of_day = ledger.setdefault(str(_EPOCH + timedelta(days=day)), Counter())
    of_day[f"{destination}:{name}" if destination else name] += count


def _counter(data: Any) -> Counter[str]:
    counts: Mapping[Any, Any] = data if isinstance(data, dict) else {}
    return Counter({str(name): count for name, count in counts.items() if type(count) is int})
