# SPDX-License-Identifier: Apache-2.0
"""Token ids and loss masks are those of transformers' apply_chat_template.

data_probe (data_probe.cc) answers for temper. TEMPER_BIN names the build's bin folder.
"""

import json
import os
import random
import shutil
import subprocess
from itertools import groupby
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
    return ask_samples(model, [{"messages": messages} for messages in conversations])


def ask_samples(model, samples, train_on="default"):
    lines = "".join(json.dumps(sample) + "\n" for sample in samples)
    output = subprocess.run(
        [BUILD / "tests" / "data_probe", model, train_on],
        input=lines,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
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


QUESTION, CALL = {"role": "user", "content": "2 + 2?"}, {"name": "add", "arguments": {"a": 2, "b": 2}}
SHAPES = {
    # template: (special tokens, what is learned of two answers, what is learned of a call and an answer)
    "llama3": (
        ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"],
        ["four<|eot_id|>", "six<|eot_id|>"],
        ['{"name": "add", "parameters": {"a": 2, "b": 2}}<|eot_id|>', "four<|eot_id|>"],
    ),
    # Qwen3 writes empty tags of thought by itself, as part of the prompt.
    "qwen3": (
        [],
        ["four<|im_end|>", "six<|im_end|>"],
        ['<tool_call>\n{"name": "add", "arguments": {"a": 2, "b": 2}}\n</tool_call><|im_end|>', "four<|im_end|>"],
    ),
    "gemma": (["<bos>", "<start_of_turn>", "<end_of_turn>"], ["four<end_of_turn>", "six<end_of_turn>"], None),
    "mistral": (["[INST]", "[/INST]"], [" four<|im_end|>", " six<|im_end|>"], None),
    # Its tags say so: the header is learned as well, and calls are not written at all.
    "smollm3": (
        [],
        ["<|im_start|>assistant\nfour<|im_end|>\n", "<|im_start|>assistant\nsix<|im_end|>\n"],
        ["<|im_start|>assistant\n<|im_end|>\n", "<|im_start|>assistant\nfour<|im_end|>\n"],
    ),
    # An answer ends with <|return|>; what stands behind earlier ones is history's, nothing that a model should write.
    "gpt_oss": (
        ["<|start|>", "<|end|>", "<|message|>", "<|channel|>", "<|return|>", "<|call|>"],
        ["<|channel|>final<|message|>four", "<|channel|>final<|message|>six<|return|>"],
        [
            ' to=functions.add<|channel|>commentary json<|message|>{"a": 2, "b": 2}<|call|>',
            "<|channel|>final<|message|>four<|return|>",
        ],
    ),
}


@pytest.mark.parametrize("template", SHAPES)
def test_masks_on_the_shapes_of_real_templates(template, tmp_path):
    special, answers, call_and_answer = SHAPES[template]
    tokenizer = with_template(tmp_path, (TEMPLATES / f"{template}.jinja").read_text())
    tokenizer.add_special_tokens({"additional_special_tokens": special})
    tokenizer.save_pretrained(tmp_path)
    system = {"role": "system", "content": "Be brief."}
    four, six = ({"role": "assistant", "content": content} for content in ("four", "six"))
    call = {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": CALL}]}
    tools = [{"type": "function", "function": {"name": "add", "description": "", "parameters": {"type": "object"}}}]
    samples = [{"messages": [system, QUESTION, four, {"role": "user", "content": "3 + 3?"}, six]}]
    if call_and_answer is not None:
        samples.append({"messages": [QUESTION, call, {"role": "tool", "content": "4"}, four], "tools": tools})
    learned = []
    for answer in ask_samples(tmp_path, samples):
        assert "error" not in answer, answer["error"]
        pieces = [
            tokenizer.decode([token for token, _ in group])
            for scored, group in groupby(zip(answer["ids"], answer["scored"], strict=True), key=lambda pair: pair[1])
            if scored
        ]
        learned.append(pieces)
    assert learned == [answers] + ([call_and_answer] if call_and_answer is not None else [])


def random_texts(count):
    generator = random.Random(5)
    for _ in range(count):
        yield "".join(generator.choice(PIECES) for _ in range(generator.randrange(1, 9)))


TEXTS = list(random_texts(400))


@pytest.fixture(scope="module", params=["without BOS", "with BOS"])
def text_model(request, tmp_path_factory):
    """SmolLM2's tokenizer puts nothing before a text; Llama 3's, for one, does."""
    if request.param == "without BOS":
        return MODEL
    folder = tmp_path_factory.mktemp("bos")
    with_template(folder, "")
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<|endoftext|>": {"id": "<|endoftext|>", "ids": [0], "tokens": ["<|endoftext|>"]}},
    }
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    return folder


def test_texts_are_tokenised_as_trl_does(text_model):
    """TRL appends eos to a text that does not end with it, and tokenises that."""
    tokenizer = AutoTokenizer.from_pretrained(text_model)
    for text, answer in zip(TEXTS, ask_samples(text_model, [{"text": text} for text in TEXTS]), strict=True):
        expected = text if text.endswith(tokenizer.eos_token) else text + tokenizer.eos_token
        assert answer.get("ids") == tokenizer(expected)["input_ids"], answer.get("error")
        assert answer["scored"] == [1] * len(answer["ids"])


def test_prompts_and_completions_are_tokenised_as_trl_does(text_model):
    """TRL tokenises the prompt, and prompt and completion together; the former should begin the latter. Where it does
    not, TRL warns and masks at a border that is off, and each is tokenised alone here."""
    tokenizer = AutoTokenizer.from_pretrained(text_model)
    pairs = list(zip(TEXTS[:200], TEXTS[200:], strict=True))
    answers = ask_samples(text_model, [{"prompt": prompt, "completion": completion} for prompt, completion in pairs])
    straddling = 0
    for (prompt, completion), answer in zip(pairs, answers, strict=True):
        if not completion.endswith(tokenizer.eos_token):
            completion += tokenizer.eos_token
        before = tokenizer(prompt)["input_ids"]
        expected = tokenizer(prompt + completion)["input_ids"]
        if expected[: len(before)] != before:
            straddling += 1
            expected = before + tokenizer(completion, add_special_tokens=False)["input_ids"]
        assert answer.get("ids") == expected, answer.get("error")
        assert answer["scored"] == [0] * len(before) + [1] * (len(expected) - len(before))
    assert 5 < straddling < 150


@pytest.mark.parametrize("train_on", ["completion", "last_turn", "assistant", "all"])
def test_prompts_and_completions_in_messages(train_on, tmp_path):
    """The ids are those of the whole conversation; of the mask of tags, what belongs to the completion stays."""
    tokenizer = with_template(tmp_path, (TEMPLATES / "generation.jinja").read_text())
    samples, borders = [], []
    generator = random.Random(7)
    for messages in CONVERSATIONS:
        border = generator.choice([i for i, message in enumerate(messages) if message["role"] == "assistant"])
        samples.append({"prompt": messages[:border], "completion": messages[border:]})
        borders.append(border)
    for sample, border, answer in zip(samples, borders, ask_samples(tmp_path, samples, train_on), strict=True):
        messages = sample["prompt"] + sample["completion"]
        expected = tokenizer.apply_chat_template(messages, return_dict=True, return_assistant_tokens_mask=True)
        assert answer.get("ids") == expected["input_ids"], answer.get("error")
        first = len(messages) - 1 if train_on == "last_turn" else border
        prompt = tokenizer.apply_chat_template(messages[:first], add_generation_prompt=True, return_dict=True)
        # A line break that begins an answer may share a token with the one before it.
        common = len(os.path.commonprefix([prompt["input_ids"], expected["input_ids"]]))
        learned = [0] * common + expected["assistant_masks"][common:]
        assert (
            answer["scored"]
            == {
                "completion": learned,
                "last_turn": learned,
                "assistant": expected["assistant_masks"],
                "all": [1] * len(expected["input_ids"]),
            }[train_on]
        )


@pytest.mark.parametrize("template", ["gemma", "llama3", "qwen3"])
def test_text_parts_and_tools_reach_the_template(template, tmp_path):
    """Parts are not joined beforehand: what a template makes of them is the template's business, as in transformers."""
    tokenizer = with_template(tmp_path, (TEMPLATES / f"{template}.jinja").read_text())
    parts = [{"type": "text", "text": " It is "}, {"type": "text", "text": "noon. "}]
    messages = [{"role": "user", "content": "what time?"}, {"role": "assistant", "content": "noon"}]
    if template == "gemma":
        messages = [{"role": "user", "content": parts}, {"role": "assistant", "content": parts}]
    tools = [{"type": "function", "function": {"name": "clock", "description": "é", "parameters": {"b": 1, "a": [2]}}}]
    (answer,) = ask_samples(tmp_path, [{"messages": messages, "tools": tools}])
    expected = tokenizer.apply_chat_template(messages, tools=tools, return_dict=True)["input_ids"]
    assert answer.get("ids") == expected, answer.get("error")
    if template != "gemma":
        assert "clock" in tokenizer.decode(expected)


def test_text_parts_that_the_template_cannot_take_are_an_error(tokenizer):
    """SmolLM2's template adds texts: a list of parts is an error in transformers too."""
    messages = [{"role": "user", "content": [{"type": "text", "text": "x"}]}, {"role": "assistant", "content": "y"}]
    with pytest.raises(TypeError):
        tokenizer.apply_chat_template(messages)
    (answer,) = ask(MODEL, [messages])
    assert "the chat template refuses this conversation" in answer["error"]
