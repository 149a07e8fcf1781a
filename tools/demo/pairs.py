# SPDX-License-Identifier: Apache-2.0
"""The task of `make demo-dpo`: answers in metric units are preferred.

    How far is it from London to Paris?
    preferred      It is about 340 kilometres.
    the other one  It is about 211 miles.

Both say the same, so nothing but the unit can be learned. No place, thing or number of a held-out pair is in the
training set. The same seed gives the same files, byte for byte.
"""

import json
import random
from dataclasses import dataclass
from pathlib import Path

import dataset


@dataclass(frozen=True)
class Quantity:
    """What is asked for, in two units: the other unit is `ratio` × the metric one, plus `zero`."""

    questions: list[str]
    answer: str
    metric: str
    other: str
    ratio: float
    largest: int  # of the metric numbers
    zero: float = 0

    def texts(self, number: int) -> tuple[str, str]:
        return (
            self.answer.format(f"{number} {self.metric}"),
            self.answer.format(f"{round(number * self.ratio + self.zero)} {self.other}"),
        )


QUANTITIES = [
    Quantity(
        ["How far is it from {place} to {other}?", "What is the distance between {place} and {other}?"],
        "It is about {}.",
        "kilometres",
        "miles",
        ratio=0.621,
        largest=999,
    ),
    Quantity(
        ["How warm is it in {place} today?", "What is the temperature in {place} now?"],
        "It is {}.",
        "degrees Celsius",
        "degrees Fahrenheit",
        ratio=1.8,
        largest=40,
        zero=32,
    ),
    Quantity(
        ["How heavy is the {thing}?", "What does the {thing} weigh?"],
        "It weighs {}.",
        "kilograms",
        "pounds",
        ratio=2.205,
        largest=90,
    ),
    Quantity(
        ["How long is the {thing}?", "What is the length of the {thing}?"],
        "The {{thing}} is {} long.",
        "centimetres",
        "inches",
        ratio=0.394,
        largest=300,
    ),
]
SMALLEST = 6  # so that no number is 1 in its other unit


@dataclass(frozen=True)
class Slots:
    """The values of one of the two sets."""

    places: list[str]
    things: list[str]
    numbers: list[int]


def pair(quantity: Quantity, slots: Slots, rng: random.Random) -> dict:
    place, other = rng.sample(slots.places, 2)
    names = {"place": place, "other": other, "thing": rng.choice(slots.things)}
    number = rng.choice([number for number in slots.numbers if number <= quantity.largest])
    preferred, rejected = (text.format(**names) for text in quantity.texts(number))
    return {
        "prompt": [{"role": "user", "content": rng.choice(quantity.questions).format(**names)}],
        "chosen": [{"role": "assistant", "content": preferred}],
        "rejected": [{"role": "assistant", "content": rejected}],
    }


def pairs(slots: Slots, count: int, rng: random.Random) -> list[dict]:
    """`count` different ones, the quantities in turn."""
    seen: dict[str, dict] = {}
    while len(seen) < count:
        drawn = pair(QUANTITIES[len(seen) % len(QUANTITIES)], slots, rng)
        seen[json.dumps(drawn)] = drawn
    return list(seen.values())


def write(directory: Path, seed: int, train: int, held_out: int) -> None:
    """Writes train.jsonl and held_out.jsonl."""
    rng = random.Random(seed)
    pools = [dataset.halves(pool, rng) for pool in (dataset.PLACES, dataset.THINGS, list(range(SMALLEST, 1000)))]
    directory.mkdir(parents=True, exist_ok=True)
    for i, (name, count) in enumerate((("train", train), ("held_out", held_out))):
        lines = (json.dumps(drawn) + "\n" for drawn in pairs(Slots(*(pool[i] for pool in pools)), count, rng))
        (directory / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
