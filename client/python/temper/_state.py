# SPDX-License-Identifier: Apache-2.0
from collections.abc import Iterable
from enum import StrEnum
from typing import Self

from temper.v1 import training_service_pb2 as pb

_PREFIX = "JOB_STATE_"


class State(StrEnum):
    """Where a job is in its life. Equal to its name in lower case: `job.state == "running"`."""

    UNSPECIFIED = "unspecified"
    """One that this client is too old to know."""
    QUEUED = "queued"
    """Waits for a device slot, or for a retry."""
    STARTING = "starting"
    """A gang is being launched."""
    RUNNING = "running"
    """The gang has reported."""
    STOPPING = "stopping"
    """Waits until every process of the gang is gone."""
    SUCCEEDED = "succeeded"
    """Ended well: the export is committed."""
    FAILED = "failed"
    """Ended badly."""
    CANCELLED = "cancelled"
    """Ended on request."""
    PAUSED = "paused"
    """Stopped on request, and waits to be resumed."""
    CHECKING = "checking"
    """Model and data are being looked at, before it waits for a device slot."""

    @property
    def is_end(self) -> bool:
        """Whether it is one that a job never leaves."""
        return self in (State.SUCCEEDED, State.FAILED, State.CANCELLED)

    @classmethod
    def of(cls, value: pb.JobState) -> Self:
        """That of a message."""
        known = {pb.JobState.Value(_PREFIX + state.name): state for state in cls}
        return known.get(value, cls("unspecified"))


def state_names(states: Iterable[State | str]) -> list[str]:
    """For a message; ValueError when there is no such state."""
    return [_PREFIX + State(state.lower()).name for state in states]
