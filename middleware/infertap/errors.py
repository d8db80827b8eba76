"""Every exception that infertap raises on purpose, named by the one question that decides what happens next."""

from collections.abc import Sequence


class InfertapError(Exception):
    """Base of all errors raised on purpose."""


class ConfigError(InfertapError):
    """The settings cannot work. Carries *all* problems, so that one start shows the whole list.

    Args:
        problems: What stops the start.
        remarks: What would be a warning by itself, and may be the reason for the rest.
    """

    def __init__(self, problems: Sequence[str], remarks: Sequence[str] = ()) -> None:
        self.problems = tuple(problems)
        self.remarks = tuple(remarks)
        super().__init__("\n".join(self.lines))

    def __reduce__(self) -> tuple[type["ConfigError"], tuple[tuple[str, ...], tuple[str, ...]]]:
        """Servers hand exceptions from worker to master; by default the text alone would go."""
        return type(self), (self.problems, self.remarks)

    @property
    def lines(self) -> tuple[str, ...]:
        """Problems and remarks as they are shown, one line each."""
        return (*(f"- {problem}" for problem in self.problems), *(f"! {remark}" for remark in self.remarks))


class OtelConfigError(ConfigError):
    """The standard `OTEL_*` variables hold mistakes. They stop the sidecar, but never somebody's app."""


class UsageError(InfertapError):
    """What the caller asked for cannot be meant: a malformed id, a statement that is not allowed."""


class DestinationError(InfertapError):
    """A destination did not take a batch."""


class RetryableError(DestinationError):
    """The same batch may be taken later.

    Args:
        message: What was seen, without credentials and without record content.
        retry_after_s: Seconds that the destination asked us to wait, if it did.
        is_told: Whether the log has these words already.
    """

    def __init__(self, message: str, *, retry_after_s: float | None = None, is_told: bool = False) -> None:
        self.retry_after_s = retry_after_s
        self.is_told = is_told
        super().__init__(message)


class PermanentError(DestinationError):
    """The same batch will never be taken; the caller counts it as lost or parks it."""


class SpoolError(InfertapError):
    """The spool cannot take a record or cannot be read."""


class SpoolFullError(SpoolError):
    """There is no room: the cap, the free-space floor, or the disk itself was reached."""
