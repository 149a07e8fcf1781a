# SPDX-License-Identifier: Apache-2.0
"""What temper exports, and what a reader of it that is neither ours nor transformers makes of it."""

import contextlib
import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import smollm2
import tiny_models
import torch
from transformers import AutoModelForCausalLM
from worker.checkpoint.test_round_trip import export

NEW_TOKENS = 64
SMOLLM2_PROMPT = [1, 4093, 198, 1780, 314, 260, 3575, 282, 4649, 47, 2, 198, 1, 520, 9531, 198]

Ask = Callable[[Path, list[int]], dict]


@contextlib.contextmanager
def started(command: list[str | Path]) -> Iterator[Ask]:
    """A reader, which answers a line with a line (mlx_reader.py says what is in them)."""
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:

        def ask(model: Path, prompt: list[int]) -> dict:
            request = {"model": str(model), "prompt": prompt, "new_tokens": NEW_TOKENS}
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
            return json.loads(process.stdout.readline())

        yield ask
        process.stdin.close()


def by_transformers(directory: Path, prompt: list[int]) -> dict:
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32, attn_implementation="eager").eval()
    ids = torch.tensor([prompt])
    tokens: list[int] = []
    with torch.no_grad():
        logits = model(ids).logits[0]
        state = model(ids, use_cache=True)
        for _ in range(NEW_TOKENS):
            tokens.append(state.logits[0, -1].argmax().item())
            state = model(torch.tensor([tokens[-1:]]), past_key_values=state.past_key_values, use_cache=True)
    return {"logits": logits, "tokens": tokens}


def assert_read_alike(ask: Ask, source: Path, exported: Path, prompt: list[int]) -> None:
    """`source`: what was exported without training, so that the reference has read nothing of ours."""
    export(source, exported)
    theirs = ask(exported, prompt)
    assert "error" not in theirs, theirs
    expected = by_transformers(source, prompt)
    torch.testing.assert_close(torch.tensor(theirs["logits"]), expected["logits"], rtol=0, atol=1e-3)
    assert theirs["tokens"] == expected["tokens"]


def assert_family_is_read_alike(ask: Ask, family: str, changes: dict, folder: Path) -> None:
    """A tiny model of the family, its first variant but for `changes`."""
    first = next(iter(tiny_models.VARIANTS[family].values()))
    tiny_models.make(folder / "model", family, **(first | changes))
    generator = torch.Generator().manual_seed(1)
    prompt = torch.randint(0, tiny_models.BASE["vocab_size"], (40,), generator=generator).tolist()
    assert_read_alike(ask, folder / "model", folder / "export", prompt)


def assert_smollm2_is_read_alike(ask: Ask, folder: Path) -> None:
    assert_read_alike(ask, smollm2.DIRECTORY, folder / "export", SMOLLM2_PROMPT)
