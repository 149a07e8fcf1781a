# SPDX-License-Identifier: Apache-2.0
"""gpt-oss with experts packed in MXFP4: the packing here is this test's own."""

import json
import subprocess

import peft
import pytest
import reference
import tiny_models
import torch
from e2e import tiny_chat_model
from engine import BUILD, FREED_IS_FREE, Engine
from safetensors.torch import load_file, save_file
from worker.train.training_run import job, train

VALUES = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6])


def unpack(blocks, scales):
    """[experts, out, groups, 16] and [experts, out, groups] → [experts, in, out]."""
    halves = torch.stack([blocks & 15, blocks >> 4], dim=-1).flatten(-2).long()
    values = VALUES[halves & 7] * torch.where(halves > 7, -1.0, 1.0)
    values = values * torch.exp2(scales.float() - 127).unsqueeze(-1)
    return values.flatten(-2).transpose(1, 2).contiguous()


def write_pair(folder, **changes):
    """(a packed checkpoint, the same one unpacked)."""
    variant = {**tiny_models.VARIANTS["gpt_oss"]["yarn"], "intermediate_size": 64, **changes}
    tiny_models.make(folder / "plain", "gpt_oss", dtype=torch.bfloat16, **variant)
    tensors = load_file(folder / "plain/model.safetensors")
    config = json.loads((folder / "plain/config.json").read_text())
    generator = torch.Generator().manual_seed(0)
    plain = {}
    for name in [n for n in tensors if n.endswith(("gate_up_proj", "down_proj"))]:
        experts, inputs, outputs = tensors.pop(name).shape
        blocks = torch.randint(0, 256, (experts, outputs, inputs // 32, 16), generator=generator, dtype=torch.uint8)
        scales = torch.randint(121, 126, (experts, outputs, inputs // 32), generator=generator, dtype=torch.uint8)
        tensors |= {f"{name}_blocks": blocks, f"{name}_scales": scales}
        plain[name] = unpack(blocks, scales).to(torch.bfloat16)
    (folder / "packed").mkdir()
    save_file(tensors, folder / "packed/model.safetensors", metadata={"format": "pt"})
    quantized = config | {"quantization_config": {"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]}}
    (folder / "packed/config.json").write_text(json.dumps(quantized))
    rest = {name: t for name, t in tensors.items() if not name.endswith(("_blocks", "_scales"))}
    save_file(rest | plain, folder / "plain/model.safetensors", metadata={"format": "pt"})
    return folder / "packed", folder / "plain"


@pytest.fixture
def packed(tmp_path):
    return write_pair(tmp_path)


def test_packed_experts_compute_what_unpacked_ones_do(packed, tmp_path):
    batch = reference.random_batch(331, [90, 40])
    expected = reference.logits(reference.load(packed[1]), batch)
    actual = Engine(tmp_path).logits(packed[0], batch)
    assert reference.kl(expected, actual).max() <= 1e-7


def export(source, target, *options):
    return subprocess.run(
        [BUILD / "tests/round_trip_probe", source, target, str(1 << 40), "fp32", *options],
        capture_output=True,
        text=True,
        check=False,
        env=FREED_IS_FREE,
    )


def contents(directory):
    return {name: (t.dtype, t.tolist()) for name, t in load_file(directory / "model.safetensors").items()}


def test_trained_experts_leave_unpacked(packed, tmp_path):
    assert export(packed[0], tmp_path / "export").returncode == 0
    assert contents(tmp_path / "export") == contents(packed[1])
    assert "quantization_config" not in json.loads((tmp_path / "export/config.json").read_text())


def test_frozen_experts_leave_as_they_came(packed, tmp_path):
    run = export(packed[0], tmp_path / "export", "model.layers.*.mlp.experts.*")
    assert run.returncode == 0, run.stderr
    assert contents(tmp_path / "export") == contents(packed[0])
    written = json.loads((tmp_path / "export/config.json").read_text())
    assert written["quantization_config"]["quant_method"] == "mxfp4"


def test_adapted_experts_leave_unpacked_when_merged(packed, tmp_path):
    engine = Engine(tmp_path)
    engine.make_adapter(packed[0], tmp_path / "adapter", "--rank", "4", "--targets", "experts")
    engine.merge(packed[0], tmp_path / "adapter", tmp_path / "merged")
    adapted = peft.PeftModel.from_pretrained(reference.load(packed[1]), tmp_path / "adapter")
    expected = adapted.merge_and_unload().state_dict()
    base, merged = (load_file(directory / "model.safetensors") for directory in (packed[1], tmp_path / "merged"))
    assert merged.keys() == base.keys()
    for name, tensor in merged.items():
        assert tensor.dtype == torch.bfloat16
        experts = name.endswith(("gate_up_proj", "down_proj"))
        assert torch.equal(tensor, base[name]) != experts
        torch.testing.assert_close(tensor.float(), expected[name], rtol=2**-8, atol=1e-6)


def test_training_goes_on_from_packed_experts(tmp_path):
    """As from the same model unpacked, bit for bit; what comes out are trained experts in bf16."""
    tokenizer = tiny_chat_model.make_tokenizer()
    tiny_chat_model.write_data(tmp_path / "train.jsonl")
    exports = []
    for directory in write_pair(tmp_path, vocab_size=len(tokenizer)):
        tokenizer.save_pretrained(directory)
        output = tmp_path / f"{directory.name}-output"
        train(job(tmp_path, output, model__uri=str(directory), training__steps=2), tmp_path)
        exports.append(output / "local/export-e0001")
        assert json.loads((exports[-1] / "verification.json").read_text())["transformers"]["passed"]
    assert contents(exports[0]) == contents(exports[1])
    assert "quantization_config" not in json.loads((exports[0] / "config.json").read_text())
    base, trained = (load_file(path / "model.safetensors") for path in (tmp_path / "plain", exports[0]))
    assert trained.keys() == base.keys()
    experts = [name for name in trained if name.endswith(("gate_up_proj", "down_proj"))]
    assert len(experts) == 2 * 3
    assert all(trained[name].dtype == torch.bfloat16 and not trained[name].equal(base[name]) for name in experts)


def test_one_expert_at_a_time_is_unpacked(tmp_path):
    wide = {"num_hidden_layers": 1, "num_local_experts": 32, "hidden_size": 512, "intermediate_size": 512}
    frozen = ["model.layers.*.mlp.experts.*"]  # that leave as they came
    peaks = []
    for name, options in (("small", {}), ("large", wide)):
        source, plain = write_pair(tmp_path / name, **options)
        run = export(source, tmp_path / name / "export", *frozen)
        assert run.returncode == 0, run.stderr
        peaks.append(json.loads(run.stdout)["peak_bytes"])
    unpacked = 2 * (plain / "model.safetensors").stat().st_size  # in fp32
    largest = 4 * 32 * 512 * 2 * 512
    assert unpacked > 100e6
    assert peaks[1] - peaks[0] < unpacked + 0.5 * largest


def test_a_block_too_few_is_refused(packed, tmp_path):
    path = packed[0] / "model.safetensors"
    tensors = load_file(path)
    name = "model.layers.0.mlp.experts.down_proj_blocks"
    tensors[name] = tensors[name][:, :, :1].contiguous()
    save_file(tensors, path, metadata={"format": "pt"})
    run = export(packed[0], tmp_path / "export")
    assert run.returncode == 1
    assert f"{name} is [6, 96, 1, 16] instead of [6, 96, 2, 16]" in run.stderr


def test_blocks_of_another_family_are_refused(tmp_path):
    tiny_models.make(tmp_path / "model")
    path = tmp_path / "model/config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"quantization_config": {"quant_method": "mxfp4"}}))
    run = export(tmp_path / "model", tmp_path / "export")
    assert run.returncode == 1
    assert 'quantized with "mxfp4"' in run.stderr
