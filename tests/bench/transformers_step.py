# SPDX-License-Identifier: Apache-2.0
"""Training steps of plain transformers on one fixed batch: what train_step_bench is compared with.

    python tests/bench/transformers_step.py MODEL [--documents 2] [--length 512] [--steps 5] [--device cuda]
                                            [--compile] [--random] [--lora]

The strongest form that needs nothing but transformers (and PEFT): fp32 weights under bf16 autocast, SDPA attention,
documents of one length and so no padding, PyTorch's fused AdamW. Prints the medians after a first step, and the loss.
"""

import argparse
import contextlib
import resource
import statistics
import time

import torch
import transformers


def load_model(directory: str, device: str = "cpu", random: bool = False, lora: bool = False) -> torch.nn.Module:
    if random:
        config = transformers.AutoConfig.from_pretrained(directory)
        with torch.device(device):
            model = transformers.AutoModelForCausalLM.from_config(
                config, attn_implementation="sdpa", dtype=torch.float32
            )
    else:
        model = transformers.AutoModelForCausalLM.from_pretrained(
            directory, attn_implementation="sdpa", dtype=torch.float32
        )
    if lora:
        import peft

        model = model.to(torch.bfloat16)  # as PEFT's users keep a frozen base; its adapters are fp32
        model = peft.get_peft_model(model, peft.LoraConfig(r=16, lora_alpha=32, target_modules="all-linear"))
    return model.to(device).train()


class StepTaker:
    """Steps of one model. `batch` is what the model's forward takes, with labels."""

    def __init__(self, model: torch.nn.Module, compiled: bool, bf16: bool = True) -> None:
        self._forward = torch.compile(model) if compiled else model
        self._bf16 = bf16
        self._trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self._optimizer = torch.optim.AdamW(self._trained, lr=1e-6, weight_decay=0.1, fused=True)

    def step(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Returns the loss before the update."""
        with torch.autocast(batch["input_ids"].device.type, torch.bfloat16, enabled=self._bf16):
            loss = self._forward(**batch, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self._trained, 1.0)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        return loss.detach()


def peak_gigabytes(device: str) -> float:
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--documents", type=int, default=2)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--random", action="store_true", help="random weights: MODEL needs no more than a config.json")
    parser.add_argument("--lora", action="store_true")
    arguments = parser.parse_args()
    synchronize = torch.cuda.synchronize if arguments.device == "cuda" else contextlib.nullcontext

    torch.manual_seed(1)
    taker = StepTaker(
        load_model(arguments.model, arguments.device, arguments.random, arguments.lora), compiled=arguments.compile
    )
    tokens = torch.randint(0, 32000, (arguments.documents, arguments.length), device=arguments.device)
    seconds = []
    for step in range(arguments.steps + 2):
        synchronize()
        begin = time.perf_counter()
        loss = taker.step({"input_ids": tokens, "labels": tokens})
        synchronize()
        if step > 1:
            seconds.append(time.perf_counter() - begin)
    median = statistics.median(seconds)
    kind = ("compiled" if arguments.compile else "eager") + (" + PEFT" if arguments.lora else "")
    print(
        f"transformers {kind}: step {median:.4f} s, {tokens.numel() / median:.0f} tokens/s, "
        f"peak memory {peak_gigabytes(arguments.device):.2f} GB, loss {loss.item():.4f}"
    )


if __name__ == "__main__":
    main()
