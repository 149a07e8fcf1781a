# SPDX-License-Identifier: Apache-2.0
"""Jobs with adapters: what they export, and what they begin with."""

import json

import peft
import pytest
import tiny_models
import torch
from e2e import tiny_chat_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM
from worker.train.backends import COMPARISON, ONE_SHOWS_AS_MUCH, TOKEN_ADAPTERS, lacks, refusal
from worker.train.training_run import assert_refused, job, run, train

MODULES = ["lm_head", "model.norm", "v_proj"]  # v_proj: some rows of what is one matrix for us
LORA = {"rank": 4, "targets": ["q_proj", "model.layers.1.mlp.*"]}
TOKENS = ["q_proj", "embed_tokens", "lm_head"]
IDS = torch.arange(5, 60)[None]


def logits(model):
    with torch.no_grad():
        return model.eval()(IDS).logits[0].double()


def kl(expected, actual):
    p, q = expected.log_softmax(-1), actual.log_softmax(-1)
    return (p.exp() * (p - q)).sum(-1).max().item()


def load(directory):
    return AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32, attn_implementation="eager")


def export(output):
    return output / "local/export-e0001"


@pytest.fixture
def base(inputs, tmp_path, request):
    """The model, in a dtype."""
    directory = tmp_path / "base"
    directory.mkdir()
    for file in (inputs / "model").iterdir():
        (directory / file.name).write_bytes(file.read_bytes())
    tensors = {k: v.to(request.param) for k, v in load_file(directory / "model.safetensors").items()}
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    return directory


CHANGES = {
    "plain": {},
    "rslora": {"rslora": True, "dropout": 0.2},
    "modules": {"modules_to_save": MODULES},
    "dora": {"dora": True},
    "tokens": {"targets": TOKENS},
}


def assert_merged_is_base_and_adapter_rounded_once(inputs, base, tmp_path, changes, precision):
    spec = job(inputs, tmp_path / "out", model__uri=str(base), lora=LORA | changes, training__precision=precision)
    spec["output"]["adapters"] = "ADAPTERS_BOTH"
    if (refused := refusal(inputs, TOKEN_ADAPTERS)) and "targets" in changes:
        assert_refused(spec, tmp_path, refused)
        return
    train(spec, tmp_path)
    merged = export(tmp_path / "out")
    proof = json.loads((merged / "verification.json").read_text())
    assert proof["tensors"]["passed"]
    assert proof["native_reload"]["passed"]
    assert proof["merge"]["passed"]
    assert proof["adapter"]["tensors"]["passed"]
    if not lacks(inputs, COMPARISON):
        assert proof["adapter"]["transformers"]["passed"]

    adapted = peft.PeftModel.from_pretrained(load(base), merged / "adapter")
    expected = logits(adapted)
    assert kl(logits(load(base)), expected) > 1e-3
    before, after = (load_file(folder / "model.safetensors") for folder in (base, merged))
    theirs = adapted.merge_and_unload().state_dict()
    touched = set()
    for name, tensor in after.items():
        assert tensor.dtype == before[name].dtype
        if not torch.equal(tensor, before[name]):
            touched.add(name.rsplit(".", 2)[-2])
        # One rounding of the fp32 sum, up to the order of its products.
        rounded = theirs[name].to(tensor.dtype).float()
        whole = tensor.dtype == torch.float32
        torch.testing.assert_close(tensor.float(), rounded, rtol=1e-5 if whole else 2**-7, atol=1e-6)
        assert whole or (tensor.float() != rounded).float().mean() < 0.01
    adapted_modules = set(TOKENS) if "targets" in changes else {"q_proj", "gate_proj", "up_proj", "down_proj"}
    assert touched == adapted_modules | ({"lm_head", "norm", "v_proj"} if "modules_to_save" in changes else set())
    if before["model.norm.weight"].dtype == torch.float32:
        assert kl(expected, logits(load(merged))) < 1e-8


@pytest.mark.parametrize("base", [torch.float32], indirect=True, ids=["F32"])
@pytest.mark.parametrize("case", CHANGES)
def test_merged_model_is_base_and_adapter_rounded_once(inputs, base, tmp_path, case):
    assert_merged_is_base_and_adapter_rounded_once(inputs, base, tmp_path, CHANGES[case], "PRECISION_FP32")


@ONE_SHOWS_AS_MUCH  # what is rounded, and to what, is a matter of files
@pytest.mark.parametrize("case", CHANGES)
@pytest.mark.parametrize(
    ("base", "precision"),
    [
        (torch.float32, "PRECISION_BF16"),
        (torch.bfloat16, "PRECISION_FP32"),
        (torch.bfloat16, "PRECISION_BF16"),
    ],
    ids=["F32 in bf16", "BF16", "BF16 in bf16"],
    indirect=["base"],
)
def test_merged_model_in_other_dtypes(inputs, base, tmp_path, case, precision):
    assert_merged_is_base_and_adapter_rounded_once(inputs, base, tmp_path, CHANGES[case], precision)


def test_merged_alone_is_a_model_and_nothing_else(inputs, tmp_path):
    spec = job(inputs, tmp_path / "out", lora=LORA)
    spec["output"]["adapters"] = "ADAPTERS_MERGED"
    train(spec, tmp_path)
    files = {path.relative_to(export(tmp_path / "out")).as_posix() for path in export(tmp_path / "out").rglob("*")}
    assert {"config.json", "model.safetensors", "tokenizer.json", "verification.json"} <= files
    assert not any("adapter" in name for name in files)


def test_an_adapter_goes_on_from_where_it_was(inputs, tmp_path):
    changes = {"rslora": True, "modules_to_save": ["model.norm"]}
    train(job(inputs, tmp_path / "first", lora=LORA | changes), tmp_path)
    first = export(tmp_path / "first")
    # Next to no learning: what comes out is what went in.
    again = job(inputs, tmp_path / "again", lora={"adapter": str(first)}, training__learning_rate=1e-12)
    train(again, tmp_path)
    second = export(tmp_path / "again")
    assert json.loads((second / "adapter_config.json").read_text()) == json.loads(
        (first / "adapter_config.json").read_text()
    )
    before, after = (load_file(folder / "adapter_model.safetensors") for folder in (first, second))
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        torch.testing.assert_close(after[name], tensor, rtol=0, atol=1e-7)
    assert any(tensor.abs().max() > 1e-3 for name, tensor in before.items() if "lora_B" in name)


def test_tied_model_stays_tied_when_merged(inputs, tmp_path):
    tiny_chat_model.write_model(tmp_path / "base", tie_word_embeddings=True)
    changes = {"lora": {"rank": 4, "targets": ["lm_head"]}, "model__uri": str(tmp_path / "base")}
    spec = job(inputs, tmp_path / "out", **changes)
    spec["output"]["adapters"] = "ADAPTERS_BOTH"
    if refused := refusal(inputs, TOKEN_ADAPTERS):
        assert_refused(spec, tmp_path, refused)
        return
    train(spec, tmp_path)
    merged = export(tmp_path / "out")
    assert "lm_head.weight" not in load_file(merged / "model.safetensors")
    expected = logits(peft.PeftModel.from_pretrained(load(tmp_path / "base"), merged / "adapter"))
    assert kl(logits(load(tmp_path / "base")), expected) > 1e-3
    assert kl(expected, logits(load(merged))) < 1e-8


@ONE_SHOWS_AS_MUCH  # where one may be on the embedding
def test_adapters_that_untie_have_no_merged_model(inputs, tmp_path):
    tiny_chat_model.write_model(tmp_path / "base", tie_word_embeddings=True)
    config = peft.LoraConfig(r=3, target_modules=["embed_tokens"], init_lora_weights=False)
    peft.get_peft_model(load(tmp_path / "base"), config).save_pretrained(tmp_path / "adapter")
    changes = {"lora": {"adapter": str(tmp_path / "adapter")}, "model__uri": str(tmp_path / "base")}
    spec = job(inputs, tmp_path / "out", **changes)
    spec["output"]["adapters"] = "ADAPTERS_MERGED"
    result = run(spec, tmp_path)
    assert result.returncode == 1
    assert "USER_INPUT" in result.stderr
    assert "was made without ensure_weight_tying and changes them apart" in result.stderr


def test_experts_for_vllm_are_merged_and_compared(inputs, tmp_path):
    tokenizer = tiny_chat_model.make_tokenizer()
    tokenizer.save_pretrained(tmp_path / "base")
    config = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 40, "head_dim": 16}
    tiny_models.make(tmp_path / "base", "qwen3_moe", vocab_size=len(tokenizer), **config)
    lora = {"rank": 4, "targets": ["all-linear", "experts"]}
    spec = job(inputs, tmp_path / "out", lora=lora, model__uri=str(tmp_path / "base"))
    spec["output"] |= {"adapters": "ADAPTERS_BOTH", "adapter_format": "ADAPTER_FORMAT_VLLM"}
    if refused := refusal(inputs, TOKEN_ADAPTERS):
        assert_refused(spec, tmp_path, refused)
        return
    train(spec, tmp_path)
    merged = export(tmp_path / "out")
    proof = json.loads((merged / "verification.json").read_text())
    assert proof["merge"]["passed"]
    assert proof["adapter"]["transformers"]["passed"]
    adapter = load_file(merged / "adapter/adapter_model.safetensors")
    assert "base_model.model.model.layers.1.mlp.experts.3.gate_proj.lora_A.weight" in adapter
    expected = logits(peft.PeftModel.from_pretrained(load(tmp_path / "base"), merged / "adapter"))
    assert kl(logits(load(tmp_path / "base")), expected) > 1e-3
    assert kl(expected, logits(load(merged))) < 1e-7


@ONE_SHOWS_AS_MUCH  # without PEFT transformers trains no adapter
def test_without_peft_the_job_warns_and_succeeds(inputs, tmp_path):
    (tmp_path / "peft.py").write_text("raise ImportError('no PEFT here')")
    spec = job(inputs, tmp_path / "out", lora=LORA, training__steps=2)
    result = run(spec, tmp_path, PYTHONPATH=str(tmp_path))
    assert result.returncode == 0, result.stderr
    assert "the export was not compared with transformers' model: the Python environment lacks" in result.stderr
    proof = json.loads((export(tmp_path / "out") / "verification.json").read_text())
    assert "no PEFT here" in proof["transformers"]["skipped"]


def narrow(config, tensors):
    for name in [name for name in tensors if "up_proj" in name]:
        tensors[name] = tensors[name][:, :-1].contiguous()


def deeper(config, tensors):
    for name in [name for name in tensors if "layers.1" in name]:
        tensors[name.replace("layers.1", "layers.7")] = tensors[name].clone()


def other_kind(config, tensors):
    config["peft_type"] = "IA3"


def ranks(config, tensors):
    config["rank_pattern"] = {"q_proj": 8}


REFUSED = {
    narrow: "is of another model than the job's: its tensor base_model.model.model.layers.1.mlp.up_proj.lora_",
    deeper: "base_model.model.model.layers.7.mlp.down_proj.lora_A.weight is for a module that LlamaForCausalLM",
    other_kind: "`peft_type` is not LORA",
    ranks: "`rank_pattern`",
}


@pytest.mark.parametrize("spoil", REFUSED, ids=lambda spoil: spoil.__name__)
def test_adapter_that_does_not_fit_is_refused(inputs, tmp_path, spoil):
    train(job(inputs, tmp_path / "first", lora=LORA), tmp_path)
    adapter = export(tmp_path / "first")
    config = json.loads((adapter / "adapter_config.json").read_text())
    tensors = load_file(adapter / "adapter_model.safetensors")
    spoil(config, tensors)
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    save_file(tensors, adapter / "adapter_model.safetensors")
    spec = job(inputs, tmp_path / "again", lora={"adapter": str(adapter)})
    assert_refused(spec, tmp_path, "lora.adapter: ", REFUSED[spoil])
