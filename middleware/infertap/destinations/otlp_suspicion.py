"""Which spans travel apart because a receiver fails on them while it takes others, and when one is given up for that.

1. A receiver that is down fails on everybody: a batch comes under suspicion only after it has failed `FAILURES_MIN`
   times in a row, and only while the receiver takes other spans or an empty request.
2. With each further failure the spans of a suspected batch travel in half the company, at last alone.
3. A span is given up when it has failed alone `ALONE_FAILURES_MIN` times over at least `ALONE_S_MIN`, each time with
   other spans accepted just before and an empty request just after. An empty request proves little by itself: a
   Collector whose queue is full takes it, too.
4. The next drainer goes on where this one was (`otlp_memory`). The time in between does not count.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from infertap.clock import Clock
from infertap.destinations.otlp_batches import Item, ItemKey

FAILURES_MIN = 3
ALONE_FAILURES_MIN = 5
ALONE_S_MIN = 300.0


@dataclass(slots=True)
class _Trouble:
    """One span that is not accepted yet."""

    failures: int = 0
    company_max: int = 0
    """How many spans may travel together with it, itself included; 0 while it is not suspected."""
    alone_failures: int = 0
    alone_since_s: float = 0.0
    size: int = 0
    """Bytes, known once it has failed alone."""


class Suspicion:
    """One destination's memory of failed batches. Belongs to the drainer's thread."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._troubles: dict[ItemKey, _Trouble] = {}

    def suspects(self, key: ItemKey) -> bool:
        """Whether it has failed while others passed."""
        return self.company_max(key) > 0

    def company_max(self, key: ItemKey) -> int:
        """How many spans may travel in its batch; 0 where it is not suspected."""
        trouble = self._troubles.get(key)
        return trouble.company_max if trouble is not None else 0

    def lonely_bytes(self, key: ItemKey) -> int:
        """Its size where it has failed alone; 0 where it has not."""
        trouble = self._troubles.get(key)
        return trouble.size if trouble is not None else 0

    def failed(self, batch: Sequence[Item]) -> bool:
        """Note that a batch was not taken; whether it has been so often enough to look for the cause in it."""
        for item in batch:
            self._troubles.setdefault(item.key, _Trouble()).failures += 1
        return self._troubles[batch[0].key].failures >= FAILURES_MIN

    def separate(self, batch: Sequence[Item]) -> None:
        """From now on the spans of this batch travel in half the company."""
        for item in batch:
            trouble = self._troubles[item.key]
            trouble.company_max = max(len(batch) // 2, 1)
            if len(batch) == 1:
                trouble.size = max(item.size, 1)

    def failed_alone(self, item: Item) -> bool:
        """Note a failure between two acceptances; whether the span is to be given up."""
        now_s = self._clock.monotonic_s()
        trouble = self._troubles[item.key]
        if not trouble.alone_failures:
            trouble.alone_since_s = now_s
        trouble.alone_failures += 1
        return trouble.alone_failures >= ALONE_FAILURES_MIN and now_s - trouble.alone_since_s >= ALONE_S_MIN

    def accepted(self, batch: Iterable[Item]) -> None:
        """Forget what was held against these; where suspects are among them, the others may travel together again."""
        if not self._troubles:
            return
        found = [self._troubles.pop(item.key, None) for item in batch]
        if any(trouble is not None and trouble.company_max for trouble in found):
            for trouble in self._troubles.values():
                if not trouble.size:
                    trouble.company_max *= 2

    def remembered(self, entries_max: int) -> list[list[Any]]:
        """All of it, those that have failed alone first, for `recall` in another process; neighbours in one entry."""
        now_s = self._clock.monotonic_s()
        entries: list[list[Any]] = []
        for (*segment, is_request, index), trouble in sorted(
            self._troubles.items(), key=lambda item: (-item[1].alone_failures, item[0])
        ):
            alone_s = now_s - trouble.alone_since_s if trouble.alone_failures else 0.0
            facts = [trouble.failures, trouble.company_max, trouble.alone_failures, alone_s, trouble.size]
            last = entries[-1] if entries else None
            if last is not None and last[:3] == [*segment, is_request] and last[4] == index - 1 and last[5:] == facts:
                last[4] = index
            else:
                entries.append([*segment, is_request, index, index, *facts])
        return entries[:entries_max]

    def recall(self, entries: Iterable[Sequence[Any]]) -> None:
        """Take over what another process `remembered`. Raises TypeError, ValueError where it is nothing like that."""
        now_s = self._clock.monotonic_s()
        for spool_id, segment_no, is_request, first, last, *facts in entries:
            failures, company_max, alone_failures, alone_s, size = facts
            for index in range(int(first), int(last) + 1):
                self._troubles[str(spool_id), int(segment_no), bool(is_request), index] = _Trouble(
                    int(failures), int(company_max), int(alone_failures), now_s - float(alone_s), int(size)
                )

    def keep_only(self, segments: Collection[tuple[str, int]]) -> None:
        """Forget the spans of all other segments (spool_id, segment_no)."""
        if self._troubles:
            self._troubles = {key: trouble for key, trouble in self._troubles.items() if key[:2] in segments}
