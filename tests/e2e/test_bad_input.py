# SPDX-License-Identifier: Apache-2.0
"""What people get wrong in a model, a data file or an output, and what they read then: what is wrong, where, and what
to do. The engine notices, so it is run alone; test_bad_requests.py has what the command and the server notice.

A row is a name, pieces of the message that must come, and what a person does wrong.
"""

import gzip
import json
import os
import shutil
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
import tiny_chat_model
from temper_server import BIN

from worker.train import training_run


@dataclass
class World:
    """A sound model, data file and job, for a row to spoil."""

    model: Path
    data: Path
    spec: dict
    folder: Path

    @property
    def weights(self) -> Path:
        return self.model / "model.safetensors"

    def edit_config(self, **changes) -> None:
        path = self.model / "config.json"
        config = json.loads(path.read_text()) | changes
        path.write_text(json.dumps({key: value for key, value in config.items() if value is not REMOVED}))

    def edit_header(self, edit) -> None:
        """Changes what the weights' header says, and leaves the bytes behind it."""
        content = self.weights.read_bytes()
        (length,) = struct.unpack("<Q", content[:8])
        header = json.loads(content[8 : 8 + length])
        edit(header)
        text = json.dumps(header).encode()
        self.weights.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])

    def edit_tensors(self, edit) -> None:
        """Changes the tensors; the file stays sound."""
        from safetensors.torch import load_file, save_file

        tensors = load_file(self.weights)
        edit(tensors)
        save_file(tensors, self.weights, metadata={"format": "pt"})

    def write_data(self, *lines: str) -> None:
        self.data.write_text("".join(line + "\n" for line in lines))


REMOVED = object()
GOOD_LINE = json.dumps({"messages": next(tiny_chat_model.conversations())})
QUESTION_ONLY = json.dumps({"messages": [{"role": "user", "content": "Anybody there?"}]})
NORM = "model.norm.weight"
Q_PROJ = "model.layers.0.self_attn.q_proj.weight"


def write_parquet(world: World) -> None:
    samples = [json.loads(line) for line in world.data.read_text().splitlines()]
    path = world.folder / "train.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(samples), path)
    world.spec["data"]["uri"] = str(path)


def make_moe(world: World, **changes) -> None:
    """config.json as Mixtral has it."""
    dense_only = dict.fromkeys(("attention_bias", "mlp_bias", "pretraining_tp"), REMOVED)
    world.edit_config(architectures=["MixtralForCausalLM"], model_type="mixtral", **dense_only, **changes)


@pytest.fixture
def world(model, data, spec, tmp_path):
    own_data = Path(shutil.copy(data, tmp_path / "train.jsonl"))
    spec["model"]["uri"] = str(model)
    spec["data"]["uri"] = str(own_data)
    spec["training"]["steps"] = 1
    return World(model, own_data, spec, tmp_path)


ENGINE = {}


def engine(name: str, *message: str, cause: str = "USER_INPUT"):
    def add(spoil):
        ENGINE[name] = (spoil, message, cause)
        return spoil

    return add


# The model's directory


@engine("model directory missing", "model directory /nowhere/model does not exist")
def _(world):
    world.spec["model"]["uri"] = "/nowhere/model"


@engine("model is a file", "config.json is a file", "give the model's directory")
def _(world):
    world.spec["model"]["uri"] = str(world.model / "config.json")


@engine("model unreadable", "cannot read", "config.json")
def _(world):
    (world.model / "config.json").unlink()
    (world.model / "config.json").symlink_to("config.json")  # a loop: unreadable even for root


@engine("model on a scheme that is not built in", "ftp://host/model", "file:///path")
def _(world):
    world.spec["model"]["uri"] = "ftp://host/model"


@engine("directory without config", "has no config.json", "not a model in Hugging Face layout")
def _(world):
    (world.model / "config.json").unlink()


@engine("adapter instead of a model", "is a PEFT adapter, not a model", "merge it into its base model")
def _(world):
    (world.model / "config.json").rename(world.model / "adapter_config.json")


@engine("config is no JSON", "config.json", "parse error")
def _(world):
    (world.model / "config.json").write_text('{"architectures": [')


@engine("pickle-only checkpoint", "pickle files only (pytorch_model.bin)", "can run code", "save_pretrained")
def _(world):
    world.weights.rename(world.model / "pytorch_model.bin")


@engine("no weights at all", "has no weights", "model.safetensors", "Get the model again")
def _(world):
    world.weights.unlink()


@engine("no tokenizer", "no tokenizer.json in", "copy the tokenizer's files")
def _(world):
    (world.model / "tokenizer.json").unlink()


@engine("slow tokenizer only", "has tokenizer.model but no tokenizer.json", "Convert it")
def _(world):
    (world.model / "tokenizer.json").rename(world.model / "tokenizer.model")


@engine("tokenizer of another model", "the model's embedding has only 64 rows", "belongs to another model")
def _(world):
    tokenizer = {name: (world.model / name).read_bytes() for name in ("tokenizer.json", "tokenizer_config.json")}
    shutil.rmtree(world.model)
    tiny_chat_model.write_model(world.model, vocab_size=64, eos_token_id=None, pad_token_id=None)
    for name, content in tokenizer.items():
        (world.model / name).write_bytes(content)


@engine("no chat template", "no chat template in", "chat_template.jinja", "copy the one of its instruct version")
def _(world):
    (world.model / "chat_template.jinja").unlink()


@engine("chat template that is no Jinja", "the chat template cannot be compiled", "chat_template.jinja", "Correct it")
def _(world):
    (world.model / "chat_template.jinja").write_text("{% for message in messages %}")


# config.json


@engine(
    "unknown architecture",
    "config.json: architecture GPT9ForCausalLM is not supported",
    "LlamaForCausalLM",
    "Nor can transformers train it here: config.json names GPT9ForCausalLM",
)
def _(world):
    world.edit_config(architectures=["GPT9ForCausalLM"])


@engine("architecture not named", "config.json: `architectures` must name")
def _(world):
    world.edit_config(architectures=REMOVED)


@engine("key that nobody reads", "config.json", "`attn_logit_softcapping` (30.0)", "remove what has no effect")
def _(world):
    world.spec["backend"] = "BACKEND_NATIVE"
    world.edit_config(attn_logit_softcapping=30.0)


@engine("behaviour that is not built in", "config.json", "`hidden_act`", "crelu")
def _(world):
    world.spec["backend"] = "BACKEND_NATIVE"
    world.edit_config(hidden_act="crelu")


@engine("mistyped value", "config.json", "`num_hidden_layers` must be an integer", '"two"')
def _(world):
    world.edit_config(num_hidden_layers="two")


@engine("missing value", "config.json", "`hidden_size` is missing")
def _(world):
    world.edit_config(hidden_size=REMOVED)


@engine("heads that do not divide", "config.json: 4 attention heads cannot share 3 key-value heads")
def _(world):
    world.edit_config(num_key_value_heads=3)


@engine("quantized checkpoint", "quantized with", "gptq", "de-quantize it first")
def _(world):
    world.spec["backend"] = "BACKEND_NATIVE"
    world.edit_config(quantization_config={"quant_method": "gptq"})


@engine("more experts a token than there are", "config.json", "`num_experts_per_tok` is 3, but there are 2 experts")
def _(world):
    make_moe(world, num_local_experts=2, num_experts_per_tok=3)


@engine("unknown rope", "config.json", "rope_type", "spiral")
def _(world):
    world.spec["backend"] = "BACKEND_NATIVE"
    world.edit_config(rope_parameters={"rope_type": "spiral", "rope_theta": 10000.0})


# The weights


@engine("weights truncated", "model.safetensors is not a sound", "bytes after the end of the file", "get it again")
def _(world):
    world.weights.write_bytes(world.weights.read_bytes()[:-1000])


@engine("weights truncated in their header", "model.safetensors is not a sound safetensors file", "header")
def _(world):
    world.weights.write_bytes(world.weights.read_bytes()[:100])


@engine("weights empty", "model.safetensors is not a sound safetensors file")
def _(world):
    world.weights.write_bytes(b"")


@engine("header of absurd length", "model.safetensors is not a sound safetensors file", "header")
def _(world):
    world.weights.write_bytes(struct.pack("<Q", 2**63) + world.weights.read_bytes()[8:])


@engine("header is no JSON", "model.safetensors is not a sound safetensors file", "JSON")
def _(world):
    world.weights.write_bytes(struct.pack("<Q", 8) + b"not json" + bytes(100))


@engine("tensors overlap", "model.safetensors", "overlap")
def _(world):
    def edit(header):
        first, second = sorted((k for k in header if k != "__metadata__"), key=lambda k: header[k]["data_offsets"])[:2]
        size = header[second]["data_offsets"][1] - header[second]["data_offsets"][0]
        begin = header[first]["data_offsets"][1] - 4
        header[second]["data_offsets"] = [begin, begin + size]

    world.edit_header(edit)


@engine("header lies about a shape", "model.safetensors", NORM, "by its shape and dtype")
def _(world):
    world.edit_header(lambda header: header[NORM].update(shape=[63]))


@engine("header has bytes of nobody", "model.safetensors", "belong to no tensor")
def _(world):
    world.edit_header(lambda header: header.pop(Q_PROJ))


@engine("header has an unknown dtype", "model.safetensors", NORM, "unknown dtype F12")
def _(world):
    world.edit_header(lambda header: header[NORM].update(dtype="F12"))


@engine("tensor missing", "tensors missing", Q_PROJ)
def _(world):
    world.edit_tensors(lambda tensors: tensors.pop(Q_PROJ))


@engine("head missing", "lm_head.weight", '"tie_word_embeddings": true')
def _(world):
    world.edit_tensors(lambda tensors: tensors.pop("lm_head.weight"))


@engine("tensor too many", "LlamaForCausalLM with this config.json does not have", "model.extra.weight")
def _(world):
    world.edit_tensors(lambda tensors: tensors.update({"model.extra.weight": tensors[NORM].clone()}))


@engine("tensor of wrong shape", "wrong shape for this config.json", NORM, "[32] instead of [64]")
def _(world):
    world.edit_tensors(lambda tensors: tensors.update({NORM: tensors[NORM][:32].clone()}))


@engine("tensor that can't be trained", "can't be trained", NORM, "I32")
def _(world):
    world.edit_tensors(lambda tensors: tensors.update({NORM: tensors[NORM].int()}))


@engine("shard missing", "model.safetensors.index.json names", "which does not exist", "get it again")
def _(world):
    shutil.rmtree(world.model)
    tiny_chat_model.write_model(world.model, max_shard_size="100KB")
    sorted(world.model.glob("model-*.safetensors"))[-1].unlink()


@engine("index that points elsewhere", "model.safetensors.index.json", "no safetensors file of this directory")
def _(world):
    shutil.rmtree(world.model)
    tiny_chat_model.write_model(world.model, max_shard_size="100KB")
    path = world.model / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    index["weight_map"][NORM] = "../../etc/passwd"
    path.write_text(json.dumps(index))


# The data


@engine("data file missing", "there is no data file", "/nowhere/train.jsonl", "Correct data.uri")
def _(world):
    world.spec["data"]["uri"] = "/nowhere/train.jsonl"


@engine("directory without data", "has no data", "ends in .jsonl", "Correct data.uri")
def _(world):
    world.spec["data"]["uri"] = str(world.model)


@engine("pattern without files", "no file matches", "*.jsonl", "Correct data.uri")
def _(world):
    world.spec["data"]["uri"] = str(world.model / "*.jsonl")


@engine("compressed data cut off", "train.jsonl.gz ends in the middle of its compressed data", "get it again")
def _(world):
    cut = world.folder / "train.jsonl.gz"
    cut.write_bytes(gzip.compress(world.data.read_bytes())[:-20])
    world.spec["data"]["uri"] = str(cut)


@engine("data file empty", "train.jsonl is empty", "a sample a line", '{"messages": […]}')
def _(world):
    world.write_data()


@engine("line is no JSON", "train.jsonl, line 3: not valid JSON")
def _(world):
    world.write_data(GOOD_LINE, GOOD_LINE, '{"messages": [')


@engine("line is no UTF-8", "train.jsonl, line 2: not valid JSON", "ill-formed UTF-8 byte")
def _(world):
    world.data.write_bytes(GOOD_LINE.encode() + b'\n{"messages": [{"role": "user", "content": "\xff"}]}\n')


@engine("line of no form", "train.jsonl, line 2: the sample has no `messages`", "it has `chat`", "data.columns")
def _(world):
    world.write_data(GOOD_LINE, '{"chat": []}')


@engine("line of another form", "train.jsonl, line 3: this sample is a text", "line 1 is a conversation", "same form")
def _(world):
    world.write_data(GOOD_LINE, GOOD_LINE, '{"text": "a"}')


@engine("train_on that means nothing", "train.jsonl, line 1: data.train_on is completion", "one can learn assistant")
def _(world):
    world.spec["data"]["train_on"] = "TRAIN_ON_COMPLETION"


@engine("column that is not there", "train.jsonl, line 1: the sample has no `chat` (messages)", "it has `messages`")
def _(world):
    world.spec["data"]["columns"] = {"messages": "chat"}


@engine("text without an eos token", "train.jsonl, line 1", "names no `eos_token`", "Add it there")
def _(world):
    path = world.model / "tokenizer_config.json"
    config = json.loads(path.read_text())
    del config["eos_token"]
    path.write_text(json.dumps(config))
    world.write_data('{"text": "a"}')


@engine("unknown role", "train.jsonl, line 1: messages[0].role", '"robot" is not one of', "assistant")
def _(world):
    world.write_data('{"messages": [{"role": "robot", "content": "beep"}]}')


@engine("ShareGPT spelling", "train.jsonl, line 1", "from/value must become role/content")
def _(world):
    world.write_data('{"messages": [{"from": "human", "value": "hi"}]}')


@engine("picture in a message", "train.jsonl, line 1: messages[0].content[0]", "only text can be trained on")
def _(world):
    world.write_data('{"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}]}')


@engine("Parquet file that is none", "train.parquet is damaged, or not Parquet", "get it again")
def _(world):
    other = world.folder / "train.parquet"
    other.write_bytes(world.data.read_bytes())
    world.spec["data"]["uri"] = str(other)


@engine("Parquet file cut off", "train.parquet", "get it again")
def _(world):
    write_parquet(world)
    path = Path(world.spec["data"]["uri"])
    path.write_bytes(path.read_bytes()[:-100])


@engine("Parquet file that lies about its pages", "train.parquet", "get it again")
def _(world):
    write_parquet(world)
    path = Path(world.spec["data"]["uri"])
    content = bytearray(path.read_bytes())
    content[4:200] = bytes(b ^ 0xFF for b in content[4:200])
    path.write_bytes(content)


@engine("gz bomb", "bomb.jsonl.gz, line 1", "longer than")
def _(world):
    bomb = world.folder / "bomb.jsonl.gz"  # test_data_memory.py has what it may cost
    bomb.write_bytes(300 * gzip.compress(bytes(1 << 20)))
    world.spec["data"]["uri"] = str(bomb)


@engine("tools that are no JSON", "train.jsonl, line 1: `tools` must be a list, not string")
def _(world):
    world.write_data(json.dumps(json.loads(GOOD_LINE) | {"tools": "[{"}))


@engine("template that raises", "train.jsonl, line 2: the chat template refuses", "no questions about doors")
def _(world):
    refusal = "{% if 'door' in messages[0].content %}{{ raise_exception('no questions about doors') }}{% endif %}"
    (world.model / "chat_template.jinja").write_text(refusal + tiny_chat_model.TEMPLATE)


@engine("roles in the wrong order", "train.jsonl, line 1: the chat template refuses", "roles must alternate")
def _(world):
    template = (Path(__file__).parents[1] / "worker/text/templates/gemma.jinja").read_text()
    (world.model / "chat_template.jinja").write_text(template)
    question, answer = ({"role": role, "content": "Yes?"} for role in ("user", "assistant"))
    world.write_data(json.dumps({"messages": [question, question, answer]}))


@engine("answer without content", "train.jsonl, line 1: messages[1] has no `content`")
def _(world):
    world.write_data(
        json.dumps({"messages": [{"role": "user", "content": "?"}, {"role": "assistant", "content": None}]})
    )


@engine("no scored token at all", "none of 2 samples", "no assistant message", cause="USER_INPUT")
def _(world):
    world.write_data(QUESTION_ONLY, QUESTION_ONLY)


@engine("every sample too long", "none of 32 samples", "too long for 8 tokens", "max_sample_tokens")
def _(world):
    world.spec["data"] |= {"max_sample_tokens": 8, "overlong": "OVERLONG_DROP"}


@engine("samples longer than the model's positions", "data.max_sample_tokens is 512", "the model has 256 positions")
def _(world):
    world.spec["data"]["max_sample_tokens"] = 512


# The job


@engine("adapter on a module that is not there", "lora.targets", '"w_proj"', "q_proj")
def _(world):
    world.spec["lora"] = {"targets": ["w_proj"]}


@engine("pattern for modules that matches none", "lora.targets", '"model.layers.9?.*"', "q_proj")
def _(world):
    world.spec["lora"] = {"targets": ["model.layers.9?.*"]}


@engine("module to train that is not there", "lora.modules_to_save", '"head"', "lm_head")
def _(world):
    world.spec["lora"] = {"modules_to_save": ["head"]}


@engine("module to adapt and to train", "lora.modules_to_save", "layers.0.self_attn.q_proj gets an adapter")
def _(world):
    world.spec["lora"] = {"targets": ["q_proj"], "modules_to_save": ["q_proj"]}


@engine("rank larger than a matrix", "lora.rank", "1000 is more than model.layers.0.self_attn.q_proj can have")
def _(world):
    world.spec["lora"] = {"rank": 1000}


@engine("experts of a model without", "lora.targets", '"experts"', "embed_tokens", "lm_head")
def _(world):
    world.spec["lora"] = {"targets": ["experts"]}


@engine("DoRA on the head", "lora.dora", "lm_head is no linear layer of the blocks")
def _(world):
    world.spec["lora"] = {"targets": ["lm_head"], "dora": True}


@engine("whole modules for vLLM", "output.adapter_format", "lora.modules_to_save")
def _(world):
    world.spec["lora"] = {"modules_to_save": ["lm_head"]}
    world.spec["output"]["adapter_format"] = "ADAPTER_FORMAT_VLLM"


@engine("adapter to begin with missing", "lora.adapter: /nowhere/adapter has no adapter_config.json")
def _(world):
    world.spec["lora"] = {"adapter": "/nowhere/adapter"}


@engine("adapter of another base", "lora.adapter", "is of another model than the job's", "lora_A.weight is [2, 32]")
def _(world):
    import torch
    from safetensors.torch import save_file

    world.spec["lora"] = {"adapter": str(world.folder / "adapter")}
    (world.folder / "adapter").mkdir()
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"]}
    (world.folder / "adapter/adapter_config.json").write_text(json.dumps(config))
    tensors = {"A": torch.zeros(2, 32), "B": torch.zeros(32, 2)}
    module = "base_model.model.model.layers.0.self_attn.q_proj"
    tensors = {f"{module}.lora_{name}.weight": tensor for name, tensor in tensors.items()}
    save_file(tensors, world.folder / "adapter/adapter_model.safetensors")


def train_with_a_checkpoint(world: World) -> Path:
    """A checkpoint of the sound job, from which the row's job resumes."""
    spec = world.spec | {"checkpoints": {"every_steps": 1}, "output": {"uri": str(world.folder / "before")}}
    assert run_engine(spec, world.folder).returncode == 0
    (checkpoint,) = (world.folder / "before").glob("*/checkpoints/step-*")
    world.spec["resume_from"] = str(checkpoint)
    return checkpoint


@engine("checkpoint missing", "resume_from: ", "/nowhere/step-00000001-e0001")
def _(world):
    world.spec["resume_from"] = "/nowhere/step-00000001-e0001"


@engine("checkpoint that is not one", "resume_from: ", "manifest.json")
def _(world):
    world.spec["resume_from"] = str(world.model)


@engine("checkpoint damaged", "resume_from: ", "trainer.json")
def _(world):
    trainer = train_with_a_checkpoint(world) / "trainer.json"
    trainer.write_text(trainer.read_text().replace("1", "2", 1))


@engine("checkpoint of another model", "step-00000001-e0001", "is of another model than the job's")
def _(world):
    train_with_a_checkpoint(world)
    world.edit_config(rms_norm_eps=1e-3)


@engine("checkpoint of adapters for a job without", "step-00000001-e0001", "lora")
def _(world):
    world.spec["lora"] = {"targets": ["q_proj"]}
    train_with_a_checkpoint(world)
    del world.spec["lora"]


@engine("output below a file", "config.json", "output", "Not a directory")
def _(world):
    world.spec["output"]["uri"] = str(world.model / "config.json/output")


@engine("output on a pseudo file system", "/proc/temper")
def _(world):
    world.spec["output"]["uri"] = "/proc/temper"


@engine("GPUs for a program without CUDA", "resources.device is CUDA", "-DTEMPER_CUDA=ON, or ask for CPU")
def _(world):
    world.spec["resources"] = {"device": "DEVICE_CUDA"}


@engine("learning rate that blows up", "is not finite", "training.learning_rate", cause="NUMERICS")
def _(world):
    world.edit_tensors(lambda tensors: tensors[NORM].fill_(float("inf")))


def run_engine(spec: dict, folder: Path) -> subprocess.CompletedProcess:
    return training_run.run(spec, folder)


@pytest.mark.parametrize("name", ENGINE)
def test_engine_explains(name, world):
    spoil, message, cause = ENGINE[name]
    spoil(world)
    result = run_engine(world.spec, world.folder)
    assert result.returncode == 1, result
    error = result.stderr.split("temper-rank: ", 1)[-1]
    assert error.startswith(f"{cause}: ")
    for part in message:
        assert part in error
    exports = list((world.folder / "output").rglob("*export*"))
    assert exports == []
    # Nothing is loaded to find out, but where a checkpoint or the training itself is what is wrong.
    assert ("PHASE_LOADING_MODEL" in result.stdout) == (cause == "NUMERICS" or "resume_from" in world.spec)


def test_engine_on_sound_input_succeeds(world):
    """The rows above fail for what they spoil, and for nothing else."""
    result = run_engine(world.spec, world.folder)
    assert result.returncode == 0, result.stderr


def test_engine_by_hand_without_arguments_says_what_it_is_for():
    environment = {key: value for key, value in os.environ.items() if key != "TEMPER_RANK_FD"}
    result = subprocess.run([BIN / "temper-rank"], capture_output=True, text=True, env=environment, check=False)
    assert result.returncode == 2
    assert "temper submit" in result.stderr
    assert "temper-rank train" in result.stderr


def test_worker_by_hand_says_what_it_is_for_and_leaves_an_account(tmp_path):
    environment = {key: value for key, value in os.environ.items() if key != "TEMPER_WORKER_TOKEN"}
    options = ["--server=127.0.0.1:1", "--job=jobs/a", "--epoch=1", "--node=0", f"--run-dir={tmp_path}"]
    result = subprocess.run(
        [BIN / "temper-worker", *options], capture_output=True, text=True, env=environment, check=False
    )
    assert result.returncode == 2
    assert "TEMPER_WORKER_TOKEN" in result.stderr
    record = json.loads((tmp_path / "exit.json").read_text())
    assert record["exit_status"] == 2
    assert record["cause"] == "LAUNCH"
    assert "TEMPER_WORKER_TOKEN" in record["message"]


# Disks. A mount namespace of the process's own: nothing is left mounted, and root is not needed.

NAMESPACE = ["unshare", "--mount", *(() if os.geteuid() == 0 else ("--map-root-user",))]


def run_engine_on_mount(spec: dict, folder: Path, options: str) -> subprocess.CompletedProcess:
    """Runs the engine with a small file system at its output, and lists at the end what is there. What the engine
    reports goes to the file `reports`."""
    job, output = folder / "job.json", Path(spec["output"]["uri"])
    job.write_text(json.dumps(spec))
    output.mkdir()
    script = f"""
        mount -t tmpfs -o {options} none '{output}' || exit 99
        '{BIN}/temper-rank' train '{job}' > '{folder / "reports"}'
        status=$?
        find '{output}' -type f
        exit $status
    """
    return subprocess.run([*NAMESPACE, "sh", "-c", script], capture_output=True, text=True, timeout=120, check=False)


def test_output_on_a_read_only_disk(world):
    result = run_engine_on_mount(world.spec, world.folder, "ro")
    assert result.returncode == 1, result
    assert "USER_INPUT: " in result.stderr
    for part in ("Read-only file system", world.spec["output"]["uri"], "choose another place"):
        assert part in result.stderr


def test_disk_full_during_export_publishes_nothing(world):
    result = run_engine_on_mount(world.spec, world.folder, "size=200k")
    assert result.returncode == 1, result
    assert "STORAGE: " in result.stderr
    for part in ("No space left on device", "model.safetensors", "Free some space or choose another place"):
        assert part in result.stderr
    assert "manifest.json" not in result.stdout
    assert "model.safetensors" not in result.stdout


def test_disk_full_during_a_checkpoint_costs_a_warning(world):
    world.spec["checkpoints"] = {"every_steps": 1}
    world.spec["training"]["steps"] = 5
    # Room for the export, but not for the optimizer's state, too.
    result = run_engine_on_mount(world.spec, world.folder, "size=900k")
    assert result.returncode == 0, result
    for part in ("the checkpoint of step 1 could not be written; training goes on", "No space left on device"):
        assert part in result.stderr
    reports = [json.loads(line) for line in (world.folder / "reports").read_text().splitlines()]
    assert [report["step"] for report in reports if "loss" in report] == [1, 2, 3, 4, 5]
    assert "model.safetensors" in result.stdout
    assert "optimizer" not in result.stdout


# With a server


def break_line(world: World) -> str:
    world.write_data(GOOD_LINE, "oops")
    return "train.jsonl, line 2: not valid JSON"


def ask_for_too_many_experts(world: World) -> str:
    make_moe(world, num_local_experts=2, num_experts_per_tok=3)
    return "`num_experts_per_tok` is 3, but there are 2 experts"


@pytest.mark.parametrize("spoil", [break_line, ask_for_too_many_experts])
def test_job_fails_with_its_cause_and_the_message_is_everywhere(spoil, server, world):
    """What the rows of the engine print is what the user of a server reads."""
    message = spoil(world)
    submitted = server.temper("submit", "-", "--job-id=bad", "--watch", stdin=json.dumps(world.spec))
    assert submitted.returncode == 5, submitted
    failed = server.get("bad")
    assert failed["state"] == "JOB_STATE_FAILED"
    assert failed["cause"] == "FAILURE_CAUSE_USER_INPUT"
    assert failed["epoch"] == 1  # not tried again
    assert message in failed["reason"]
    for output in (submitted.stdout, server.temper("get", "bad").stdout, server.temper("list").stdout):
        assert message in output
