# SPDX-License-Identifier: Apache-2.0
"""How a transfer waits until the server has a place for it."""

import logging
import random
import time
from collections.abc import Callable

from temper.errors import TemperError

_FIRST_PAUSE = 0.2
_LONGEST_PAUSE = 5.0
_PATIENCE = 600.0
_LOG = logging.getLogger("temper")


class Place:
    """Says how long to wait after a refusal. Does no I/O: the clients do.

    A server bears so many uploads and downloads at a time, of one caller and of all. A transfer that it has no place
    for is tried again for ten minutes, after pauses of random length, so that clients don't come back together.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._refused: float | None = None
        self._pause = _FIRST_PAUSE

    def refused(self, error: TemperError) -> float:
        """Seconds to wait before the next attempt; raises `error` when it says something else, or after ten minutes."""
        if error.reason != "TOO_MANY_STREAMS":
            raise error
        now = self._clock()
        if self._refused is None:
            self._refused = now
            _LOG.warning("%s. Waiting for that, up to %d minutes", error.message, _PATIENCE // 60)
        if now - self._refused > _PATIENCE:
            raise error
        pause = self._pause * random.uniform(0.5, 1)
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)
        return pause
