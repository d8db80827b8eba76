"""Every exception that infertap raises on purpose, named by the one question that decides what happens next."""

from collections.abc import Sequence


class InfertapError(Exception):
    """Base of all errors raised on purpose."""


class ConfigError(InfertapError):
    """The settings cannot work. Carries *all* problems, so that one start shows the whole list."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(f"- {problem}" for problem in self.problems))


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
