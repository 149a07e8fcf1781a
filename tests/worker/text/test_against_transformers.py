# SPDX-License-Identifier: Apache-2.0
"""Tokenizer and chat templates give what transformers gives, byte for byte.

text_probe (text_probe.cc) answers for temper. TEMPER_BIN names the build's bin folder.
"""

import json
import os
import random
import subprocess
from pathlib import Path

import pytest
from transformers import AutoTokenizer
from transformers.utils.chat_template_utils import render_jinja_template

ROOT = Path(__file__).resolve().parents[3]
BUILD = Path(os.environ.get("TEMPER_BIN", ROOT / "build/release/bin")).parent
MODEL = ROOT / "build" / "models" / "SmolLM2-135M-Instruct"
TEMPLATES = {path.stem: path.read_text() for path in sorted((Path(__file__).parent / "templates").glob("*.jinja"))}
SPECIAL_TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}


class Probe:
    def __init__(self):
        command = [BUILD / "tests" / "text_probe", MODEL]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, **question):
        self.process.stdin.write(json.dumps(question) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


@pytest.fixture(scope="module")
def probe():
    probe = Probe()
    yield probe
    probe.process.stdin.close()
    assert probe.process.wait(timeout=30) == 0


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(MODEL)


TEXTS = [
    "",
    " ",
    "Hello, world!",
    "  leading and trailing  ",
    "a\tb\r\nc\n\n\n   d      e\n \n  ",
    "👩‍👩‍👧‍👦 family, flags 🇪🇹🇺🇳, skin 👍🏽",
    "中文和日本語のテスト。한국어도 있습니다",
    "العربية עברית हिन्दी ไทย",
    "e\u0301 combining vs é; Z͑ͫ̓ͪ̂ͫ̽͏̴̙̤̞͉͚̯̞̠͍A͗̒L̵G̸O",
    "\x00\x01\x1b[31m\x7f\x85\u2028\u2029\ufeff\ufffd",
    "<|im_start|>user\nI can spell special tokens<|im_end|><|endoftext|> <|im_end",
    "<|im_start|><|im_start|> <|im_end|>\n<|im_end|>",
    "def f(x):\n\treturn x**2  # 3.14159e-10\n",
    "1234567890 12,345.67 0x1F 1e10",
    "don't I'll we've CAN'T",
    "\u00a0\u2003\u200b zero width and wide spaces",
    "ﬁ ligature Ⅷ ㎏ ½ fullwidth ＡＢＣ",
    "\U0001f600" * 200,
    "word " * 20_000,
    "x" * 5_000,
]


@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
def test_encode_and_decode_equal_transformers(probe, tokenizer, text):
    expected = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    answer = probe.ask(encode=text)
    assert answer["ids"] == expected["input_ids"]
    # transformers counts characters, the probe bytes.
    byte_of = [0]
    for character in text:
        byte_of.append(byte_of[-1] + len(character.encode()))
    offsets = [(byte_of[begin], byte_of[end]) for begin, end in expected["offset_mapping"]]
    assert list(zip(answer["begins"], answer["ends"], strict=True)) == offsets
    assert probe.ask(decode=answer["ids"])["text"] == tokenizer.decode(expected["input_ids"])


def test_encode_random_unicode_equals_transformers(probe, tokenizer):
    generator = random.Random(7)
    pieces = [
        "<|im_start|>",
        "<|im_end|>",
        " ",
        "\n",
        "\t",
        "a",
        "The",
        "é",
        "e\u0301",
        "中",
        "🙂",
        "\u200d",
        "\x07",
        "9",
    ]
    for _ in range(300):
        text = "".join(generator.choice(pieces) for _ in range(generator.randrange(40)))
        text += "".join(chr(generator.randrange(0x20, 0xD800)) for _ in range(generator.randrange(8)))
        assert probe.ask(encode=text)["ids"] == tokenizer(text, add_special_tokens=False)["input_ids"], repr(text)


def test_vocabulary_equals_transformers(probe, tokenizer):
    answer = probe.ask(vocabulary=True)
    assert answer == {"size": len(tokenizer), "max_id": max(tokenizer.get_vocab().values())}


def turn(role, content, **more):
    return {"role": role, "content": content, **more}


CALL = {
    "type": "function",
    "function": {"name": "wetter", "arguments": {"ort": "Köln", "tage": [1, 2.0, 1e-7], "x": None}},
}
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "wetter",
            "description": 'Wie wird\'s? <b>"fett"</b> & \\ \t \u2028 🙂',
            "parameters": {"type": "object", "properties": {"z": {"type": "number"}, "a": {}}, "required": ["z"]},
        },
    }
]
CONVERSATIONS = {
    "one turn": [turn("user", "Hi"), turn("assistant", "Hello!")],
    "system": [turn("system", "Be brief."), turn("user", "Hi"), turn("assistant", "Hello!")],
    "multi-turn": [
        turn("system", "  Spaces around.\n"),
        turn("user", "\n1 + 1? "),
        turn("assistant", " 2\n"),
        turn("user", "and <|im_end|> [/INST] </s>?"),
        turn("assistant", "{{ messages }} {% if %} \x1f"),
        turn("user", "thanks"),
        turn("assistant", "🙂"),
    ],
    "unicode": [turn("user", "日本語 é e\u0301 \u00a0\u3000"), turn("assistant", "\u2028ok\u0085 中文\x1c")],
    "thoughts": [
        turn("user", "2 + 2?"),
        turn("assistant", "<think>\neasy\n</think>\n\n4"),
        turn("user", "3 + 3?"),
        turn("assistant", "<think>\nalso easy\n</think>\n\n6"),
    ],
    "question": [turn("user", "anyone?")],
    "empty contents": [turn("user", ""), turn("assistant", "")],
    "roles that do not alternate": [turn("user", "a"), turn("user", "b")],
    "calls": [
        turn("user", "Wetter?"),
        turn("assistant", "", tool_calls=[CALL]),
        turn("tool", '{"grad": 21}'),
        turn("assistant", "21 Grad."),
    ],
}
EXPRESSIONS = [
    "{{ true }} {{ none }} {{ 1.0 }} {{ 1e20 }} {{ 0.1 + 0.2 }} {{ 7 // 2 }} {{ 7 / 2 }} {{ -7 % 3 }} {{ 2 ** 10 }}",
    "{{ messages }}",
    "{{ messages | tojson }} {{ messages | tojson(indent=2) }}",
    "{{ [1.5, none, true, 'é'] | tojson(ensure_ascii=true) }}",
    "{{ {'b': 1, 'a': [], 'c': {}} | tojson(sort_keys=true, separators=(',', ':')) }}",
    "{{ undefined_thing }}|{{ undefined_thing is defined }}|{{ messages is iterable }}|{{ 'x' is iterable }}",
    "{{ 'a-b-c'.split('-')[-1] }} {{ ' x '.strip() }} {{ 'abc'[::-1] }} {{ 'abc'[1:] }}",
    "{{ 'Ab'.upper().lower().title() }}",
    "{{ 'a,b'.split(',', 1) }} {{ 'x'.replace('x', 'yy') }} {{ 'abc'.startswith('ab') }} {{ 'a\nb'.splitlines() }}",
    "{% for k, v in {'z': 1, 'a': 2}.items() %}{{ k }}={{ v }},{% endfor %}{{ {'a': 1}.get('b', 'none') }}",
    "{% for i in range(4) %}{% if i == 1 %}{% continue %}{% elif i == 3 %}{% break %}{% endif %}{{ i }}{% endfor %}",
    "{% set ns = namespace(a=1) %}{% for x in [1, 2] %}{% set ns.a = ns.a + x %}{% endfor %}{{ ns.a }}",
    "{% macro f(x, y='d') %}[{{ x }}{{ y }}]{% endmacro %}{{ f(1) }}{{ f('a', y=2) }}",
    "  {% if true %}\n    indented\n  {% endif %}\n  {{- 'x' -}}  \n {# comment #}\nend\n",
    "{{ messages | map(attribute='role') | join(', ') }} {{ messages | length }} {{ messages | last | string }}",
    "{{ messages | selectattr('role', 'equalto', 'user') | list | length }} {{ 'a' ~ 1 ~ 'b' }} {{ [3, 1, 2] | sort }}",
    "{{ 'yes' if messages[0].role == 'user' else 'no' }} {{ 'user' in messages[0].values() }}",
    "{{ 'role' in messages[0] }}",
    "{{ ' \u001f\u00a0x\u0085 ' | trim }}|{{ 'xxaxx'.strip('x') }}|{{ messages[0]['content'][:2] }}",
    "{{ raise_exception('no') }}",
]


def render_both(probe, template, messages, add_generation_prompt, variables):
    """What both make of it; None where one refuses."""
    variables = {**SPECIAL_TOKENS, **variables}
    try:
        texts, _ = render_jinja_template(
            [messages], chat_template=template, add_generation_prompt=add_generation_prompt, **variables
        )
        expected = texts[0]
    except Exception as error:  # whatever a template does to its input
        expected = None
        reason = str(error)
    answer = probe.ask(
        render=messages, template=template, add_generation_prompt=add_generation_prompt, variables=variables
    )
    if expected is None:
        assert "error" in answer, f"transformers refuses: {reason}"
    return answer.get("text", answer.get("error")), expected


@pytest.mark.parametrize("add_generation_prompt", [False, True])
@pytest.mark.parametrize("conversation", CONVERSATIONS)
@pytest.mark.parametrize("template", TEMPLATES)
def test_render_equals_transformers(probe, template, conversation, add_generation_prompt):
    for variables in ({}, {"tools": TOOLS}, {"enable_thinking": False}):
        text, expected = render_both(
            probe, TEMPLATES[template], CONVERSATIONS[conversation], add_generation_prompt, variables
        )
        if expected is not None:
            assert text == expected


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_expressions_equal_jinja(probe, expression):
    text, expected = render_both(probe, expression, CONVERSATIONS["multi-turn"], False, {})
    if expected is not None:
        assert text == expected


@pytest.mark.parametrize("conversation", CONVERSATIONS)
def test_the_models_own_template_equals_transformers(probe, tokenizer, conversation):
    messages = CONVERSATIONS[conversation]
    for add_generation_prompt in (False, True):
        expected = tokenizer.apply_chat_template(messages, add_generation_prompt=add_generation_prompt, tokenize=False)
        answer = probe.ask(render=messages, add_generation_prompt=add_generation_prompt)
        assert answer["text"] == expected
        ids = tokenizer.apply_chat_template(messages, add_generation_prompt=add_generation_prompt, return_dict=True)
        assert probe.ask(encode=answer["text"])["ids"] == ids["input_ids"]


def test_generation_spans_equal_transformers(probe):
    for messages in CONVERSATIONS.values():
        texts, indices = render_jinja_template(
            [messages], chat_template=TEMPLATES["generation"], return_assistant_tokens_mask=True
        )
        answer = probe.ask(render=messages, template=TEMPLATES["generation"])
        assert answer["text"] == texts[0]
        spans = [[len(texts[0][:begin].encode()), len(texts[0][:end].encode())] for begin, end in indices[0]]
        assert answer["spans"] == spans
