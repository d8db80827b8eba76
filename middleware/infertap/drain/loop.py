"""The drainer's loop: look, deliver what is due, keep the cap, and know when to leave.

1. It runs in one thread, of a process of its own or (`drainer = "thread"`) of an owner, and holds `drainer.lock`.
2. It leaves in the order: write `ended`, let the lock go, look at the slots once more. An owner makes its slot visible
   before it looks at the lock, so one of the two always sees the other.
3. Nothing is promised by time: every wait may be cut short by the bell, or last its full second.
"""

import contextlib
import logging
import os
import random
from collections.abc import Callable, Sequence

from infertap.clock import Clock
from infertap.destinations.protocol import Destination
from infertap.drain.bell import Bell
from infertap.drain.cap import enforce_cap
from infertap.drain.delivery import Delivery
from infertap.drain.end import End, EndRules
from infertap.drain.flushing import Flushes
from infertap.drain.inflight import Inflight
from infertap.drain.pace import Pace
from infertap.drain.parking import Parking
from infertap.drain.poison import PoisonSearch
from infertap.drain.retire import RetireClaim
from infertap.drain.rounds import Rounds
from infertap.drain.settings import DrainerSettings
from infertap.drain.slots import Slots
from infertap.drain.state import DrainerState, Phase
from infertap.spool.folder import SpoolFolder
from infertap.spool.lock import FileLock

_DRAIN_S_MIN = 1.0
_MAINTAIN_S = 60.0
_CLOSE_S = 5.0
_HEALTHY_AFTER_S = 60.0

_log = logging.getLogger(__name__)


class Stop:
    """How a drainer is asked to leave. Any thread, and signal handlers."""

    def __init__(self, folder: SpoolFolder) -> None:
        self._folder = folder
        self.requests = 0
        """1: deliver now, and do not linger. 2 and more: leave after the delivery under way."""

    def request(self) -> None:
        """Asks once more, and wakes the drainer."""
        self.requests += 1
        self._folder.ring()


class Drainer:
    """One drainer's life. `run` once."""

    def __init__(
        self,
        settings: DrainerSettings,
        destinations: Sequence[Destination],
        clock: Clock,
        *,
        lock: FileLock,
        state: DrainerState,
        stop: Stop,
        poison: PoisonSearch | None = None,
        resident_bytes: Callable[[], int] = lambda: 0,
        follow: bool = True,
    ) -> None:
        """Args:
        destinations: Opened.
        lock: The folder's `drainer.lock`; closed at the end.
        state: What the spawner wrote, with this process's facts; saved from here on.
        poison: Finds killing rows; None where no child process may be started.
        resident_bytes: This process's memory, for `resident_bytes_max`; not in an owner's process.
        follow: Whether to wait for more. False: one pass over what is there, whoever lives.
        """
        self.folder = SpoolFolder(settings.folder)
        self._settings = settings
        self._destinations = destinations
        self._clock = clock
        self._lock = lock
        self._state = state
        self._stop = stop
        self._resident_bytes = resident_bytes
        self._follow = follow
        self._inode = _identity(self.folder)
        names = tuple(destination.name for destination in destinations)
        self._slots = Slots(self.folder, names, clock, keep_ledger=settings.targets.table is None)
        inflight, parking, rng = Inflight.load(self.folder), Parking(self.folder), random.Random()
        self._deliveries = [
            Delivery(
                destination,
                self._slots,
                Pace(settings.commit_interval_s, rng),
                state,
                inflight,
                parking,
                poison,
                clock,
                settings.commit_bytes_max,
                settings.secrets,
            )
            for destination in destinations
        ]
        self._flushes = Flushes(self.folder)
        self._rounds = Rounds(self._slots, self._deliveries, self._flushes, clock, settings.commit_bytes_max)
        self._rules = EndRules(settings.linger_s, max(_DRAIN_S_MIN, settings.drain_s))
        self._told: object = None
        self._started_s = self._maintained_s = clock.monotonic_s()

    def run(self) -> End:
        """Drains until there is a reason to leave; the lock is free afterwards.

        Raises:
            OSError: The spool folder does not take notes any more.
        """
        bell = Bell.open(self.folder)
        try:
            self._state.phase = Phase.RUNNING
            self._save()
            # The first pass comes before the first wait: a flush request may be older than our ear for the bell.
            while True:
                end = self._cycle()
                if end is not None and self._leave(end):
                    return end
                if end is None:
                    bell.wait(min(self._rounds.wait_s(), self._rules.next_s() - self._clock.monotonic_s()))
        finally:
            bell.close()
            self._slots.close()
            for destination in self._destinations:
                destination.close(deadline_s=_CLOSE_S)
            self._lock.close()

    def _cycle(self) -> End | None:
        if _identity(self.folder) != self._inode or not self._lock.still_there():
            return End.GONE
        self._slots.look()
        self._flushes.look(self._slots, everything=self._stop.requests > 0 or not self._follow)
        delivered = self._rounds.serve()
        self._rounds.remove_orphans()
        if delivered:
            self._rules.delivered_s = self._clock.monotonic_s()
        skipped = enforce_cap(
            self.folder, self._slots, self._deliveries, spool_bytes_max=self._settings.spool_bytes_max
        )
        if self._has_news() or delivered or skipped:
            self._save()
        return self._end(delivered)

    def _has_news(self) -> bool:
        """Whether `drainer.json` has something new to say beside deliveries."""
        statuses = [delivery.status for delivery in self._deliveries]
        news = [(status.last_error, status.retry_at_ns, status.waiting_segments) for status in statuses]
        self._state.unsupported_segments = self._slots.unsupported_segments
        if self._state.failures and self._clock.monotonic_s() - self._started_s >= _HEALTHY_AFTER_S:
            self._state.failures = 0
        facts = (news, self._state.unsupported_segments, self._state.failures)
        told, self._told = self._told, facts
        return facts != told

    def _end(self, delivered: bool) -> End | None:
        if self._stop.requests > 1:
            return End.STOPPED
        waits = self._slots.anything_waits
        if not self._follow:
            if any(delivery.status.waiting_segments and not delivery.error for delivery in self._deliveries):
                return None
            return End.FAILED if waits else End.ONE_PASS
        claim = RetireClaim.load(self.folder)
        if claim is not None:
            if claim.beats(self.folder, self._settings.owner_born_ns):
                return End.RETIRED
            self.folder.retire.unlink(missing_ok=True)
        if 0 < self._settings.resident_bytes_max < self._resident_bytes():
            return End.MEMORY
        if self._stop.requests:
            self._rules.linger_s = 0.0
        now_s = self._clock.monotonic_s()
        end = self._rules.look(now_s, owners=self._slots.owners, waiting=waits)
        if end is None and not delivered and now_s - self._maintained_s >= _MAINTAIN_S:
            self._maintained_s = now_s
            self._rounds.maintain()
        return end

    def _leave(self, end: End) -> bool:
        """Lets go; false where somebody came in that very moment and we got the lock back."""
        if end is End.GONE:
            # Whatever is at the path now is somebody else's.
            self._slots.close()
            return True
        self._state.phase, self._state.reason = Phase.ENDED, end.value
        self._save()
        known = self._slots.blocked_ids
        self._slots.close()
        self._lock.close()
        _log.log(logging.WARNING if end is End.GAVE_UP else logging.INFO, "drainer ends: %s", end.value)
        if end is not End.IDLE or self._stop.requests or not self._slots.anybody(but=known):
            return True
        lock = FileLock.try_acquire(self.folder.drainer_lock)
        if lock is None:
            return True
        self._lock = lock
        self._state.phase, self._state.reason = Phase.RUNNING, ""
        self._save()
        return False

    def _save(self) -> None:
        # A vanished folder and a full disk are found, and handled, elsewhere; the report can wait.
        with contextlib.suppress(OSError):
            self._state.save(self.folder.drainer_state)


def _identity(folder: SpoolFolder) -> tuple[int, int] | None:
    try:
        status = os.stat(folder.path)
    except OSError:
        return None
    return status.st_dev, status.st_ino
