"""An owner's side of the drainer: sees that one lives, starts one where none does, and waits for it when it stops.

1. Whoever finds `drainer.lock` free decides alone, under the lock, and hands the open lock down: of eight apps that
   start at once, one spawns.
2. A drainer that died is counted, and the wait before the next one is shared by all owners of the folder.
3. A death never leads to thread mode: what killed the drainer would then kill the app.
4. Everything heavy stays out of this process: no destination, no table is imported here.
"""

import logging
import os
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from infertap.clock import Clock
from infertap.drain.relay import LogRelay
from infertap.drain.retire import RetireClaim, is_held, is_newer_version
from infertap.drain.settings import DrainerSettings
from infertap.drain.spawn import CHILD_MARKER, Interpreter, SpawnedDrainer, spawn_drainer
from infertap.drain.state import DrainerState, Phase
from infertap.drain.stopping import deliver_and_wait
from infertap.drain.succession import count_death, is_backing_off, successor
from infertap.events import say
from infertap.spool.cursors import Cursors
from infertap.spool.folder import SpoolFolder, list_segments
from infertap.spool.forks import close_in_forked_child
from infertap.spool.lock import FileLock
from infertap.spool.slot import Slot
from infertap.spool.waiting import Waiting

_FIRST_WORD_S = 60.0
"""A child that has not said a word by then hangs; it is killed. A container with a tenth of a core needs some ten."""


LOGGER_NAME = "infertap.drainer"


class SlotOwner(Protocol):
    """Who has a slot: the pipeline's writer."""

    @property
    def slot(self) -> Slot | None:
        """As of now: it changes after a fork and when the folder was deleted."""


@dataclass(slots=True)
class _Child:
    process: SpawnedDrainer
    nonce: str
    silent_until_s: float
    guessed: bool
    heard: bool = False


class DrainerElection:
    """One owner's part. `tick` and `flush_and_wait` belong to one thread, never to an event loop."""

    def __init__(
        self,
        folder: SpoolFolder,
        settings: DrainerSettings,
        *,
        owner: SlotOwner,
        clock: Clock,
        mode: Literal["process", "thread", "external"] = "process",
        start_thread: Callable[[FileLock, str], None] | None = None,
        command: Sequence[str] | None = None,
        wait_for_segment: bool | None = None,
        on_terminal: bool | None = None,
    ) -> None:
        """Touches nothing on the disk.

        Args:
            folder: The spool folder, which the owner's writer prepares.
            settings: What a drainer started by this owner is told.
            owner: Whose slot is to be drained.
            clock: Wall time for what is shared between processes, monotonic time for the rest.
            mode: Who drains; `external` never starts anything.
            start_thread: Runs a drainer in a thread of this process; takes over the lock and the start's nonce. For
                `thread`, and where a process cannot be started at all. None: then records stay in the spool.
            command: Instead of this interpreter's `-m infertap.drain`; the folder is appended.
            wait_for_segment: Start nothing before something is to be delivered. Default: in test runs.
            on_terminal: Whether a person waits for the stop. Default: whether stdin is a terminal.
        """
        self._folder = folder
        self._settings = settings
        self._owner = owner
        self._clock = clock
        self._start_thread = start_thread
        self._wait_for_segment = "pytest" in sys.modules if wait_for_segment is None else wait_for_segment
        self._on_terminal = _stdin_is_terminal() if on_terminal is None else on_terminal
        self._inert = mode == "external" or CHILD_MARKER in os.environ
        interpreter = Interpreter.find()
        self._command = tuple(command) if command else interpreter.command if interpreter else ()
        self._guessed = not command and interpreter is not None and interpreter.guessed
        self._in_thread = mode == "thread" or not self._command
        self._relay = LogRelay(folder, LOGGER_NAME)
        self._child: _Child | None = None
        self._answered = ""
        """Nonce of the drainer whose settings have been compared with ours."""
        self._told = ""
        self._has_started = False
        close_in_forked_child(self)

    def tick(self) -> None:
        """Looks once; to be called about every second. Never raises for what the disk or the other processes do."""
        if self._inert:
            return
        state = DrainerState.load(self._folder.drainer_state)
        try:
            self._reap(state)
            lock = FileLock.try_acquire(self._folder.drainer_lock)
            if lock is None:
                self._compare(state)
            else:
                try:
                    self._decide(lock)
                finally:
                    lock.close()
        except OSError as error:
            self._tell(f"cannot look after the drainer: {error.strerror or error}")
        self._relay.tick(DrainerState.load(self._folder.drainer_state))

    def flush_and_wait(self, owner: SlotOwner, *, deadline_s: float) -> Waiting:
        """Has everything sealed in the owner's slot delivered, and waits for it.

        Close the slot before `close()`, which rings: the drainer then sees the end at once.

        Args:
            owner: All of its slot is sealed.
            deadline_s: Longest wait; on a terminal 2 s suffice once the drainer has said that it cannot deliver, and
                1 s where nobody drains and this owner starts nobody.

        Returns:
            What is left in the spool.
        """
        slot = owner.slot
        if slot is None or not slot.pending_segments():
            return Waiting()
        reason = ""
        try:
            reason = deliver_and_wait(
                self._folder,
                slot,
                tick=self.tick,
                somebody_drains=self.drainer_lives if self._inert else lambda: True,
                clock=self._clock,
                deadline_s=deadline_s,
                on_terminal=self._on_terminal,
                tell=self._tell,
            )
        except OSError as error:
            self._tell(f"cannot ask for delivery: {error.strerror}")
        self.relay()
        left = Waiting.of(slot.pending_segments())
        if left.segments and (news := self._relay.news(reason)):
            self._tell(f"the last records were not delivered: {news}")
        return left

    def lost_behind(self, owner: SlotOwner) -> Counter[str]:
        """Spooled requests of the owner's slot that are lost all the same, as `otlp rejected` -> how many."""
        lost: Counter[str] = Counter()
        if owner.slot is not None:
            cursors = Cursors.load(self._folder, owner.slot.spool_id)
            for (_, destination, outcome, cause), count in [*cursors.outcomes.items(), *cursors.days.items()]:
                if destination and outcome == "lost":
                    lost[f"{destination} {cause}"] += count
        return lost

    def who_delivers(self) -> str:
        """What becomes of that which is left in the spool, in words."""
        if not self._inert:
            # A drainer of its own process outlives us by drain_s, unless the container goes with its first process.
            now = (
                "for its drainer, which tries a little longer, or "
                if not self._in_thread and self.drainer_lives()
                else ""
            )
            return f"{now}for the next start, or for `infertap drain {self._folder.path}`"
        if self.drainer_lives():
            return f"for the drainer of {self._folder.path}"
        return f"and nobody drains it; run `infertap drain {self._folder.path}`"

    def drainer_lives(self) -> bool:
        """Whether somebody carries the spool on, whoever started it; about 20 us."""
        path = self._folder.drainer_lock
        try:
            lock = FileLock.try_acquire(path, create=False)
        except OSError:
            return False
        if lock is None:
            return path.exists()
        lock.close()
        return False

    def relay(self) -> None:
        """Relays what the drainer has said until now."""
        if not self._inert:
            self._relay.tick(DrainerState.load(self._folder.drainer_state))

    def close(self) -> None:
        """Leaves relaying to others, and the drainer to itself: it rings, so that an end is seen at once."""
        self._folder.ring()
        self._relay.close()
        if self._child is not None and self._child.process.reap():
            self._child = None

    def after_fork_in_child(self) -> None:
        """Forgets a drainer that is the parent's child, not this process's."""
        self._child = None

    def _decide(self, lock: FileLock) -> None:
        """Starts a drainer, if it is time and this owner's turn. Under the lock."""
        state = DrainerState.load(self._folder.drainer_state)
        now_ns = self._clock.wall_ns()
        if count_death(state, now_ns):
            state.save(self._folder.drainer_state)
            return
        # Former deaths are no word about an owner that is new: somebody has started it, perhaps to mend them.
        if self._has_started and is_backing_off(state, now_ns):
            return
        slot = self._spool_id()
        if slot is None or (self._wait_for_segment and not self._anything_sealed()):
            return
        claim = RetireClaim.load(self._folder)
        if claim is not None and claim.slot != slot and claim.beats(self._folder, self._settings.owner_born_ns):
            # The one that asked the last drainer to leave is about to look, too; it has the settings that count.
            return
        self._folder.retire.unlink(missing_ok=True)
        self._start(lock, successor(state, self._settings, slot=slot, now_ns=now_ns))

    def _start(self, lock: FileLock, state: DrainerState) -> None:
        state.save(self._folder.drainer_state)
        self._answered = state.nonce
        self._has_started = True
        if not self._in_thread:
            try:
                process = spawn_drainer(self._command, self._folder, self._settings, lock=lock, nonce=state.nonce)
            except OSError as error:
                self._in_thread = True
                self._tell(f"cannot start a drainer process ({error.strerror}); draining in a thread of this process")
            else:
                silent_until_s = self._clock.monotonic_s() + _FIRST_WORD_S
                self._child = _Child(process, state.nonce, silent_until_s, self._guessed)
                return
        if self._start_thread is not None:
            own = FileLock.adopt_fd(os.dup(lock.fileno()), lock.path)
            if own is not None:
                try:
                    self._start_thread(own, state.nonce)
                    return
                except RuntimeError as error:
                    own.close()
                    self._tell(f"cannot start a drainer thread ({error})")
        else:
            self._tell("no drainer can be started here: records stay in the spool until `infertap drain`")
        state.phase = Phase.NONE
        state.save(self._folder.drainer_state)

    def _reap(self, state: DrainerState) -> None:
        """Looks after the child that this process started."""
        child = self._child
        if child is None:
            return
        child.heard = child.heard or (state.nonce == child.nonce and state.pid != 0)
        if child.process.reap():
            self._child = None
            if child.guessed and not child.heard:
                self._in_thread = True
                self._tell("the interpreter found beside this program cannot drain; draining in a thread")
        elif not child.heard and state.nonce == child.nonce and self._clock.monotonic_s() >= child.silent_until_s:
            child.process.kill()
            self._in_thread = True
            self._tell(f"the drainer process said nothing for {_FIRST_WORD_S:g} s and was ended; draining in a thread")

    def _compare(self, state: DrainerState) -> None:
        """Somebody drains. With our settings? The newest living owner's win."""
        if state.phase is not Phase.RUNNING or state.nonce == self._answered:
            return
        own = self._settings
        self._answered = state.nonce
        if state.hash16 == own.hash16(state.nonce) and state.version == own.version:
            return
        slot = self._spool_id()
        newer = own.owner_born_ns > state.born_ns and not is_newer_version(state.version, than=own.version)
        if state.slot != slot and is_held(self._folder, state.slot):
            names = {own.service_name, state.service_name} - {""}
            who = " and ".join(sorted(names)) if len(names) == 2 else "this process and another one"
            self._tell(f"{who} run with different settings for the same destination; the newer one's are used for both")
        if not newer or slot is None:
            return
        claim = RetireClaim.load(self._folder)
        if claim is not None and claim.slot != slot and claim.beats(self._folder, own.owner_born_ns):
            # A still newer one has asked. Should it die before it takes over, the claim is ours again.
            self._answered = ""
            return
        RetireClaim(slot=slot, born_ns=own.owner_born_ns).save(self._folder)
        self._folder.ring()

    def _spool_id(self) -> str | None:
        slot = self._owner.slot
        return slot.spool_id if slot is not None else None

    def _anything_sealed(self) -> bool:
        return any(list_segments(self._folder.slot_dir(spool_id)) for spool_id in self._folder.slot_ids())

    def _tell(self, message: str) -> None:
        """Warns, but never says the same twice in a row."""
        if message != self._told:
            self._told = message
            say(logging.WARNING, message, LOGGER_NAME)


def _stdin_is_terminal() -> bool:
    try:
        return sys.stdin is not None and sys.stdin.isatty()
    except ValueError:
        return False
