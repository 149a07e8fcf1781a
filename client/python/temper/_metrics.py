# SPDX-License-Identifier: Apache-2.0
"""Figures of a job's steps, out of its events."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from google.protobuf.descriptor import FieldDescriptor

from temper.v1 import training_service_pb2 as pb

if TYPE_CHECKING:
    import pandas


class StepHistory:
    """The steps that count: what was taken again after a loss replaces what had been taken before."""

    def __init__(self, until: int) -> None:
        self.is_complete = until == 0
        """Whether the event `until` was added."""
        self._until = until
        self._steps: dict[int, tuple[datetime, pb.StepMetrics]] = {}

    def add(self, event: pb.JobEvent) -> None:
        """Events come in order."""
        if event.HasField("resumption"):
            self._steps = {step: taken for step, taken in self._steps.items() if step <= event.resumption.step}
        elif event.HasField("step"):
            self._steps[event.step.step] = (event.time.ToDatetime(UTC), event.step)
        self.is_complete = event.sequence >= self._until

    @property
    def steps(self) -> list[pb.StepMetrics]:
        """In order."""
        return [step for _, step in self._steps.values()]

    @property
    def rows(self) -> list[dict[str, Any]]:
        """In order: every figure by its name, and `time`."""
        fields = [
            field
            for field in pb.StepMetrics.DESCRIPTOR.fields
            if not field.is_repeated and field.cpp_type != FieldDescriptor.CPPTYPE_MESSAGE
        ]
        return [
            {field.name: getattr(step, field.name) for field in fields} | {"time": time}
            for time, step in self._steps.values()
        ]

    def to_pandas(self) -> "pandas.DataFrame":
        """A row a step; ImportError when there is no pandas."""
        try:
            import pandas
        except ImportError:
            raise ImportError("to_pandas() needs pandas: pip install 'temper-client[pandas]'") from None
        columns = [field.name for field in pb.StepMetrics.DESCRIPTOR.fields]
        frame = pandas.DataFrame(self.rows, columns=None if self._steps else [*columns, "time"])
        return frame.set_index("step")
