# SPDX-License-Identifier: Apache-2.0
"""The figures of `make bench`: medians, ratios of one round, MFU from the same FLOPs."""

import dataclasses
import random
import statistics

import bench_table
import pytest
import works
from bench_table import OURS, Run


def run(contender: str, number: int, seconds: list[float], work: str = "chat", **more: float) -> Run:
    return Run(work, contender, number, tokens=100, seconds=seconds, loss=3.0, peak_bytes=2_000_000_000, **more)


def test_rate_is_that_of_the_median_step() -> None:
    assert run("trl", 1, [1.0, 2.0, 50.0]).tokens_per_second == 50


def test_ratio_is_the_median_of_the_rounds_ratios() -> None:
    # The machine is half as fast in the second round, and the peer has a bad third: medians alone would give 3.
    ours = [run(OURS, 1, [1.0]), run(OURS, 2, [2.0]), run(OURS, 3, [1.0])]
    peer = [run("trl", 1, [4.0]), run("trl", 2, [8.0]), run("trl", 3, [9.0])]
    assert bench_table.speed_ratio(ours, peer) == 4
    assert bench_table.speed_ratio(reversed(ours), peer) == 4


def test_ratio_needs_a_common_round() -> None:
    assert bench_table.speed_ratio([run(OURS, 1, [1.0])], [run("trl", 2, [1.0])]) is None


def test_row_sums_up_the_rounds() -> None:
    ours = [run(OURS, 1, [1.0], seconds_at_peak=0.6), run(OURS, 2, [1.0], seconds_at_peak=0.5)]
    peer = [run("trl", 1, [4.0]), run("trl", 2, [2.0]), run("trl", 3, [10.0])]
    row = bench_table.row(peer, ours)
    assert (row.tokens_per_second, row.lowest, row.highest) == (25, 10, 50)
    assert row.mfu == pytest.approx(0.5 / 4)  # of the highest peak, 100 tokens in 0.5 s
    assert row.ratio == 3
    assert row.peak_gb == 2


def test_without_ours_there_is_no_mfu_and_no_ratio() -> None:
    row = bench_table.rows([run("trl", 1, [4.0])])[0]
    assert row.mfu is None
    assert row.ratio is None


def test_rows_keep_works_apart() -> None:
    runs = [
        run(OURS, 1, [1.0]),
        run("trl", 1, [2.0]),
        run(OURS, 1, [1.0], work="lora"),
        run("trl", 1, [5.0], work="lora"),
    ]
    assert [(row.work, row.contender, row.ratio) for row in bench_table.rows(runs)] == [
        ("chat", OURS, 1),
        ("chat", "trl", 2),
        ("lora", OURS, 1),
        ("lora", "trl", 5),
    ]


def test_losses_are_compared_within_a_work() -> None:
    def row(work: str, loss: float) -> bench_table.Row:
        return bench_table.row([dataclasses.replace(run("trl", 1, [1.0], work=work), loss=loss)], ours=[])

    rows = [row("chat", 3.0), row("chat", 3.03), row("long", 1.0), row("long", 1.0)]
    assert bench_table.loss_difference(rows) == pytest.approx(0.01)


def test_table_has_a_line_a_row_and_equal_widths() -> None:
    rows = bench_table.rows([run(OURS, 1, [1.0], seconds_at_peak=0.5), run("trl", 1, [3.0])])
    lines = bench_table.table(rows, {"chat": "Chats"}, {("chat", OURS): "temper", ("chat", "trl"): "TRL"}).splitlines()
    assert len({len(line) for line in lines}) == 1
    ours, peer = ([cell.strip() for cell in line.split("|")[1:-1]] for line in lines[-2:])
    assert ours == ["temper", "100", "100–100", "50%", "2.0 GB", "", "3.0000"]
    assert peer == ["TRL", "33", "33–33", "17%", "2.0 GB", "3.00 × as fast", "3.0000"]


def words_of(chat: dict) -> int:
    (words,) = works.words_of(chat)
    return words


def test_pairs_share_their_prompt() -> None:
    pairs = works.typical(works.pair)
    assert len(pairs) == works.CHATS_A_STEP
    for pair in pairs:
        chosen, rejected = works.conversations(pair)
        assert chosen[0] == rejected[0]
        assert chosen[1] != rejected[1]
        assert [message["role"] for message in rejected] == ["user", "assistant"]


def test_chats_are_the_same_every_time_and_typical() -> None:
    chats = works.typical(works.chat)
    assert chats == works.typical(works.chat)
    assert len(chats) == works.CHATS_A_STEP

    rng = random.Random(7)
    others = [[words_of(works.chat(rng)) for _ in chats] for _ in range(300)]
    padding = statistics.median(works.padding_share(lengths) for lengths in others)
    assert works.padding_share([words_of(chat) for chat in chats]) == pytest.approx(padding, abs=0.02)
    words = [count for lengths in others for count in lengths]
    assert 80 < statistics.median(words) < 120
    assert max(words) > 7 * statistics.median(words)  # a long tail
