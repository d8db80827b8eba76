"""One round over all destinations: who is due, in which order, and how long nobody will be."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from infertap.clock import Clock
from infertap.drain.delivery import Delivery
from infertap.drain.flushing import Flushes
from infertap.drain.slots import SegmentFile, Slots
from infertap.errors import RetryableError

LOOK_S = 1.0
"""The longest wait: a lost ring, a dead owner or a vanished folder is noticed after this."""

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Rounds:
    """Serves the destinations. Belongs to the drainer's thread."""

    slots: Slots
    deliveries: Sequence[Delivery]
    flushes: Flushes
    clock: Clock
    commit_bytes_max: int

    def serve(self) -> bool:
        """One batch for each destination that is due; whether anything was delivered.

        Healthy ones come first, so that the time-out of a dead one keeps nobody waiting.
        """
        delivered = False
        for delivery in sorted(self.deliveries, key=lambda delivery: delivery.pace.backing_off):
            if self._is_due(delivery) and delivery.deliver(self.slots.waiting(delivery.name)):
                delivered = True
            self._measure(delivery)
        self.flushes.settle(self.slots, self.deliveries)
        return delivered

    def remove_orphans(self) -> None:
        """Removes the slots of dead owners from which everything has been delivered, their last counts included."""
        if any(delivery.pace.backing_off for delivery in self.deliveries):
            return
        for view in list(self.slots.views.values()):
            if view.is_spent and all(delivery.report(view.spool_id) for delivery in self.deliveries):
                self.slots.remove(view)

    def maintain(self) -> None:
        """Upkeep of the destinations that work."""
        for delivery in self.deliveries:
            if not delivery.pace.backing_off:
                try:
                    delivery.destination.maintain()
                except RetryableError as error:
                    _log.info("upkeep of destination %s has to wait: %s", delivery.name, error)

    def wait_s(self) -> float:
        """Until the next look at the latest; 0 where somebody is due already, as with a batch behind a full one."""
        now_s = self.clock.monotonic_s()
        wait_s = LOOK_S
        for delivery in self.deliveries:
            if self._is_due(delivery):
                return 0.0
            if delivery.status.waiting_segments:
                wait_s = min(wait_s, delivery.pace.next_s - now_s)
        return max(0.0, wait_s)

    def _is_due(self, delivery: Delivery) -> bool:
        files = self._measure(delivery)
        if not files:
            return False
        if self.clock.monotonic_s() >= delivery.pace.next_s or self.flushes.wanted(self.slots, delivery.name):
            return True
        # A whole batch waits, or nobody is left who could add to it: the interval would help nobody.
        keeps = delivery.destination.keeps
        fresh_bytes = [file.size_bytes for file in files if (file.spool_id, file.segment_no) not in keeps]
        is_urgent = sum(fresh_bytes) >= self.commit_bytes_max or (bool(fresh_bytes) and not self.slots.owners)
        return is_urgent and not delivery.pace.backing_off

    def _measure(self, delivery: Delivery) -> Sequence[SegmentFile]:
        files = self.slots.waiting(delivery.name)
        status = delivery.status
        status.waiting_segments, status.waiting_bytes = len(files), sum(file.size_bytes for file in files)
        return files
