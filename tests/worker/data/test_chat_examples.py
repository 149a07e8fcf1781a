# SPDX-License-Identifier: Apache-2.0
"""Token ids and loss masks are those of transformers' apply_chat_template.

data_probe (data_probe.cc) answers for temper. TEMPER_BIN names the build's bin folder.
"""

import json
import os
import random
import shutil
import subprocess
from pathlib import Path

import pytest
from transformers import AutoTokenizer

ROOT = Path(__file__).resolve().parents[3]
BUILD = Path(os.environ.get("TEMPER_BIN", ROOT / "build/release/bin")).parent
MODEL = ROOT / "build" / "models" / "SmolLM2-135M-Instruct"
TEMPLATES = ROOT / "tests" / "worker" / "text" / "templates"

PIECES = [
    "Hi",
    "2 + 2?",
    "\n",
    " ",
    "  ",
    "é",
    "中文",
    "🙂",
    "<|im_end|>",
    "<|im_start|>",
    "assistant\n",
    "\t",
    "don't",
]


def random_conversations(count):
    generator = random.Random(3)

    def content():
        return "".join(generator.choice(PIECES) for _ in range(generator.randrange(8)))

    def question():  # templates that trim join an empty text with what stands around it
        return content() + "Q" + content()

    for _ in range(count):
        messages = [{"role": "system", "content": question()}] if generator.random() < 0.5 else []
        for _ in range(generator.randrange(1, 5)):
            messages += [{"role": "user", "content": question()}, {"role": "assistant", "content": content()}]
        yield messages


CONVERSATIONS = list(random_conversations(300))


def ask(model, conversations):
    lines = "".join(json.dumps({"messages": messages}) + "\n" for messages in conversations)
    output = subprocess.run(
        [BUILD / "tests" / "data_probe", model], input=lines, capture_output=True, text=True, check=True, timeout=120
    ).stdout
    return [json.loads(line) for line in output.splitlines()]


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(MODEL)


def with_template(folder, template):
    """SmolLM2's tokenizer with another chat template."""
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(MODEL / file, folder)
    (folder / "chat_template.jinja").write_text(template)
    return AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize("template", ["own", *sorted(path.stem for path in TEMPLATES.glob("*.jinja"))])
def test_ids_equal_transformers(template, tokenizer, tmp_path):
    model = MODEL
    if template != "own":
        model = tmp_path
        tokenizer = with_template(model, (TEMPLATES / f"{template}.jinja").read_text())
    for messages, answer in zip(CONVERSATIONS, ask(model, CONVERSATIONS), strict=True):
        expected = tokenizer.apply_chat_template(messages, return_dict=True)["input_ids"]
        assert answer.get("ids") == expected, answer.get("error")


def test_masks_of_generation_tags_equal_transformers(tmp_path):
    tokenizer = with_template(tmp_path, (TEMPLATES / "generation.jinja").read_text())
    for messages, answer in zip(CONVERSATIONS, ask(tmp_path, CONVERSATIONS), strict=True):
        expected = tokenizer.apply_chat_template(messages, return_dict=True, return_assistant_tokens_mask=True)
        assert answer["scored"] == expected["assistant_masks"]


def test_masks_without_tags_equal_those_of_a_tagged_template(tokenizer, tmp_path):
    """The model's own template has no tags; the same template with tags shows what must be found."""
    own = (MODEL / "chat_template.jinja").read_text()
    assert "generation %}" not in own
    turn = "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
    assert own.count(turn) == 1
    tagged_turn = (
        "{% if message['role'] == 'assistant' %}{{ '<|im_start|>assistant\n' }}{% generation %}"
        "{{ message['content'] + '<|im_end|>' }}{% endgeneration %}{{ '\n' }}{% else %}" + turn + "{% endif %}"
    )
    tagged = with_template(tmp_path, own.replace(turn, tagged_turn))
    for messages, answer in zip(CONVERSATIONS, ask(MODEL, CONVERSATIONS), strict=True):
        expected = tagged.apply_chat_template(messages, return_dict=True, return_assistant_tokens_mask=True)
        assert answer["ids"] == expected["input_ids"]
        assert answer["scored"] == expected["assistant_masks"]
