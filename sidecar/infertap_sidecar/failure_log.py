"""Tells the operator that the model server fails, without a line per request."""

import logging

from infertap.clock import Clock

INTERVAL_S = 10.0


class FailureLog:
    """One WARNING at the first failure, then at most one each `INTERVAL_S`, with the number of those between."""

    def __init__(self, logger: logging.Logger, clock: Clock) -> None:
        self._logger = logger
        self._clock = clock
        self._next_s = 0.0
        self._untold = 0

    def failed(self, message: str) -> None:
        """Note one failed exchange; `message` holds no byte of it."""
        now = self._clock.monotonic_s()
        if now < self._next_s:
            self._untold += 1
            return
        more = f" ({self._untold} more failures since the last such line)" if self._untold else ""
        self._untold = 0
        self._next_s = now + INTERVAL_S
        self._logger.warning("%s%s", message, more)
