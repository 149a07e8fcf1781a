# SPDX-License-Identifier: Apache-2.0
"""What the handles of both clients know of a job."""

from temper._state import State
from temper.errors import JobFailed
from temper.v1 import job_pb2
from temper.v1 import training_service_pb2 as pb


class JobHandle:
    """A job as it was when the server was last asked; the events that pass through this handle keep its state fresh."""

    def __init__(self, info: pb.Job) -> None:
        self._info = info

    @property
    def info(self) -> pb.Job:
        """All that the server said of it."""
        return self._info

    @property
    def name(self) -> str:
        """`jobs/ID`."""
        return self._info.name

    @property
    def id(self) -> str:
        """Its id."""
        return self._info.name.removeprefix("jobs/")

    @property
    def spec(self) -> job_pb2.JobSpec:
        """What was asked for, with defaults filled in."""
        return self._info.spec

    @property
    def state(self) -> State:
        """Where it is in its life."""
        return State.of(self._info.state)

    @property
    def reason(self) -> str:
        """Why it is in this state, or why it waits, for people. May be empty."""
        return self._info.reason

    @property
    def cause(self) -> str:
        """Why it failed: `USER_INPUT`, `NUMERICS`, …; empty unless it has."""
        name = pb.FailureCause.Name(self._info.cause) if self._info.cause in pb.FailureCause.values() else "UNKNOWN"
        return "" if self._info.cause == pb.FAILURE_CAUSE_UNSPECIFIED else name.removeprefix("FAILURE_CAUSE_")

    @property
    def export_uri(self) -> str:
        """Of the committed export, on the server's side; empty until there is one."""
        return self._info.export_uri

    def __repr__(self) -> str:
        return f"<Job {self.id}: {self.state}>"

    def _observe(self, event: pb.JobEvent) -> pb.JobEvent:
        """Takes over what an event says, unless the server has said more already."""
        if event.sequence > self._info.last_sequence:
            self._info.last_sequence = event.sequence
            match event.WhichOneof("event"):
                case "state":
                    self._info.state = event.state.state
                    self._info.reason = event.state.reason
                    self._info.cause = event.state.cause
                    self._info.epoch = event.state.epoch
                case "step":
                    self._info.latest_step.CopyFrom(event.step)
                case "export":
                    self._info.export_uri = event.export.uri
        return event

    def _ended(self, check: bool) -> State:
        if check and self.state is not State.SUCCEEDED:
            cause = self.cause or self.state.name
            text = f"{self.name} {self.state.name}" + (f" ({self.cause})" if self.cause else "")
            raise JobFailed(f"{text}: {self.reason}" if self.reason else text, state=self.state, reason=cause)
        return self.state
