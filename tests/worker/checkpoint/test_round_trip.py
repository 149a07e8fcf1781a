# SPDX-License-Identifier: Apache-2.0
"""Load → export without training: nothing of a checkpoint may change, and transformers must read the result."""

import hashlib
import json
import os
import struct
import subprocess
from pathlib import Path

import engine
import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

ROOT = Path(__file__).resolve().parents[3]
PROBE = Path(os.environ.get("TEMPER_BIN", ROOT / "build/release/bin")).parent / "tests/round_trip_probe"
UNLIMITED = 1 << 40

BASE = {
    "vocab_size": 131,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}


def rope(kind, **parameters):
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 20000.0, **parameters}}


def make(directory: Path, dtype=torch.bfloat16, max_shard_size="5GB", **overrides):
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**{**BASE, **overrides}))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.uniform_(0.5, 1.5)
            else:
                parameter.normal_(0, 0.2)
    model.to(dtype).save_pretrained(directory, max_shard_size=max_shard_size)
    return directory


def export(source: Path, target: Path, max_shard_size=UNLIMITED, precision="fp32"):
    run = subprocess.run(
        [PROBE, source, target, str(max_shard_size), precision],
        capture_output=True,
        text=True,
        check=False,
        env=engine.FREED_IS_FREE,
    )
    assert run.returncode == 0, run.stderr
    proof = json.loads(run.stdout)
    assert proof["passed"], proof
    return proof


def refused(source: Path, target: Path) -> str:
    run = subprocess.run([PROBE, source, target, str(UNLIMITED)], capture_output=True, text=True, check=False)
    assert run.returncode == 1, run.stdout
    assert not target.exists()
    return run.stderr


def tensors(directory: Path):
    """name → (file, dtype, shape, bytes), read without any library."""
    found = {}
    for path in sorted(directory.glob("*.safetensors")):
        data = path.read_bytes()
        (length,) = struct.unpack("<Q", data[:8])
        header = json.loads(data[8 : 8 + length])
        assert header.pop("__metadata__")["format"] == "pt"
        for name, entry in header.items():
            begin, end = entry["data_offsets"]
            content = data[8 + length + begin : 8 + length + end]
            found[name] = (path.name, entry["dtype"], entry["shape"], content)
    return found


def contents(directory: Path):
    return {name: entry[1:] for name, entry in tensors(directory).items()}


def files_by_tensor(directory: Path):
    return {name: entry[0] for name, entry in tensors(directory).items()}


def read(path: Path):
    return json.loads(path.read_text())


def greedy(directory: Path):
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32, attn_implementation="eager")
    ids = torch.arange(1, 9)[None]
    return model.generate(ids, max_new_tokens=24, min_new_tokens=24, do_sample=False)


def check_same(source: Path, target: Path):
    assert contents(target) == contents(source)
    assert torch.equal(greedy(target), greedy(source))


CHECKPOINTS = {
    "bf16": {},
    "fp16": {"dtype": torch.float16},
    "fp32": {"dtype": torch.float32},
    "tied": {"tie_word_embeddings": True},
    "biases": {"attention_bias": True, "mlp_bias": True},
    "head_dim": {"head_dim": 32},
    "linear": rope("linear", factor=2.0),
    "dynamic": rope("dynamic", factor=2.0),
    "llama3": rope(
        "llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=64
    ),
    "yarn": rope("yarn", factor=4.0, original_max_position_embeddings=64),
}


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_every_checkpoint_comes_out_as_it_came_in(tmp_path, name):
    source = make(tmp_path / "source", **CHECKPOINTS[name])
    export(source, tmp_path / "export")
    check_same(source, tmp_path / "export")
    assert ("lm_head.weight" in tensors(tmp_path / "export")) == (name != "tied")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
def test_bf16_compute_keeps_every_bit(tmp_path, dtype):
    source = make(tmp_path / "source", dtype=dtype)
    export(source, tmp_path / "export", precision="bf16")
    assert contents(tmp_path / "export") == contents(source)


def test_a_mixture_of_dtypes_is_kept(tmp_path):
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**BASE))
    dtypes = [torch.float32, torch.bfloat16, torch.float16]
    state = {name: t.to(dtypes[i % 3]) for i, (name, t) in enumerate(model.state_dict().items())}
    model.save_pretrained(tmp_path / "source", state_dict=state)
    export(tmp_path / "source", tmp_path / "export")
    check_same(tmp_path / "source", tmp_path / "export")
    assert {entry[1] for entry in tensors(tmp_path / "export").values()} == {"F32", "BF16", "F16"}


def test_a_tied_head_on_disk_stays_on_disk(tmp_path):
    source = make(tmp_path / "source")
    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.bfloat16)
    state = dict(model.state_dict())
    state["lm_head.weight"] = state["model.embed_tokens.weight"].clone()
    model.save_pretrained(source, state_dict=state)
    config = read(source / "config.json") | {"tie_word_embeddings": True}
    (source / "config.json").write_text(json.dumps(config))
    export(source, tmp_path / "export")
    check_same(source, tmp_path / "export")
    assert "lm_head.weight" in tensors(tmp_path / "export")


def test_shards_keep_their_files(tmp_path):
    source = make(tmp_path / "source", max_shard_size="20KB")
    assert len(list(source.glob("*.safetensors"))) > 2
    export(source, tmp_path / "export")
    check_same(source, tmp_path / "export")
    assert files_by_tensor(tmp_path / "export") == files_by_tensor(source)
    index = read(tmp_path / "export/model.safetensors.index.json")
    assert index["weight_map"] == files_by_tensor(source)
    assert index["metadata"]["total_size"] == sum(len(entry[3]) for entry in tensors(source).values())


def test_files_over_the_limit_are_cut(tmp_path):
    source = make(tmp_path / "source")
    export(source, tmp_path / "export", max_shard_size=20_000)
    check_same(source, tmp_path / "export")
    sizes = {}
    for file, _, _, content in tensors(tmp_path / "export").values():
        sizes.setdefault(file, []).append(len(content))
    assert len(sizes) > 2
    assert all(sum(parts) <= 20_000 or len(parts) == 1 for parts in sizes.values())
    assert set(sizes) == {f"model-{i + 1:05d}-of-{len(sizes):05d}.safetensors" for i in range(len(sizes))}


@pytest.mark.parametrize("kind", ["default", "llama3"])
def test_both_spellings_say_the_same(tmp_path, kind):
    """A transformers-4 config goes in; either half of what comes out is enough for transformers."""
    source = make(tmp_path / "source", **CHECKPOINTS.get(kind, rope("default")))
    config = read(source / "config.json")
    parameters = config.pop("rope_parameters")
    config["torch_dtype"] = config.pop("dtype")
    config["rope_theta"] = parameters.pop("rope_theta")
    config["rope_scaling"] = parameters if kind != "default" else None
    (source / "config.json").write_text(json.dumps(config))
    export(source, tmp_path / "export")
    check_same(source, tmp_path / "export")

    written = read(tmp_path / "export/config.json")
    assert written["rope_theta"] == written["rope_parameters"]["rope_theta"] == 20000.0
    assert written["torch_dtype"] == written["dtype"] == "bfloat16"
    expected = greedy(source)
    for dropped in (("rope_parameters", "dtype"), ("rope_theta", "rope_scaling", "torch_dtype")):
        half = {key: value for key, value in written.items() if key not in dropped}
        (tmp_path / "export/config.json").write_text(json.dumps(half))
        assert torch.equal(greedy(tmp_path / "export"), expected)


def test_a_transformers_5_config_gains_the_old_spelling(tmp_path):
    source = make(tmp_path / "source", **CHECKPOINTS["yarn"])
    export(source, tmp_path / "export")
    written = read(tmp_path / "export/config.json")
    assert written["rope_theta"] == 20000.0
    assert written["rope_scaling"] == {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
    assert {k: v for k, v in written.items() if k in read(source / "config.json")} == read(source / "config.json")


def test_other_files_are_carried_over(tmp_path):
    source = make(tmp_path / "source")
    (source / "tokenizer.json").write_bytes(b"\x00\xff not ours to understand")
    (source / "chat_template.jinja").write_text("{{ messages }}")
    (source / "more").mkdir()
    (source / "more/notes.txt").write_text("kept")
    (source / "pytorch_model.bin").write_bytes(b"stale weights")
    (source / "manifest.json").write_text("that of an export that became a source")
    (tmp_path / "blob").write_text("behind a link")
    (source / "linked.txt").symlink_to(tmp_path / "blob")
    export(source, tmp_path / "export")

    for name in ("tokenizer.json", "chat_template.jinja", "more/notes.txt", "generation_config.json", "linked.txt"):
        assert (tmp_path / "export" / name).read_bytes() == (source / name).read_bytes()
    assert not (tmp_path / "export/pytorch_model.bin").exists()
    manifest = read(tmp_path / "export/manifest.json")
    present = {str(p.relative_to(tmp_path / "export")) for p in (tmp_path / "export").rglob("*") if p.is_file()}
    assert {file["path"] for file in manifest["files"]} == present - {"manifest.json"}
    for file in manifest["files"]:
        data = (tmp_path / "export" / file["path"]).read_bytes()
        assert (file["size"], file["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())


def test_an_export_is_a_source(tmp_path):
    source = make(tmp_path / "source", **CHECKPOINTS["llama3"])
    export(source, tmp_path / "first")
    export(tmp_path / "first", tmp_path / "second")
    check_same(source, tmp_path / "second")
    assert read(tmp_path / "second/config.json") == read(tmp_path / "first/config.json")


def test_a_missing_generation_config_is_derived(tmp_path):
    source = make(tmp_path / "source", eos_token_id=[2, 7])
    (source / "generation_config.json").unlink()
    export(source, tmp_path / "export")
    assert read(tmp_path / "export/generation_config.json")["eos_token_id"] == [2, 7]


def test_an_untied_model_without_head_is_refused(tmp_path):
    source = make(tmp_path / "source", tie_word_embeddings=True)
    config = read(source / "config.json") | {"tie_word_embeddings": False}
    (source / "config.json").write_text(json.dumps(config))
    message = refused(source, tmp_path / "export")
    assert "lm_head.weight" in message
    assert "tie_word_embeddings" in message


def test_a_tied_model_with_another_head_is_refused(tmp_path):
    source = make(tmp_path / "source")
    config = read(source / "config.json") | {"tie_word_embeddings": True}
    (source / "config.json").write_text(json.dumps(config))
    assert "differ" in refused(source, tmp_path / "export")


def test_memory_holds_the_weights_once(tmp_path):
    """As masters in fp32: neither the mapped files nor the export's are there as a whole, too."""
    layers = {"num_hidden_layers": 12, "hidden_size": 384, "intermediate_size": 1536}
    least = export(make(tmp_path / "small"), tmp_path / "small-export")["peak_bytes"]
    source = make(tmp_path / "large", **layers)
    size = (source / "model.safetensors").stat().st_size
    assert size > 50e6
    peak = export(source, tmp_path / "export")["peak_bytes"]
    masters = 2 * size  # of bf16
    assert masters < peak - least < masters + 0.5 * size
