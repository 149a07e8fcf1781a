# SPDX-License-Identifier: Apache-2.0
"""How a contender tells what it measured: a JSON object a line on stdout, which bench.py reads."""

import json
import resource
import time


class StepRecorder:
    """Seconds from step to step. The first `warm_up` steps, which allocate and compile, are not measured."""

    def __init__(self, seconds: float, steps: int, warm_up: int = 1) -> None:
        self._warm_up = warm_up
        self._least_seconds, self._least_steps = seconds, steps
        self._last_end = time.perf_counter()
        self._seconds: list[float] = []
        self._loss: float | None = None

    def loss(self, loss: float) -> None:
        """Of any step; the first step's is kept, that of the weights as they were loaded."""
        if self._loss is None:
            self._loss = loss

    def end_of_step(self, seconds: float | None = None) -> None:
        """Without `seconds`, the time since the last call is taken."""
        now = time.perf_counter()
        if self._warm_up > 0:
            self._warm_up -= 1
        else:
            self._seconds.append(now - self._last_end if seconds is None else seconds)
        self._last_end = now

    def enough(self) -> bool:
        return len(self._seconds) >= self._least_steps and sum(self._seconds) >= self._least_seconds

    def report(self, peak_bytes: int | None = None, **more: float) -> None:
        """Without `peak_bytes`, the largest resident set of this process is taken."""
        if peak_bytes is None:
            peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        print(json.dumps({"loss": self._loss, "seconds": self._seconds, "peak_bytes": peak_bytes} | more), flush=True)
