# SPDX-License-Identifier: Apache-2.0
"""The demo's data: reproducible, well formed, and held-out prompts that share no slot value with the training set."""

import json
import random
import sys
from dataclasses import fields
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools/demo"))
import dataset  # noqa: E402


@pytest.fixture
def written(tmp_path: Path) -> dict[str, list[dict]]:
    dataset.write(tmp_path, seed=0, train=360, held_out=200)
    return {
        name: [json.loads(line) for line in (tmp_path / f"{name}.jsonl").read_text().splitlines()]
        for name in ("train", "held_out")
    }


def test_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    for directory in ("one", "two"):
        dataset.write(tmp_path / directory, seed=7, train=50, held_out=20)
    dataset.write(tmp_path / "other", seed=8, train=50, held_out=20)
    one, two, other = ((tmp_path / name / "train.jsonl").read_bytes() for name in ("one", "two", "other"))
    assert one == two
    assert one != other


def test_sizes_and_no_repeated_prompt(written: dict[str, list[dict]]) -> None:
    assert {name: len(samples) for name, samples in written.items()} == {"train": 360, "held_out": 200}
    prompts = [sample["messages"][-2]["content"] for samples in written.values() for sample in samples]
    assert len(set(prompts)) == len(prompts)


def test_answers_are_calls_of_every_tool(written: dict[str, list[dict]]) -> None:
    for samples in written.values():
        calls = [json.loads(sample["messages"][-1]["content"]) for sample in samples]
        assert {call["tool"] for call in calls} == {
            "set_reminder",
            "set_timer",
            "get_weather",
            "send_message",
            "add_event",
        }


def test_slot_values_are_disjoint() -> None:
    train, held_out = dataset.divide_slots(random.Random(0))
    for field in fields(dataset.Slots):
        assert not set(getattr(train, field.name)) & set(getattr(held_out, field.name))
        assert getattr(held_out, field.name)


def test_held_out_argument_values_never_occur_in_training(written: dict[str, list[dict]]) -> None:
    """On the text itself: names, places, things, times, dates and durations, whatever wrote them."""

    def values(samples: list[dict], key: str) -> set[str]:
        calls = (json.loads(sample["messages"][-1]["content"])["arguments"] for sample in samples)
        return {str(call[key]) for call in calls if key in call}

    for key in ("time", "date", "place", "to", "minutes", "label", "title"):
        trained, held_out = values(written["train"], key), values(written["held_out"], key)
        assert trained
        assert held_out
        assert not trained & held_out
