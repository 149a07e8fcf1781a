# SPDX-License-Identifier: Apache-2.0
"""How a job's events are followed over connections that break."""

import time
from collections.abc import Callable

import grpc

from temper.errors import DataLoss, DeadlineExceeded, TemperError
from temper.v1 import training_service_pb2 as pb

_FIRST_PAUSE = 0.2
_LONGEST_PAUSE = 5.0
_PATIENCE = 600.0
# CANCELLED is what a server that shuts down does to a call that it has just accepted; RESOURCE_EXHAUSTED says that we
# were too slow.
_WORTH_RECONNECTING = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.CANCELLED,
)


class Follower:
    """Says what to ask for, and what to do when the answer breaks off. Does no I/O: the clients do.

    Each event comes once and in order. A connection that is lost is opened again after the last sequence seen, for ten
    minutes, or until `timeout` seconds have passed since the start.
    """

    def __init__(
        self, name: str, after: int, timeout: float | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.last = after
        """Sequence of the newest event."""
        self._name = name
        self._timeout = timeout
        self._clock = clock
        self._start = clock()
        self._ever_connected = False
        self._lost: float | None = None
        self._pause = _FIRST_PAUSE

    @property
    def request(self) -> pb.WatchJobRequest:
        """For the next stream."""
        return pb.WatchJobRequest(name=self._name, after_sequence=self.last)

    @property
    def remaining(self) -> float | None:
        """Seconds that the next stream may take."""
        return None if self._timeout is None else max(0.0, self._start + self._timeout - self._clock())

    def accept(self, event: pb.JobEvent) -> pb.JobEvent:
        """Of every event that comes; DataLoss when one is missing or comes again."""
        if event.sequence != self.last + 1:
            raise DataLoss(
                f"the server sent event {event.sequence} of {self._name} after event {self.last}; "
                "events must come without gaps"
            )
        self.last = event.sequence
        self._lost = None
        self._ever_connected = True
        return event

    def interrupted(self, error: TemperError) -> float:
        """Seconds to wait before the next stream; raises when there is no point in one."""
        remaining = self.remaining
        if remaining is not None and (remaining == 0 or error.code is grpc.StatusCode.DEADLINE_EXCEEDED):
            raise DeadlineExceeded(f"{self._name} has not ended within {self._timeout:g} s") from error
        if error.code not in _WORTH_RECONNECTING:
            raise error
        if error.code is grpc.StatusCode.RESOURCE_EXHAUSTED and not self._ever_connected:
            raise error  # not too slow: too many of us
        now = self._clock()
        if self._lost is None:
            self._lost, self._pause = now, _FIRST_PAUSE
        if now - self._lost > _PATIENCE:
            raise error
        pause = self._pause if remaining is None else min(self._pause, remaining)
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)
        return pause
