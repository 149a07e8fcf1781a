# SPDX-License-Identifier: Apache-2.0
"""Exact match of a Hugging Face directory on held-out conversations, with plain transformers: nothing of temper."""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase, StoppingCriteria

BATCH = 100
LONGEST_ANSWER = 40  # tokens; the longest right answer has fewer


@dataclass(frozen=True)
class Answer:
    prompt: str
    expected: str
    given: str

    def matches(self) -> bool:
        return self.given == self.expected


class NoLongerRight(StoppingCriteria):
    """Ends an answer at the first character that the expected one does not have there: it can't match any more."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, prompt_tokens: int, expected: list[str]):
        self.tokenizer = tokenizer
        self.prompt_tokens = prompt_tokens
        self.expected = expected

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor, **_) -> torch.BoolTensor:
        texts = self.tokenizer.batch_decode(input_ids[:, self.prompt_tokens :], skip_special_tokens=True)
        # A character of several tokens is not whole yet.
        wrong = [
            not expected.startswith(text.rstrip("\ufffd")) for text, expected in zip(texts, self.expected, strict=True)
        ]
        return torch.tensor(wrong, device=input_ids.device)


@torch.inference_mode()
def answers(model_directory: Path, held_out: Path) -> list[Answer]:
    """What the model says to every prompt of the file (greedy, fp32), up to the first wrong character."""
    tokenizer = AutoTokenizer.from_pretrained(model_directory, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(model_directory, dtype=torch.float32)
    conversations = [json.loads(line)["messages"] for line in held_out.read_text(encoding="utf-8").splitlines()]
    conversations.sort(key=lambda messages: len(messages[-2]["content"]))  # similar lengths together: less padding

    results = []
    for start in range(0, len(conversations), BATCH):
        batch = conversations[start : start + BATCH]
        inputs = tokenizer.apply_chat_template(
            [messages[:-1] for messages in batch],
            add_generation_prompt=True,
            padding=True,
            return_tensors="pt",
            return_dict=True,
        )
        prompt_tokens = inputs["input_ids"].shape[1]
        expected = [messages[-1]["content"] for messages in batch]
        output = model.generate(
            **inputs,
            max_new_tokens=LONGEST_ANSWER,
            do_sample=False,
            stopping_criteria=[NoLongerRight(tokenizer, prompt_tokens, expected)],
        )
        texts = tokenizer.batch_decode(output[:, prompt_tokens:], skip_special_tokens=True)
        results += [
            Answer(prompt=messages[-2]["content"], expected=messages[-1]["content"], given=text)
            for messages, text in zip(batch, texts, strict=True)
        ]
    return results


def exact_match(results: list[Answer]) -> float:
    return sum(answer.matches() for answer in results) / len(results)
