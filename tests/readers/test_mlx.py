# SPDX-License-Identifier: Apache-2.0
"""What temper exports is read by a reader that is neither ours nor transformers: mlx-lm, of every family."""

import json
import subprocess
from pathlib import Path

import pytest
import smollm2
import tiny_models
import torch
from transformers import AutoModelForCausalLM
from worker.checkpoint.test_round_trip import export

ROOT = Path(__file__).resolve().parents[2]
PYTHON = ROOT / "build/readers/bin/python"
NEW_TOKENS = 64
# mlx-lm looks at no window of these, so theirs is as long as the context.
NO_WINDOW = {"sliding_window": 512}
CHANGES = {"mistral": NO_WINDOW, "gemma2": NO_WINDOW}
# mlx-lm rounds what Gemma 3 multiplies embeddings by, √hidden_size, to bf16: 12 is the same there.
CHANGES["gemma3_text"] = {"hidden_size": 144}
# It has one rope_theta for all layers of OLMo 3, as released models have.
OLMO3 = tiny_models.VARIANTS["olmo3"]["scaled_full"]["rope_parameters"]
CHANGES["olmo3"] = {"rope_parameters": {kind: rope | {"rope_theta": 5e5} for kind, rope in OLMO3.items()}}
# It reads gpt-oss with packed experts (MXFP4) alone, and those are written in bf16 (docs/CHECKPOINTS.md).
UNKNOWN = {"gpt_oss"}
FAMILIES = {
    family: next(iter(variants.values())) | CHANGES.get(family, {})
    for family, variants in tiny_models.VARIANTS.items()
    if family not in UNKNOWN
}
SMOLLM2_PROMPT = [1, 4093, 198, 1780, 314, 260, 3575, 282, 4649, 47, 2, 198, 1, 520, 9531, 198]


@pytest.fixture(scope="module")
def mlx():
    """Asks the reader about a checkpoint; it is started once."""
    reader = Path(__file__).with_name("mlx_reader.py")
    with subprocess.Popen([PYTHON, reader], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:

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
    with torch.no_grad():
        logits = model(ids).logits[0]
        for _ in range(NEW_TOKENS):
            ids = torch.cat([ids, model(ids).logits[:, -1].argmax(-1, keepdim=True)], 1)
    return {"logits": logits, "tokens": ids[0, len(prompt) :].tolist()}


def assert_read_alike(mlx, source: Path, exported: Path, prompt: list[int]) -> None:
    """`source`: what was exported without training, so that the reference has read nothing of ours."""
    theirs = mlx(exported, prompt)
    assert "error" not in theirs, theirs
    expected = by_transformers(source, prompt)
    torch.testing.assert_close(torch.tensor(theirs["logits"]), expected["logits"], rtol=0, atol=1e-3)
    assert theirs["tokens"] == expected["tokens"]


@pytest.mark.parametrize("family", FAMILIES)
def test_each_family_is_read_as_transformers_reads_it(family, mlx, tmp_path):
    tiny_models.make(tmp_path / "model", family, **FAMILIES[family])
    export(tmp_path / "model", tmp_path / "export")
    generator = torch.Generator().manual_seed(1)
    prompt = torch.randint(0, tiny_models.BASE["vocab_size"], (40,), generator=generator).tolist()
    assert_read_alike(mlx, tmp_path / "model", tmp_path / "export", prompt)


def test_smollm2_is_read_as_transformers_reads_it(mlx, tmp_path):
    export(smollm2.DIRECTORY, tmp_path / "export")
    assert_read_alike(mlx, smollm2.DIRECTORY, tmp_path / "export", SMOLLM2_PROMPT)
