# SPDX-License-Identifier: Apache-2.0
"""The pairs of `make demo-dpo`: reproducible, the same fact twice, and held-out ones that share nothing."""

import json
import re
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools/demo"))
import pairs  # noqa: E402

METRIC = {quantity.metric: quantity for quantity in pairs.QUANTITIES}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict]]:
    directory = tmp_path_factory.mktemp("pairs")
    pairs.write(directory, seed=0, train=240, held_out=80)
    return {
        name: [json.loads(line) for line in (directory / f"{name}.jsonl").read_text().splitlines()]
        for name in ("train", "held_out")
    }


def answer(pair: dict, which: str) -> tuple[int, str]:
    """The number and its unit."""
    number, unit = re.search(r"(\d+) (\w+(?: [CF]\w+)?)", pair[which][0]["content"]).groups()
    return int(number), unit


def test_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    for directory in ("one", "two"):
        pairs.write(tmp_path / directory, seed=7, train=50, held_out=20)
    one, two = ((tmp_path / name / "train.jsonl").read_bytes() for name in ("one", "two"))
    assert one == two


def test_answers_differ_in_the_unit_alone(written: dict[str, list[dict]]) -> None:
    for pair in [*written["train"], *written["held_out"]]:
        number, unit = answer(pair, "chosen")
        converted, other = answer(pair, "rejected")
        quantity = METRIC[unit]
        assert other == quantity.other
        assert converted == round(number * quantity.ratio + quantity.zero)


def test_held_out_pairs_share_nothing_with_the_training_set(written: dict[str, list[dict]]) -> None:
    assert {name: len(found) for name, found in written.items()} == {"train": 240, "held_out": 80}
    texts = {name: {json.dumps(pair) for pair in found} for name, found in written.items()}
    assert len(texts["train"]) == 240
    assert not texts["train"] & texts["held_out"]
    numbers, names = (
        {name: {found for pair in written[name] for found in find(pair)} for name in written}
        for find in (
            lambda pair: [answer(pair, "chosen")[0]],
            lambda pair: re.findall(r"(?:in|from|to|between|and|the) ([A-Z]\w+)", pair["prompt"][0]["content"]),
        )
    )
    assert not numbers["train"] & numbers["held_out"]
    assert names["train"]
    assert not names["train"] & names["held_out"]
