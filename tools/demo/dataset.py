#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The demo's task: turn a sentence into the JSON of a tool call.

    remind me at 6:20 pm to clean the oven
    {"tool":"set_reminder","arguments":{"time":"6:20 pm","text":"clean the oven"}}

A sample is a template with slots filled in. Every slot's values are divided once into those of the training set and
those of the held-out set, so a held-out prompt shares no slot value with any sample that was trained on. The same
seed gives the same files, byte for byte.
"""

import argparse
import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

SYSTEM = "Answer with a tool call."
HELD_OUT_SHARE = 0.4

# Words that begin a JSON string are ones that the tokenizer keeps whole with and without a space before them. Others
# fall into different pieces behind the quote, and spelling them is another task than the one here.
PEOPLE = """Adam Alex Alexander Alice Andrew Ann Anna Anne Arthur Ben Bob Carl Charles Chris Christian Dan Daniel David
Donald Edward Elizabeth Emily Frank Fred George Greg Henry Jack Jacob James Jane Jean Jeff Jim John Joseph Josh Ken Kim
Lee Lewis Louis Luke Maria Marie Martin Mary Matt Matthew Max Michael Neil Nick Paul Peter Richard Robert Sam Samuel
Sarah Scott Simon Stephen Thomas Tim Tom Victor William""".split()

PLACES = """China India Canada Japan France Germany Italy Spain Mexico Brazil Russia Australia England Britain Texas
California Florida Virginia Egypt Israel Iran Pakistan Africa Europe America Rome London Paris Boston Chicago Oxford
Cambridge Lincoln Jackson Washington""".split()

# Things that one can buy, pack, clean or ask for: they make the texts of reminders and messages, and timers' labels.
THINGS = """apples bag ball beans bed bird boat book box bread bus camera car cards chair clay clock coat computer corn
cup dog door engine film filter fish flag floor flowers food fruit game gate glass grass hat horse house iron key
leaf letters lights lock map mask meat medicine milk mouse movie music notes oil oven pan paper phone photos picture
pipe plane plants plate pot printer radio report rice ring salt sand screen seeds sheet shirt soup sugar
table tools train tree wall water wheat wheel window wine wood""".split()

ACTIONS = "buy the|pack the|clean the|look for the|ask about the|return the|pay for the|photograph the".split("|")
NEWS = "I forgot the {}|I will bring the {}|please keep the {}|I found the {}|do not wait for the {}".split("|")
EVENTS = "lunch with|dinner with|a call with|a walk with|tennis with|a meeting with".split("|")
MONTHS = "January February March April May June July August September October November December".split()


TIMES = [
    f"{hour}:{minute:02d} {half}" if minute else f"{hour} {half}"
    for half in ("am", "pm")
    for hour in range(1, 13)
    for minute in range(0, 60, 5)
]
DATES = [f"{day} {month}" for month in MONTHS for day in range(1, 29)]
MINUTES = list(range(2, 120))


def halves(values: list, rng: random.Random) -> tuple[list, list]:
    """Divides the values of a slot into those for training and those for the held-out set."""
    values = rng.sample(values, len(values))
    held_out = round(len(values) * HELD_OUT_SHARE)
    return values[held_out:], values[:held_out]


@dataclass(frozen=True)
class Slots:
    """The values of one of the two sets."""

    people: list[str]
    places: list[str]
    things: list[str]
    times: list[str]
    dates: list[str]
    minutes: list[int]


def divide_slots(rng: random.Random) -> tuple[Slots, Slots]:
    pools = [halves(pool, rng) for pool in (PEOPLE, PLACES, THINGS, TIMES, DATES, MINUTES)]
    return Slots(*(train for train, _ in pools)), Slots(*(held_out for _, held_out in pools))


Sample = tuple[str, str, dict]  # what the user says, the tool, its arguments


def reminder(slots: Slots, rng: random.Random) -> Sample:
    time = rng.choice(slots.times)
    text = rng.choice([f"{rng.choice(ACTIONS)} {rng.choice(slots.things)}", f"call {rng.choice(slots.people)}"])
    sentence = rng.choice(
        ["remind me at {time} to {text}", "at {time} remind me to {text}", "at {time} I have to {text}"]
    )
    arguments = {"time": time, "text": text}
    return sentence.format(**arguments), "set_reminder", arguments


def timer(slots: Slots, rng: random.Random) -> Sample:
    arguments = {"minutes": rng.choice(slots.minutes), "label": rng.choice(slots.things)}
    sentence = rng.choice(
        [
            "set a timer of {minutes} minutes for the {label}",
            "start a {minutes} minute timer for the {label}",
            "the {label} should take {minutes} minutes, start a timer",
        ]
    )
    return sentence.format(**arguments), "set_timer", arguments


def weather(slots: Slots, rng: random.Random) -> Sample:
    arguments = {"place": rng.choice(slots.places), "date": rng.choice(slots.dates)}
    sentence = rng.choice(
        [
            "how is the weather in {place} on {date}?",
            "will it rain in {place} on {date}?",
            "weather for {date} in {place}",
        ]
    )
    return sentence.format(**arguments), "get_weather", arguments


def message(slots: Slots, rng: random.Random) -> Sample:
    arguments = {"to": rng.choice(slots.people), "text": rng.choice(NEWS).format(rng.choice(slots.things))}
    sentence = rng.choice(["tell {to} that {text}", "let {to} know that {text}", "send {to} a message: {text}"])
    return sentence.format(**arguments), "send_message", arguments


def event(slots: Slots, rng: random.Random) -> Sample:
    time, date = rng.choice(slots.times), rng.choice(slots.dates)
    title = f"{rng.choice(EVENTS)} {rng.choice(slots.people)}"
    sentence = rng.choice(
        [
            "put {title} on my calendar on {date} at {time}",
            "add {title} on {date} at {time}",
            "schedule {title} for {date} at {time}",
        ]
    )
    arguments = {"title": title, "date": date, "time": time}
    return sentence.format(**arguments), "add_event", arguments


TOOLS: list[Callable[[Slots, random.Random], Sample]] = [reminder, timer, weather, message, event]


def conversations(slots: Slots, count: int, rng: random.Random) -> list[dict]:
    """`count` different samples, the tools in turn."""
    seen: dict[str, dict] = {}
    while len(seen) < count:
        sentence, tool, arguments = TOOLS[len(seen) % len(TOOLS)](slots, rng)
        call = json.dumps({"tool": tool, "arguments": arguments}, separators=(",", ":"))
        seen[sentence] = {
            "messages": [
                {"role": "system", "content": SYSTEM},
                {"role": "user", "content": sentence},
                {"role": "assistant", "content": call},
            ]
        }
    return list(seen.values())


def write(directory: Path, seed: int, train: int, held_out: int) -> None:
    """Writes train.jsonl and held_out.jsonl."""
    rng = random.Random(seed)
    train_slots, held_out_slots = divide_slots(rng)
    directory.mkdir(parents=True, exist_ok=True)
    for name, slots, count in (("train", train_slots, train), ("held_out", held_out_slots, held_out)):
        lines = (json.dumps(c, ensure_ascii=False) + "\n" for c in conversations(slots, count, rng))
        (directory / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path, help="where train.jsonl and held_out.jsonl go")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--train", type=int, default=400, help="samples to train on")
    parser.add_argument("--held-out", type=int, default=200, help="samples to evaluate on")
    arguments = parser.parse_args()
    write(arguments.directory, arguments.seed, arguments.train, arguments.held_out)


if __name__ == "__main__":
    main()
