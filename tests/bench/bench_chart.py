# SPDX-License-Identifier: Apache-2.0
"""The chart of `make bench`: tokens/s of each contender, a panel a work."""

import textwrap
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from bench_table import OURS, Row  # noqa: E402
from matplotlib import pyplot  # noqa: E402

OUR_COLOUR, THEIR_COLOUR = "#2b6cb0", "#a0aec0"


def draw_work(axes: pyplot.Axes, rows: list[Row], title: str, labels: list[str]) -> None:
    rates = [row.tokens_per_second for row in rows]
    colours = [OUR_COLOUR if row.contender == OURS else THEIR_COLOUR for row in rows]
    errors = [
        [rate - row.lowest for rate, row in zip(rates, rows)],
        [row.highest - row.tokens_per_second for row in rows],
    ]
    bars = axes.barh(labels, rates, color=colours, xerr=errors, error_kw={"elinewidth": 1, "ecolor": "#4a5568"})
    axes.bar_label(
        bars, [f" {rate:.0f}  ({row.peak_gb:.1f} GB)" for rate, row in zip(rates, rows)], padding=4, fontsize=8
    )
    axes.set_title(title, loc="left", fontsize=10)
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=9)


def draw(file: Path, rows: list[Row], titles: dict[str, str], label: dict[tuple[str, str], str], caption: str) -> None:
    works = list(dict.fromkeys(row.work for row in rows))
    of_work = {work: [row for row in rows if row.work == work] for work in works}
    figure, panels = pyplot.subplots(
        len(works),
        1,
        figsize=(8, 0.7 * len(works) + 0.34 * len(rows) + 0.6),
        sharex=True,
        squeeze=False,
        layout="constrained",
        gridspec_kw={"height_ratios": [len(of_work[work]) + 0.5 for work in works]},
    )
    for work, axes in zip(works, panels[:, 0]):
        draw_work(axes, of_work[work], titles[work], [label[work, row.contender] for row in of_work[work]])
    panels[-1, 0].set_xlim(0, 1.3 * max(row.highest for row in rows))
    panels[-1, 0].set_xlabel("tokens/s that are not padding (peak memory); lines: lowest to highest round", fontsize=9)
    figure.supxlabel(textwrap.fill(caption, 110), fontsize=8)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=150)
    pyplot.close(figure)
