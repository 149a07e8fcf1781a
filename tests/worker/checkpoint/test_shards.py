# SPDX-License-Identifier: Apache-2.0
"""Loaded into the shards of several ranks and written from them, a model is the files of one rank, byte by byte."""

import os
import shutil
import subprocess

import command_server
import pytest
import tiny_models
import torch
from safetensors.torch import load_file, save_file
from servers.relay import Relay
from servers.s3_server import Versitygw
from worker.checkpoint.test_mxfp4 import write_pair
from worker.checkpoint.test_round_trip import PROBE, UNLIMITED

# A variant of each family: fused and separate parts, biases, tied heads, experts in either layout.
FAMILIES = {
    "llama": "mqa_bias",
    "mistral": "window",
    "qwen2": "odd_heads_tied",
    "qwen3": "odd_heads_tied",
    "gemma2": "caps",
    "gemma3_text": "scaled_full",
    "phi3": "plain",
    "mixtral": "plain",
    "qwen3_moe": "some_dense",
    "gpt_oss": "yarn",
    "olmo2": "gqa",
    "olmo3": "full_first_tied",
    "smollm3": "windows",
    "granite": "biases",
}


def export(source, target, *options, world=1, max_shard_size=UNLIMITED, environment=None):
    arguments = [source, target, max_shard_size, *options, "--world", world, "--nudge"]
    if environment is None:
        run = command_server.run(PROBE, *arguments)
    else:
        command = [PROBE, *map(str, arguments)]
        run = subprocess.run(
            command, capture_output=True, text=True, timeout=120, env=os.environ | environment, check=False
        )
    assert run.returncode == 0, run.stderr
    return {path.relative_to(target): path.read_bytes() for path in sorted(target.rglob("*")) if path.is_file()}


def test_all_families_are_here():
    assert FAMILIES.keys() == tiny_models.VARIANTS.keys()


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_comes_out_as_from_one_rank(tmp_path, family):
    variant = tiny_models.VARIANTS[family][FAMILIES[family]]
    tiny_models.make(tmp_path / "model", family, dtype=torch.bfloat16, **variant)
    expected = export(tmp_path / "model", tmp_path / "one")
    assert export(tmp_path / "model", tmp_path / "three", world=3) == expected


def test_from_a_bucket_each_rank_reads_what_it_has(tmp_path):
    shapes = {"hidden_size": 240, "intermediate_size": 512, "num_hidden_layers": 8}
    tiny_models.make(tmp_path / "model", "llama", **shapes)
    size = (tmp_path / "model/model.safetensors").stat().st_size
    expected = export(tmp_path / "model", tmp_path / "one")
    with Versitygw(tmp_path / "s3") as storage:
        storage.make_bucket("bucket")
        shutil.copytree(tmp_path / "model", storage.data / "bucket/model")
        for world in (1, 3):
            with Relay(storage.port) as relay:
                environment = storage.environment(relay.endpoint)
                target = tmp_path / f"from-bucket-{world}"
                assert export("s3://bucket/model", target, world=world, environment=environment) == expected
            # A matrix that two ranks have parts of is read by both.
            assert relay.answered < (1.1 if world == 1 else 1.8) * size


def test_packed_experts_come_out_as_from_one_rank(tmp_path):
    packed, _ = write_pair(tmp_path)
    for options in ([], ["fp32", "model.layers.*.mlp.experts.*"]):
        folder = tmp_path / str(len(options))
        folder.mkdir()
        expected = export(packed, folder / "one", *options)
        assert export(packed, folder / "three", *options, world=3) == expected


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_files_are_written_by_as_many_ranks_as_there_are(tmp_path, precision):
    """More files than ranks, ranks without a file, and weights of which some are frozen."""
    tiny_models.make(tmp_path / "model", "llama", dtype=torch.float16)
    options = [precision, "model.layers.0.*", "model.layers.1.self_attn.k_proj.*"]
    expected = export(tmp_path / "model", tmp_path / "one", *options, max_shard_size=100_000)
    assert 4 < sum(name.suffix == ".safetensors" for name in expected) < 12
    for world in (2, 4):
        written = export(tmp_path / "model", tmp_path / str(world), *options, world=world, max_shard_size=100_000)
        assert written == expected


def test_what_one_rank_can_not_write_fails_on_all_and_leaves_nothing(tmp_path):
    tiny_models.make(tmp_path / "model", "llama", dtype=torch.float16, max_shard_size="200KB")
    last = sorted((tmp_path / "model").glob("*.safetensors"))[-2]  # rank 0 does not write it
    tensors = load_file(last)
    next(iter(tensors.values())).view(-1)[0] = 65500.0  # a little more is too much for its dtype
    save_file(tensors, last, metadata={"format": "pt"})
    command = [PROBE, tmp_path / "model", tmp_path / "export", str(UNLIMITED), "--world", "3", "--nudge"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 1
    assert "NUMERICS" in run.stderr
    assert "holds values that F16, the dtype that the source has it in, can't represent" in run.stderr
    assert not (tmp_path / "export").exists()
