# SPDX-License-Identifier: Apache-2.0
"""A tiny random Llama with a tokenizer and a chat template, and conversations that it can learn in seconds."""

import json
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
COLOURS = "red green blue yellow black white brown grey".split()
THINGS = "apple door river stone cloud bird lamp coat".split()


def conversations():
    """Whoever names a thing gets told its colour."""
    for i, thing in enumerate(THINGS):
        question = f"What colour is the {thing}?"
        answer = f"The {thing} is {COLOURS[i]}."
        yield [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def write_data(path: Path, repeat: int = 4) -> None:
    lines = [json.dumps({"messages": messages}) for messages in conversations()]
    path.write_text("\n".join(lines * repeat) + "\n")


def write_pairs(path: Path, repeat: int = 4) -> None:
    """Of the same conversations: an answer that is sure is preferred to one that is not."""
    lines = []
    for messages in conversations():
        unsure = messages[1]["content"].replace(" is ", " might be ")
        rejected = [messages[0], {"role": "assistant", "content": unsure}]
        lines.append(json.dumps({"chosen": messages, "rejected": rejected}))
    path.write_text("\n".join(lines * repeat) + "\n")


def make_tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|im_start|>", "<|im_end|>", "<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = [message["content"] for messages in conversations() for message in messages]
    tokenizer.train_from_iterator([*texts, "system user assistant"], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=TEMPLATE,
        clean_up_tokenization_spaces=False,
    )


def write_model(directory: Path, seed: int = 0, max_shard_size: str = "5GB", **overrides) -> None:
    tokenizer = make_tokenizer()
    torch.manual_seed(seed)
    config = LlamaConfig(
        **{
            "vocab_size": len(tokenizer),
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 256,
            "tie_word_embeddings": False,
            "bos_token_id": None,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        }
        | overrides
    )
    LlamaForCausalLM(config).save_pretrained(directory, max_shard_size=max_shard_size)
    tokenizer.save_pretrained(directory)


def loss_of(directory: Path, model_class: type = LlamaForCausalLM) -> float:
    """Mean loss of plain transformers on the answers (the token that ends them included)."""
    model = model_class.from_pretrained(directory, dtype=torch.float32)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(directory)
    losses = []
    with torch.no_grad():
        for messages in conversations():
            question = tokenizer.apply_chat_template(messages[:1], tokenize=False, add_generation_prompt=True)
            answer = messages[1]["content"] + "<|im_end|>"
            question_ids, answer_ids = (tokenizer(t, add_special_tokens=False)["input_ids"] for t in (question, answer))
            labels = torch.tensor([[-100] * len(question_ids) + answer_ids])
            losses.append(model(torch.tensor([question_ids + answer_ids]), labels=labels).loss.item())
    return sum(losses) / len(losses)


def answer_of(directory: Path, question: str) -> str:
    """What plain transformers says, greedily."""
    model = LlamaForCausalLM.from_pretrained(directory, dtype=torch.float32)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(directory)
    messages = [{"role": "user", "content": question}]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    ids = torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"]])
    out = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=20)
    return tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)
