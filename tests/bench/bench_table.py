# SPDX-License-Identifier: Apache-2.0
"""From the runs of `make bench` to its table: medians, pair-wise ratios, MFU."""

import statistics
from collections.abc import Iterable
from dataclasses import dataclass

OURS = "temper"


@dataclass(frozen=True)
class Run:
    """What one process measured: a contender in one round of a work."""

    work: str
    contender: str
    round: int
    tokens: int  # of a step, without padding
    seconds: list[float]  # of each measured step
    loss: float  # of the weights as they were loaded
    peak_bytes: int
    seconds_at_peak: float | None = None  # that a step would take at the machine's peak; ours only

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / statistics.median(self.seconds)


@dataclass(frozen=True)
class Row:
    work: str
    contender: str
    tokens_per_second: float  # median of the rounds
    lowest: float
    highest: float
    mfu: float | None
    peak_gb: float
    ratio: float | None  # ours is so many times as fast: the median of the rounds' ratios
    loss: float


def speed_ratio(fast: Iterable[Run], slow: Iterable[Run]) -> float | None:
    """Median of the ratios within rounds: what changes from round to round, as these machines do, cancels out."""
    slow_rates = {run.round: run.tokens_per_second for run in slow}
    ratios = [run.tokens_per_second / slow_rates[run.round] for run in fast if run.round in slow_rates]
    return statistics.median(ratios) if ratios else None


def row(runs: list[Run], ours: list[Run]) -> Row:
    """`runs` of one contender, `ours` of the same work.

    Useful FLOPs of a step are the same for all, so the others' MFU follows from the step at peak speed that our reports
    imply. The highest peak of the rounds counts: a busy moment can only lower it.
    """
    rates = [run.tokens_per_second for run in runs]
    rate = statistics.median(rates)
    at_peak = [run.tokens / run.seconds_at_peak for run in ours if run.seconds_at_peak]
    return Row(
        work=runs[0].work,
        contender=runs[0].contender,
        tokens_per_second=rate,
        lowest=min(rates),
        highest=max(rates),
        mfu=rate / max(at_peak) if at_peak else None,
        peak_gb=statistics.median(run.peak_bytes for run in runs) / 1e9,
        ratio=speed_ratio(ours, runs),
        loss=runs[0].loss,
    )


def of(runs: list[Run], work: str, contender: str) -> list[Run]:
    return [run for run in runs if (run.work, run.contender) == (work, contender)]


def rows(runs: list[Run]) -> list[Row]:
    """In the order in which works and contenders first ran."""
    kinds = dict.fromkeys((run.work, run.contender) for run in runs)
    return [row(of(runs, work, contender), of(runs, work, OURS)) for work, contender in kinds]


def loss_difference(rows: list[Row]) -> float:
    """The largest within a work, as a share."""
    losses = [[row.loss for row in rows if row.work == work] for work in {row.work for row in rows}]
    return max(max(of_work) / min(of_work) - 1 for of_work in losses)


HEADINGS = ["", "tokens/s", "lowest–highest", "MFU", "peak memory", "temper is", "first loss"]


def cells(row: Row, label: str) -> list[str]:
    return [
        label,
        f"{row.tokens_per_second:.0f}",
        f"{row.lowest:.0f}–{row.highest:.0f}",
        f"{row.mfu:.0%}" if row.mfu is not None else "",
        f"{row.peak_gb:.1f} GB",
        f"{row.ratio:.2f} × as fast" if row.ratio is not None and row.contender != OURS else "",
        f"{row.loss:.4f}",
    ]


def table(rows: list[Row], titles: dict[str, str], label: dict[tuple[str, str], str]) -> str:
    """Markdown that also reads well in a terminal. `titles` of works, `label` of (work, contender)."""
    lines = [HEADINGS]
    for place, row in enumerate(rows):
        if place == 0 or rows[place - 1].work != row.work:
            lines.append([f"**{titles[row.work]}**", *[""] * (len(HEADINGS) - 1)])
        lines.append(cells(row, label[row.work, row.contender]))
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADINGS))]
    rule = ["-" * widths[0], *["-" * (width - 1) + ":" for width in widths[1:]]]
    lines.insert(1, rule)

    def aligned(line: list[str]) -> str:
        padded = [line[0].ljust(widths[0]), *[cell.rjust(width) for cell, width in zip(line[1:], widths[1:])]]
        return "| " + " | ".join(padded) + " |"

    return "\n".join(map(aligned, lines))
