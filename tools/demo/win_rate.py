# SPDX-License-Identifier: Apache-2.0
"""Which answers a model prefers, with plain transformers and PEFT: nothing of temper."""

import json
from pathlib import Path

import torch
from peft import AutoPeftModelForCausalLM
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

BATCH = 32
LONGEST_ANSWER = 24  # tokens


class Judge:
    """A Hugging Face directory: a model, or an adapter whose model is where its configuration says."""

    def __init__(self, directory: Path):
        adapter = directory / "adapter_config.json"
        loader = AutoPeftModelForCausalLM if adapter.exists() else AutoModelForCausalLM
        self._model: PreTrainedModel = loader.from_pretrained(directory, dtype=torch.float32)
        # An adapter's tokenizer is its model's.
        base = json.loads(adapter.read_text())["base_model_name_or_path"] if adapter.exists() else directory
        self._tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(base)

    @torch.inference_mode()
    def win_rate(self, pairs: Path) -> float:
        """The share of the file's pairs whose preferred answer is the more probable one."""
        read = [json.loads(line) for line in pairs.read_text(encoding="utf-8").splitlines()]
        wins = 0
        for start in range(0, len(read), BATCH):
            batch = read[start : start + BATCH]
            chosen, rejected = (self._logprobs(batch, answer) for answer in ("chosen", "rejected"))
            wins += int((chosen > rejected).sum())
        return wins / len(read)

    @torch.inference_mode()
    def answer(self, prompt: list[dict]) -> str:
        """The most probable one, token by token."""
        inputs = self._tokenizer.apply_chat_template(
            prompt, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        output = self._model.generate(**inputs, max_new_tokens=LONGEST_ANSWER, do_sample=False)
        return self._tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)

    def _logprobs(self, batch: list[dict], answer: str) -> torch.Tensor:
        """Of each pair's answer, all tokens behind the prompt."""
        prompts = [self._tokens(pair["prompt"], add_generation_prompt=True) for pair in batch]
        wholes = [self._tokens(pair["prompt"] + pair[answer]) for pair in batch]
        longest = max(map(len, wholes))
        tokens = torch.tensor([whole + [0] * (longest - len(whole)) for whole in wholes])
        all_logits = self._model(input_ids=tokens).logits  # padding is behind all that counts
        sums = []
        for prompt, whole, logits in zip(prompts, wholes, all_logits, strict=True):
            logprobs = logits[len(prompt) - 1 : len(whole) - 1].log_softmax(-1)
            sums.append(logprobs.gather(-1, torch.tensor(whole[len(prompt) :])[:, None]).sum())
        return torch.stack(sums)

    def _tokens(self, messages: list[dict], **options: bool) -> list[int]:
        return self._tokenizer.apply_chat_template(messages, return_dict=True, **options)["input_ids"]
