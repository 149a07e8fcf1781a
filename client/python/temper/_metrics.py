# SPDX-License-Identifier: Apache-2.0
"""Figures of a job's steps, out of its events."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

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
        """In order: every figure by its name (`loss`, `phases.forward`, `objective.rewards/margins`), and `time`."""
        return [_figures(step) | {"time": time} for time, step in self._steps.values()]

    def to_pandas(self) -> "pandas.DataFrame":
        """A row a step; ImportError when there is no pandas."""
        try:
            import pandas
        except ImportError:
            raise ImportError("to_pandas() needs pandas: pip install 'temper-client[pandas]'") from None
        columns = None if self._steps else [*_figures(pb.StepMetrics()), "time"]
        frame = pandas.DataFrame(self.rows, columns=columns)
        return frame.set_index("step")


def _figures(message: Message, prefix: str = "") -> dict[str, Any]:
    figures: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            figures |= {f"{prefix}{field.name}.{name}": figure for name, figure in sorted(value.items())}
        elif field.cpp_type == FieldDescriptor.CPPTYPE_MESSAGE:
            figures |= _figures(value, f"{prefix}{field.name}.")
        else:
            figures[prefix + field.name] = value
    return figures
