# SPDX-License-Identifier: Apache-2.0
"""How far the native engine and transformers are apart on one and the same directory, in fp32."""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

ROWS = 64  # of logits that are compared at once


def token_kl(reference_TV: torch.Tensor, other_TV: torch.Tensor) -> torch.Tensor:
    """KL(reference ‖ other) of every row, in nats, computed in fp64."""
    blocks = []
    for p, q in zip(reference_TV.split(ROWS), other_TV.split(ROWS), strict=True):
        log_p, log_q = p.double().log_softmax(-1), q.double().log_softmax(-1)
        blocks.append((log_p.exp() * (log_p - log_q)).sum(-1))
    return torch.cat(blocks)


@dataclass
class Agreement:
    """Largest KL over all tokens, in nats."""

    max_token_kl: float  # of the native engine from transformers, both in fp32
    fp32_noise: float  # of transformers in fp32 from transformers in fp64: what the model makes of rounding errors

    def bound(self) -> float:
        """1e-8 is enough for most models; some amplify rounding errors to more, in any engine."""
        return max(1e-8, 30 * self.fp32_noise)


@torch.inference_mode()
def compare(directory: Path, conversations: list[list[dict]], probe: Path, work: Path) -> Agreement:
    """The conversations go through the native engine as one packed sequence and through transformers (eager attention)
    one by one."""
    tokenizer = AutoTokenizer.from_pretrained(directory)
    documents = [
        tokenizer.apply_chat_template(messages, return_tensors="pt", return_dict=True)["input_ids"][0]
        for messages in conversations
    ]
    starts = torch.tensor([0, *(len(document) for document in documents)]).cumsum(0)
    inputs, outputs = work / "parity-ids.safetensors", work / "parity-logits.safetensors"
    save_file({"ids": torch.cat(documents), "document_starts": starts}, inputs)
    subprocess.run(
        [probe, "logits", "--model", directory, "--in", inputs, "--out", outputs, "--precision", "fp32"], check=True
    )
    native_TV = load_file(outputs)["logits"]
    outputs.unlink()

    def reference(dtype: torch.dtype) -> torch.Tensor:
        model = AutoModelForCausalLM.from_pretrained(directory, dtype=dtype, attn_implementation="eager")
        return torch.cat([model(input_ids=document[None]).logits[0] for document in documents])

    fp32_TV = reference(torch.float32)
    return Agreement(
        max_token_kl=token_kl(fp32_TV, native_TV).max().item(),
        fp32_noise=token_kl(reference(torch.float64), fp32_TV).max().item(),
    )


def read_conversations(file: Path, count: int) -> list[list[dict]]:
    lines = file.read_text(encoding="utf-8").splitlines()[:count]
    return [json.loads(line)["messages"] for line in lines]
