"""Tells the operator that the model server fails, without a line per request."""

import logging

from infertap.clock import Clock

INTERVAL_S = 10.0
KINDS_MAX = 32
"""Kinds of failure that are told apart; of more, the one that was told longest ago is forgotten."""


class FailureLog:
    """One WARNING at the first failure of a kind, then at most one each `INTERVAL_S`, with the number of those between.

    The kind is the message: a server that first breaks off and then is gone gets a line for either.
    """

    def __init__(self, logger: logging.Logger, clock: Clock) -> None:
        self._logger = logger
        self._clock = clock
        self._next_s: dict[str, float] = {}
        """By message, the one told last at the end."""
        self._untold: dict[str, int] = {}

    def failed(self, message: str) -> None:
        """Note one failed exchange; `message` holds no byte of it."""
        now = self._clock.monotonic_s()
        if now < self._next_s.get(message, now):
            self._untold[message] = self._untold.get(message, 0) + 1
            return
        untold = self._untold.pop(message, 0)
        more = f" ({untold} more failures of this kind since the last such line)" if untold else ""
        self._next_s.pop(message, None)
        self._next_s[message] = now + INTERVAL_S
        if len(self._next_s) > KINDS_MAX:
            oldest = next(iter(self._next_s))
            del self._next_s[oldest]
            self._untold.pop(oldest, None)
        self._logger.warning("%s%s", message, more)
