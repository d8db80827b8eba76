"""Which spans travel apart because a receiver fails on them while it takes others, and when one is given up for that.

1. A receiver that is down fails on everybody: a batch comes under suspicion only after it has failed `FAILURES_MIN`
   times in a row, and only while the receiver takes other spans or an empty request.
2. With each further failure the spans of a suspected batch travel in half the company, at last alone.
3. A span is given up when it has failed alone `ALONE_FAILURES_MIN` times over at least `ALONE_S_MIN`, each time with
   other spans accepted just before and an empty request just after. An empty request proves little by itself: a
   Collector whose queue is full takes it, too.
4. Nothing of this is written down: the next drainer begins anew.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

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

    def keep_only(self, segments: Collection[tuple[str, int]]) -> None:
        """Forget the spans of all other segments (spool_id, segment_no)."""
        if self._troubles:
            self._troubles = {key: trouble for key, trouble in self._troubles.items() if key[:2] in segments}
