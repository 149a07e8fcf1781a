# SPDX-License-Identifier: Apache-2.0
"""What `make bench` trains on: six works, each with the samples of one optimizer step, which every step repeats.

So every step does the same, whatever order and packing a contender has, and the first loss is the same for all.
"""

import json
import random
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

# Words of one token each or little more; the texts mean nothing.
WORDS = (
    "the of and to in is that for it as was with be by on not he his but at are this have from or had an they which "
    "one you were all her she there would their we him been has when who will no more if out so up said what its "
    "about than into them can only other time new some could these two may first then do any like my now over such "
    "our man me even most made after also did many off before must well back through years where much your way down "
    "should because long each just those people how too little state good very make world still see own work men day "
    "get here between both life being under three never know same last another while us might great old year come "
    "since against go came right used take house water place small found part once general high upon school every "
    "left number course war until"
).split()
SYLLABLES = "ka ro mi te lan sor ven dal pri ost ul em bra chi nor fex".split()
WORDS_A_QUESTION, WORDS_AN_ANSWER = 27, 54  # medians
SPREAD = 0.8  # standard deviation of the logarithm
CHATS_A_STEP = 8  # the default batch of TRL, of chats and of pairs
CHAT_LIMIT = 1024  # tokens; the default limit of TRL
DRAWS = 501


@dataclass(frozen=True)
class Work:
    """What a contender is told, as JSON. Lengths are tokens."""

    name: str
    model: str
    data: str  # JSONL, a sample a line: the form that a user has
    max_sample_tokens: int
    documents: list[list[int]]  # the same samples as tokens, cut at that
    lora: bool
    pairs: bool  # samples are pairs of answers, two documents each
    bf16: bool
    threads: int
    seconds: float  # measured steps take so long at least,
    steps: int  # and are so many at least

    @property
    def tokens(self) -> int:
        return sum(map(len, self.documents))

    @staticmethod
    def read(path: Path) -> "Work":
        return Work(**json.loads(path.read_text()))

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self)))


def text(rng: random.Random, count: int) -> str:
    """Common words, and some that a tokenizer has to cut."""
    words = (rng.choice(WORDS) if rng.random() < 0.85 else "".join(rng.choices(SYLLABLES, k=3)) for _ in range(count))
    return " ".join(words).capitalize() + "."


def fixed_texts(count: int, words: int) -> list[dict]:
    """Long enough to be cut everywhere at the same length."""
    rng = random.Random(1)
    return [{"text": text(rng, words)} for _ in range(count)]


def chat(rng: random.Random) -> dict:
    def words(median: int) -> int:
        return max(1, round(median * rng.lognormvariate(0, SPREAD)))

    return {
        "messages": [
            {"role": "user", "content": text(rng, words(WORDS_A_QUESTION))},
            {"role": "assistant", "content": text(rng, words(WORDS_AN_ANSWER))},
        ]
    }


def pair(rng: random.Random) -> dict:
    """A chat with another answer."""
    chosen, rejected = chat(rng)["messages"], chat(rng)["messages"]
    return {"prompt": chosen[:1], "chosen": chosen[1:], "rejected": rejected[1:]}


def conversations(sample: dict) -> list[list[dict]]:
    """The messages of each document that a sample of messages is."""
    if "messages" in sample:
        return [sample["messages"]]
    return [sample["prompt"] + sample[answer] for answer in ("chosen", "rejected")]


def words_of(sample: dict) -> list[int]:
    """Of each of its documents."""
    return [sum(message["content"].count(" ") + 1 for message in messages) for messages in conversations(sample)]


def padding_share(lengths: list[int]) -> float:
    """Of a batch that is padded to its longest sample."""
    return 1 - sum(lengths) / (max(lengths) * len(lengths))


def typical(sample: Callable[[random.Random], dict]) -> list[dict]:
    """Of many batches the one with the median share of padding, so that luck favours nobody."""
    rng = random.Random(1)
    batches = [[sample(rng) for _ in range(CHATS_A_STEP)] for _ in range(DRAWS)]
    batches.sort(key=lambda batch: padding_share([words for one in batch for words in words_of(one)]))
    return batches[DRAWS // 2]


@dataclass(frozen=True)
class WorkKind:
    title: str
    samples: Callable[[], list[dict]]
    max_sample_tokens: int
    lora: bool = False
    pairs: bool = False


WORK_KINDS = {
    "fixed": WorkKind("(a) all weights, 2 × 512 tokens", lambda: fixed_texts(2, 600), 512),
    "chat": WorkKind(f"(b) all weights, {CHATS_A_STEP} chats of uneven length", lambda: typical(chat), CHAT_LIMIT),
    "lora": WorkKind(
        "(c) LoRA of rank 16 on all linear layers, the chats of (b)", lambda: typical(chat), CHAT_LIMIT, lora=True
    ),
    "long": WorkKind("(d) all weights, 1 × 4096 tokens", lambda: fixed_texts(1, 4500), 4096),
    "pairs": WorkKind(
        f"(e) DPO, all weights, {CHATS_A_STEP} pairs of answers of uneven length",
        lambda: typical(pair),
        CHAT_LIMIT,
        pairs=True,
    ),
    "pairs-lora": WorkKind(
        "(f) DPO, LoRA of rank 16 on all linear layers, the pairs of (e)",
        lambda: typical(pair),
        CHAT_LIMIT,
        lora=True,
        pairs=True,
    ),
}
