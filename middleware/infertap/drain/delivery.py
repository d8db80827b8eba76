"""Carries one batch to one destination, and settles what came of it: cursors, counts, segments that may go.

1. A destination fails alone: its cursor, its back-off and its error are its own.
2. Nothing is settled before the destination has it for good. A crash in between brings the same segments again.
3. Any `Exception` of a destination counts as "not now": this is the border to other people's libraries. What is worse
   (a Rust panic, an abort) ends the drainer, and the next one is more careful with that batch; see `inflight`.
"""

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from infertap.clock import Clock
from infertap.destinations.protocol import Destination, OutcomeKey, Receipt
from infertap.drain.inflight import Inflight
from infertap.drain.losses import damaged_frames, lost_by_minute
from infertap.drain.pace import INTERVAL_S_MAX, Pace
from infertap.drain.parking import Parking
from infertap.drain.poison import PoisonSearch
from infertap.drain.reading import Reading
from infertap.drain.slots import SegmentFile, Slots
from infertap.drain.state import DestinationStatus, DrainerState
from infertap.errors import PermanentError, RetryableError
from infertap.masking import masked_line
from infertap.record import UNDECIDED, LossCause
from infertap.spool.reader import Segment
from infertap.words import plural

_log = logging.getLogger(__name__)

_DEATHS_MAX = 5

Increments = list[tuple[str, Mapping[OutcomeKey, int]]]
"""(spool_id, what to add to that slot's cumulative outcomes)."""


@dataclass(slots=True)
class Delivery:
    """One destination's way through the spool. Belongs to the drainer's thread."""

    destination: Destination
    slots: Slots
    pace: Pace
    state: DrainerState
    inflight: Inflight
    parking: Parking
    poison: PoisonSearch | None
    clock: Clock
    bytes_max: int
    secrets: Collection[str]
    """What no error text may show."""
    reading: Reading = field(default_factory=Reading)
    error: str = ""
    """Why the last delivery failed; empty after one that worked."""
    unexpected: bool = False
    """Whether it failed in a way that destinations do not promise: something in the batch may be the cause."""

    @property
    def name(self) -> str:
        """The destination's."""
        return self.destination.name

    @property
    def status(self) -> DestinationStatus:
        """The destination's part of `drainer.json`."""
        return self.state.destinations.setdefault(self.name, DestinationStatus())

    def deliver(self, files: Sequence[SegmentFile]) -> bool:
        """Delivers as much of `files` as one batch holds; whether anything was delivered."""
        try:
            return self._deliver(files)
        except OSError as error:
            # Not the destination's: what has to be parked or written down first could not be.
            self._failed(f"the spool takes no notes: {error.strerror}", None)
            return False

    def _deliver(self, files: Sequence[SegmentFile]) -> bool:
        batch, segments = self._read(self.inflight.helping(self.name, files))
        if not segments:
            return False
        counts: Increments = []
        if self.poison is not None and self.inflight.is_killer(self.name, batch):
            segments = [self._without_poison(batch[0], segments[0], counts)]
        started_s = self.clock.monotonic_s()
        if not self._decide({segment.spool_id for segment in segments}):
            return False
        self.inflight.begin(self.name, batch)
        receipt: Receipt | None = None
        try:
            receipt = self._call(segments)
            if receipt is None and self.unexpected:
                self.inflight.suspect(self.name, batch)
        except PermanentError as error:
            receipt = self._park_or_halve(error, batch, segments, counts)
        finally:
            self.inflight.survived(self.name, batch, delivered=receipt is not None)
        if receipt is None:
            return False
        self._settle(segments, receipt, counts)
        if receipt.setback is not None:
            self._failed(
                str(receipt.setback), receipt.setback.retry_after_s, got_on=True, is_told=receipt.setback.is_told
            )
            return True
        self._works()
        now_s = self.clock.monotonic_s()
        self.pace.delivered(now_s, now_s - started_s)
        return True

    def forfeit(self, segment: Segment) -> None:
        """Counts a segment that this destination will not get, as far as it has not got it already."""
        lost = lost_by_minute(self.name, segment, LossCause.SPOOL_FULL)
        counts: Increments = [(segment.spool_id, self.destination.forfeit(segment, lost))]
        if segment.damaged:
            counts.append((segment.spool_id, damaged_frames(self.name, segment)))
        self.count(counts)

    def report(self, spool_id: str) -> bool:
        """Hands a leaving slot's last counts to a destination that keeps a ledger; whether that is done."""
        if not self.slots.views[spool_id].cursors.outcomes:
            return True
        try:
            if not self._decide([spool_id]):
                return False
            outcomes = self.slots.outcomes([spool_id])
            done = self._call([], outcomes) is not None
            if done:
                self._works()
            return done
        except PermanentError as error:
            _log.warning("the last counts of slot %s are refused: %s", spool_id, masked_line(str(error), self.secrets))
            return True

    def _decide(self, spool_ids: Collection[str]) -> bool:
        """Settles what was given up of these slots while the destination did not answer; whether that is done.

        Raises:
            OSError: It cannot be written down, and what comes later would change the answer.
        """
        for spool_id in spool_ids:
            undecided = self.slots.views[spool_id].cursors.undecided(self.name)
            if undecided:
                try:
                    decided = self.destination.decide(spool_id, undecided, started_ns=self.slots.started_ns(spool_id))
                except RetryableError as error:
                    self._failed(str(error), error.retry_after_s)
                    return False
                self.slots.settle_undecided(spool_id, undecided)
                self.count([(spool_id, decided)])
                self.slots.save(spool_id)
        return True

    def _call(
        self, segments: Sequence[Segment], outcomes: Mapping[str, Mapping[OutcomeKey, int]] | None = None
    ) -> Receipt | None:
        if outcomes is None:
            outcomes = self.slots.outcomes({segment.spool_id for segment in segments})
        try:
            receipt = self.destination.deliver(segments, outcomes)
        except PermanentError:
            raise
        except RetryableError as error:
            self.unexpected = False
            self._failed(str(error), error.retry_after_s, is_told=error.is_told)
            return None
        except Exception as error:
            self.unexpected = True
            _log.debug("unexpected error of destination %s", self.name, exc_info=True)
            self._failed(f"{type(error).__name__}: {error}", None)
            return None
        self.unexpected = False
        return receipt

    def _works(self) -> None:
        if self.error:
            _log.info("destination %s takes records again", self.name)
        self.error = ""

    def _failed(
        self, message: str, retry_after_s: float | None, *, got_on: bool = False, is_told: bool = False
    ) -> None:
        text = masked_line(message, self.secrets)
        delay_s = self.pace.failed(self.clock.monotonic_s(), retry_after_s, got_on=got_on)
        capped = retry_after_s is not None and retry_after_s > INTERVAL_S_MAX
        # The seconds asked for differ from answer to answer, and are no other state: they are not in `error`.
        patience = (
            f"; it asks for {retry_after_s:.0f} s, more than {INTERVAL_S_MAX:.0f} s is never waited" if capped else ""
        )
        if text != self.error and not is_told:
            _log.warning(
                "destination %s did not take records, they stay in the spool (next try in %.0f s): %s%s",
                self.name, delay_s, text, patience,
            )  # fmt: skip
        self.error = text
        status = self.status
        status.last_error, status.last_error_ns = f"{text}{patience}", self.clock.wall_ns()
        status.retry_at_ns = status.last_error_ns + int(delay_s * 1e9)

    def _read(self, files: Sequence[SegmentFile]) -> tuple[list[SegmentFile], list[Segment]]:
        helping = self.reading.read(files, keeps=self.destination.keeps, bytes_max=self.bytes_max)
        for spool_id, segment_no in helping.unsupported.items():
            self.slots.views[spool_id].blocked_at = segment_no
        if helping.error:
            self._failed(helping.error, None)
        return helping.files, helping.segments

    def _without_poison(self, file: SegmentFile, segment: Segment, counts: Increments) -> Segment:
        assert self.poison is not None
        # Give up on all of it only where it killed: an exception that no child meets may pass with time.
        give_up = self.inflight.deaths >= _DEATHS_MAX and not self.unexpected
        rest, poison = self.poison.split(self.name, file.path, segment, give_up=give_up)
        if poison.requests or poison.spans:
            _log.warning(
                "%s of slot %s ended the drainer and went to its folder `parked`",
                plural(len(poison.requests) or len(poison.spans), "request" if poison.requests else "span"),
                segment.spool_id,
            )
            self.parking.park(self.name, poison, "it ends the drainer")
            counts.append((segment.spool_id, lost_by_minute(self.name, poison, LossCause.PARKED)))
        return rest

    def _park_or_halve(
        self,
        error: PermanentError,
        batch: Sequence[SegmentFile],
        segments: Sequence[Segment],
        counts: Increments,
    ) -> Receipt | None:
        """A destination that finds poison and cannot say where: halve, and park what is refused alone."""
        self._failed(str(error), None)
        if len(segments) > 1:
            self.inflight.suspect(self.name, batch)
            return None
        (segment,) = segments
        _log.warning(
            "%s of slot %s went to the folder `parked`: the destination refuses them",
            plural(len(segment.requests), "request"),
            segment.spool_id,
        )
        self.parking.park(self.name, segment, masked_line(str(error), self.secrets))
        counts.append((segment.spool_id, lost_by_minute(self.name, segment, LossCause.PARKED)))
        return Receipt(delivered={segment.spool_id: segment.segment_no})

    def _settle(self, segments: Sequence[Segment], receipt: Receipt, counts: Increments) -> None:
        """Notes what the destination has for good. Everything parked is on disk before a cursor moves."""
        status = self.status
        for segment in receipt.parked:
            self.parking.park(self.name, segment, "the receiver fails on it, and takes others", by="receiver")
        for segment in segments:
            if segment.segment_no > receipt.delivered.get(segment.spool_id, 0):
                continue
            records, spans = self.reading.frames_of(segment)
            status.records += records
            status.spans += spans
            status.segments += 1
            self.state.parked_frames += self.parking.park_unknown(segment)
            self.slots.learn(segment)
            if segment.damaged:
                counts.append((segment.spool_id, damaged_frames(self.name, segment)))
                _log.warning("slot %s: %s lost to damage", segment.spool_id, plural(segment.damaged, "record"))
        counts += receipt.outcomes.items()
        self.count(counts)
        for spool_id, segment_no in receipt.delivered.items():
            self.slots.advance(spool_id, self.name, segment_no)
        status.deliveries += 1
        status.last_delivery_ns = self.clock.wall_ns()
        status.last_error, status.last_error_ns, status.retry_at_ns = "", 0, 0
        self.state.failures = 0

    def count(self, increments: Increments) -> None:
        """Adds to the slots' cumulative outcomes (saved with the next `advance`) and to `drainer.json`."""
        for spool_id, outcomes in increments:
            self.slots.views[spool_id].cursors.add(outcomes)
            for (_, _, outcome, cause), requests in outcomes.items():
                if outcome != UNDECIDED:
                    self.status.count(outcome, cause, requests)
