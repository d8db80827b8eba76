"""One segment while it grows: nothing but whole frames, durable group by group, unchanging once it is renamed.

1. A write that does not fit is cut back to the last whole frame before anyone hears of it.
2. After a failed sync the file is never written or synced again: the kernel may have dropped what it could not write.
   It is cut back to its last durable group.
3. The name tells the drainer that a file will not change: `.open` while it grows, `.seg` from then on.
"""

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from infertap.errors import SpoolError
from infertap.spool.durability import spool_error, sync_data, sync_folder
from infertap.spool.folder import OPEN, SEALED, segment_path
from infertap.spool.forks import close_in_forked_child
from infertap.spool.frames import Frame, Kind, encode_header, pack, scan
from infertap.spool.lock import names_file

_BUFFERS_MAX = 1024
"""Linux takes at most this many in one `writev` (IOV_MAX)."""


class SyncFailedError(SpoolError):
    """The disk did not take what was written: the segment is lost beyond its last durable group."""


class SegmentWriter:
    """Writes one segment. Belongs to one thread; in a forked child the file is closed."""

    def __init__(self, path: Path, fd: int, frames: Sequence[Frame], end: int) -> None:
        self.path = path
        self.size_bytes = end
        self._fd = fd
        self._durable_end = end
        self._requests = sum(frame.kind == Kind.REQUEST for frame in frames)
        self._spans = sum(frame.kind == Kind.SPAN for frame in frames)
        self._failed = False
        self.ending = bool(frames) and frames[-1].kind == Kind.SEAL
        """Whether the segment takes no more frames; only `seal` is left to be called."""
        self.is_given = False
        """Whether it is the drainer's by now, also where the disk has not confirmed its name yet."""
        close_in_forked_child(self)

    @classmethod
    def create(cls, slot_dir: Path, segment_no: int, open_payload: bytes, *, tried_before: bool = False) -> Self:
        """Starts a segment with its OPEN frame, both durable.

        Args:
            tried_before: This number was tried in vain: what the failing disk may have kept of it goes first.

        Raises:
            SpoolFullError: No room.
            SpoolError: The folder is not writable. No file is left behind in either case, where the disk allows that.
        """
        path = segment_path(slot_dir, segment_no, OPEN)
        try:
            if tried_before:
                path.unlink(missing_ok=True)
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise spool_error("cannot start a segment", error) from error
        segment = cls(path, fd, (), 0)
        try:
            segment.write([(Kind.OPEN, open_payload)])
            segment.sync()
            sync_folder(slot_dir)
        except BaseException as error:
            # Whatever it was: a file that stayed would be in the way of each later try.
            segment.close()
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
            if isinstance(error, OSError):
                raise spool_error("cannot start a segment", error) from error
            raise
        return segment

    @classmethod
    def recover(cls, path: Path) -> tuple[Self, list[Frame]] | None:
        """Takes over a dead owner's `.open` file, cut back to its last whole frame.

        Returns:
            The segment and its frames, or None (and the file is gone) where not even the OPEN frame is whole:
            nothing in it was acknowledged.

        Raises:
            UnsupportedFormat: A newer infertap wrote it; it is left alone.
            OSError: It cannot be read or cut.
        """
        result = scan(path.read_bytes())
        if result.good_end == 0:
            path.unlink()
            return None
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        segment = cls(path, fd, result.frames, result.good_end)
        os.ftruncate(fd, result.good_end)
        return segment, result.frames

    def fileno(self) -> int:
        """The open file; -1 once closed."""
        return self._fd

    def still_there(self) -> bool:
        """Whether the path still names this file, which nobody but its writer should have removed."""
        return names_file(self.path, self._fd) is not False

    def write(self, frames: Sequence[tuple[Kind, bytes]]) -> None:
        """Appends whole frames, or nothing. Not durable before `sync`.

        Raises:
            SpoolFullError: No room.
            SpoolError: The file does not take writes. The segment ends with its last whole frame in both cases.
        """
        if self.ending:
            raise SpoolError("the segment has ended")
        buffers = [part for kind, payload in frames for part in (encode_header(kind, payload), payload)]
        size = 0
        try:
            for start in range(0, len(buffers), _BUFFERS_MAX):
                size += _write_all(self._fd, buffers[start : start + _BUFFERS_MAX])
        except BaseException as error:
            self._cut_back()
            if isinstance(error, OSError):
                raise spool_error("cannot append to a segment", error) from error
            raise
        self.size_bytes += size
        for kind, _ in frames:
            self._requests += kind == Kind.REQUEST
            self._spans += kind == Kind.SPAN

    def sync(self) -> None:
        """Makes everything written durable. Raises SyncFailedError: `seal` it then, it takes no more frames."""
        try:
            sync_data(self._fd)
        except OSError as error:
            self.give_up(self._durable_end)
            raise SyncFailedError(f"cannot make a segment durable: {error.strerror}") from error
        self._durable_end = self.size_bytes

    def give_up(self, size_bytes: int) -> None:
        """The segment takes no more frames, and `seal` cuts off what is not durable or beyond `size_bytes`."""
        self.ending = self._failed = True
        self._durable_end = min(self._durable_end, size_bytes)

    def seal(self, reason: str) -> None:
        """Ends the segment and gives it to the drainer. After any error it may be called again and goes on.

        Args:
            reason: `size`, `age`, `stop` or `recovered`. After a failed sync there is no SEAL frame to say it in: the
                segment ends with its last durable group.

        Raises:
            SpoolFullError: No room for the SEAL frame.
            SyncFailedError: See `sync`.
            SpoolError: The file cannot be renamed.
        """
        if not self.ending:
            counts = {"reason": reason, "requests": self._requests, "spans": self._spans}
            self.write([(Kind.SEAL, pack(counts))])
            self.ending = True
        if not self._failed:
            self.sync()
        try:
            if self._failed and self.path.exists():
                # By path: the descriptor has failed before.
                os.truncate(self.path, self._durable_end)
            sealed = self.path.with_suffix(SEALED)
            if not self.is_given and not sealed.exists():
                self.path.rename(sealed)
            self.is_given = True
            sync_folder(self.path.parent)
        except OSError as error:
            raise spool_error("cannot end a segment", error) from error
        self.close()

    def _cut_back(self) -> None:
        try:
            os.ftruncate(self._fd, self.size_bytes)
        except OSError:
            # Half a frame would hide every later one from its readers.
            self.give_up(self.size_bytes)

    def close(self) -> None:
        """Closes the file as it is. Safe twice."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    after_fork_in_child = close


def _write_all(fd: int, buffers: Sequence[bytes]) -> int:
    """Writes all of it; a full disk writes a part first and only then says so."""
    size = sum(map(len, buffers))
    written = os.writev(fd, buffers)
    if written < size:
        rest = memoryview(b"".join(buffers))[written:]
        while rest:
            rest = rest[os.write(fd, rest) :]
    return size
