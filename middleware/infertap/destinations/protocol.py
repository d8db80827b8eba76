"""What the drainer and a destination promise each other."""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Protocol

from infertap.errors import RetryableError
from infertap.spool.cursors import OutcomeKey
from infertap.spool.reader import Segment

__all__ = ["Destination", "OutcomeKey", "Receipt"]


@dataclass(frozen=True, slots=True)
class Receipt:
    """What one call of `deliver` achieved for good."""

    delivered: Mapping[str, int]
    """spool_id -> highest segment number now delivered. A destination may deliver only a prefix of each slot."""
    outcomes: Mapping[str, Mapping[OutcomeKey, int]] = field(default_factory=dict)
    """spool_id -> increments that the drainer adds to that slot's cumulative outcomes.

    A destination that counts in rows of its own (the table) reports only what it parked.
    """
    parked: Sequence[Segment] = ()
    """Delivered segments that hold only what was given up of them, for the drainer to park; counted in `outcomes`."""
    setback: RetryableError | None = None
    """Why the rest was not taken, and how long the destination asked us to wait: the drainer backs off all the same."""


class Destination(Protocol):
    """Where segments end. All calls come from one thread of the drainer, never concurrently.

    Life: `open` once, then `deliver` and `maintain` any number of times, `close` once; `close` is safe without
    `open`.
    """

    @property
    def name(self) -> str:
        """`table` or `otlp`, as cursors, ledger and metrics use it."""

    @property
    def keeps(self) -> AbstractSet[tuple[str, int]]:
        """(spool_id, segment_no) of undelivered segments of which it remembers all that is left to do.

        They come again without their frames, as long as they are not delivered: what does not come is forgotten.
        """

    def open(self) -> None:
        """Imports what is heavy. Never raises because a destination cannot be reached."""

    def deliver(self, segments: Sequence[Segment], outcomes: Mapping[str, Mapping[OutcomeKey, int]]) -> Receipt:
        """Delivers segments, durable where the destination can be.

        The same segments may come again after an error, a crash, or a lost cursor.

        Args:
            segments: Ascending per slot, of several slots. Empty where only `outcomes` are to be reported: the last
                call for a slot whose owner has gone.
            outcomes: The drainer's own cumulative counts of these slots, for a destination that keeps a ledger.

        Raises:
            RetryableError: Nothing is known to be delivered; the same segments come again later.
        """

    def forfeit(self, segment: Segment, lost: Mapping[OutcomeKey, int]) -> Mapping[OutcomeKey, int]:
        """Says what became of the requests of a segment that will not come again. Asks nobody.

        Args:
            lost: What is to be counted if nothing of the segment has arrived.

        Returns:
            What is to be counted; `UNDECIDED` (see `record`) where something may have arrived: `decide` is asked then.
        """

    def decide(
        self, spool_id: str, undecided: Mapping[OutcomeKey, int], *, started_ns: int
    ) -> Mapping[OutcomeKey, int]:
        """Says what became of what `forfeit` could not decide, before anything later of that slot is delivered.

        Args:
            started_ns: When the slot was made.

        Raises:
            RetryableError: It cannot be known now.
        """

    def maintain(self) -> None:
        """Does upkeep off the delivery path. Called when idle, at most once a minute; cheap when nothing is due.

        Raises:
            RetryableError: It could not be done now.
        """

    def close(self, *, deadline_s: float) -> None:
        """Releases everything within the deadline."""
