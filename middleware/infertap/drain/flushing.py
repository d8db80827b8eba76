"""Flush requests: files in the slots of owners that are stopping and wait."""

import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field

from infertap.drain.delivery import Delivery
from infertap.drain.slots import Slots, SlotView
from infertap.spool.folder import SpoolFolder, list_segments


@dataclass(slots=True)
class Flushes:
    """Which requests are still to be served. Belongs to the drainer's thread."""

    folder: SpoolFolder
    _refused: dict[tuple[str, str], int] = field(default_factory=dict)
    """(spool_id, destination) -> the request that was tried there in vain: it gets one try, then back-off holds."""
    _everything: bool = False

    def look(self, slots: Slots, *, everything: bool) -> None:
        """Takes note of who asks.

        Args:
            everything: Somebody stops us: all that waits is asked for, once.
        """
        self._everything = everything
        present = set(slots.views)
        for key in [key for key in self._refused if key[0] not in present]:
            del self._refused[key]

    def wanted(self, slots: Slots, destination: str) -> bool:
        """Whether back-off and interval do not count now."""
        return any(
            view.waiting(destination) and self._refused.get((view.spool_id, destination)) != self._request(view)
            for view in slots.views.values()
            if self._request(view)
        )

    def settle(self, slots: Slots, deliveries: Sequence[Delivery]) -> None:
        """Answers: the request of a slot with nothing left goes; where a destination refused, the reason is left."""
        for view in slots.views.values():
            if not self._request(view):
                continue
            reasons = []
            for delivery in deliveries:
                if view.waiting(delivery.name) and delivery.error:
                    self._refused[view.spool_id, delivery.name] = self._request(view)
                    reasons.append(f"{delivery.name}: {delivery.error}")
            if view.flush_ns and not view.segments:
                self._done(view)
            elif view.flush_ns and reasons:
                self._leave_reason(view, "\n".join(reasons))

    def _request(self, view: SlotView) -> int:
        return view.flush_ns or int(self._everything)

    def _done(self, view: SlotView) -> None:
        slot_dir = self.folder.slot_dir(view.spool_id)
        with contextlib.suppress(OSError):
            (slot_dir / "flush_failed").unlink(missing_ok=True)
            (slot_dir / "flush").unlink(missing_ok=True)
            if list_segments(slot_dir):
                # Asked once more, for something newer, before we had answered.
                (slot_dir / "flush").touch(mode=0o600)
        view.flush_ns = 0

    def _leave_reason(self, view: SlotView, reason: str) -> None:
        path = self.folder.slot_dir(view.spool_id) / "flush_failed"
        # An owner that has left, or a full disk: then nobody reads it.
        with contextlib.suppress(OSError):
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with os.fdopen(fd, "w", encoding="utf-8") as file:
                file.write(reason)
