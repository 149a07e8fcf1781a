# SPDX-License-Identifier: Apache-2.0
"""Models that bring code of their own: where it may be run they train, and what they raise is told. And where there is
no Python at all."""

import json
import shutil
import subprocess

import pytest
from e2e import tiny_chat_model
from worker.hf_backend.fallback_run import job
from worker.train.training_run import RANK

from worker.hf_backend import architectures

CODE = """
from transformers import GPT2Config, GPT2LMHeadModel

class OwnConfig(GPT2Config):
    model_type = "own"

class OwnForCausalLM(GPT2LMHeadModel):
    config_class = OwnConfig

    def __init__(self, config):
        IN_THE_BEGINNING
        super().__init__(config)
        self.transformer.h[1].register_forward_pre_hook(self.before_last)

    def before_last(self, module, arguments):
        BEFORE_LAST
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own")
    architectures.make(folder / "gpt2", "gpt2")
    tiny_chat_model.write_data(folder / "train.jsonl", repeat=1)
    return folder


def train(folder, name, *options, before_last="pass", in_the_beginning="pass"):
    model = folder / name
    shutil.copytree(folder / "gpt2", model)
    config = json.loads((model / "config.json").read_text())
    auto_map = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnForCausalLM"}
    config |= {"architectures": ["OwnForCausalLM"], "model_type": "own", "auto_map": auto_map}
    (model / "config.json").write_text(json.dumps(config))
    code = CODE.replace("BEFORE_LAST", before_last).replace("IN_THE_BEGINNING", in_the_beginning)
    (model / "own.py").write_text(code)
    spec = job(folder, name, f"{name}-out")
    spec["training"]["steps"] = 2
    (folder / f"{name}.json").write_text(json.dumps(spec))
    command = [RANK, "train", folder / f"{name}.json", *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_a_build_without_python_says_what_to_install(folder, tmp_path):
    shutil.copy(RANK, tmp_path / "temper-rank")
    (folder / "job.json").write_text(json.dumps(job(folder, "gpt2", "out")))
    command = [tmp_path / "temper-rank", "train", folder / "job.json"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 1
    assert "architecture GPT2LMHeadModel is not supported" in result.stderr
    assert "Nor can transformers train it here" in result.stderr
    assert "temper was built without Python" in result.stderr


def test_it_trains_where_it_is_allowed(folder):
    result = train(folder, "allowed", "--trust-remote-code")
    assert result.returncode == 0, result.stderr
    assert '"step":2' in result.stdout
    assert (folder / "allowed-out/local/export-e0001/own.py").exists()


def test_it_is_not_run_where_it_is_not(folder):
    result = train(folder, "refused", in_the_beginning=f"open({str(folder / 'was_run')!r}, 'w')")
    assert result.returncode == 1
    assert "USER_INPUT" in result.stderr
    assert "temper-server --trust-remote-code" in result.stderr
    assert not (folder / "was_run").exists()


@pytest.mark.parametrize(
    ("where", "raises", "cause", "message"),
    [
        ("before_last", "raise KeyError('no such thing')", "INTERNAL", "transformers: KeyError: 'no such thing'"),
        # What can't even be made is the model's fault, unless memory ended.
        (
            "in_the_beginning",
            "raise KeyError('no such thing')",
            "USER_INPUT",
            "transformers: KeyError: 'no such thing'",
        ),
        (
            "in_the_beginning",
            "raise MemoryError('all of it')",
            "OUT_OF_MEMORY",
            "out of memory: lower training.micro_b",
        ),
    ],
    ids=["in a step", "when it is made", "memory"],
)
def test_what_it_raises_is_the_jobs_error_and_the_traceback_is_logged(folder, where, raises, cause, message, request):
    result = train(folder, request.node.callspec.id, "--trust-remote-code", **{where: raises})
    assert result.returncode == 1
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith(f"temper-rank: {cause}: ")
    assert message in last
    assert "Traceback (most recent call last)" in result.stderr
    assert f"in {'before_last' if where == 'before_last' else '__init__'}" in result.stderr
