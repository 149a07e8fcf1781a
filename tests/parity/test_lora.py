# SPDX-License-Identifier: Apache-2.0
"""Adapters against PEFT, on every family: which modules, logits, gradients, and the files in both directions.

The figures go to build/reports/families.json.
"""

import collections
import json

import families_report
import peft
import pytest
import reference
import tiny_models
import torch
from safetensors.torch import load_file

KL_BOUND = 1e-8
LEAST_KL = 1e-4  # an adapter that changes less has changed nothing
GRADIENT_BOUND = 1e-4
FIRST = [(family, next(iter(variants))) for family, variants in tiny_models.VARIANTS.items()]
TARGETS = {"all-linear": None, "one target": "o_proj"}


@pytest.fixture(scope="module", autouse=True)
def figures():
    """family → target → what was found."""
    found = collections.defaultdict(dict)
    yield found
    families_report.update(
        {
            family: {
                "peft_ok": targets.keys() == TARGETS.keys() and all(row["ok"] for row in targets.values()),
                "peft": targets,
            }
            for family, targets in found.items()
        }
    )


def load(directory, adapter, **options):
    """As a user of transformers and PEFT would."""
    return peft.PeftModel.from_pretrained(reference.load(directory), adapter, **options).eval()


def base_names(model):
    """Whole names of the modules that PEFT has put an adapter on."""
    layers = [name for name, module in model.named_modules() if isinstance(module, peft.tuners.lora.LoraLayer)]
    return {name.removeprefix("base_model.model.") for name in layers}


def serialized(model):
    """{name in the adapter's file: gradient}"""
    gradients = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
    assert all(gradient is not None for gradient in gradients.values())
    for inner, written in ((".default", ""), (".modules_to_save", ""), ("magnitude_vector.weight", "magnitude_vector")):
        gradients = {name.replace(inner, written): gradient for name, gradient in gradients.items()}
    return gradients


def step(model, batches):
    """(loss, {name in the adapter's file: gradient})"""
    loss = reference.loss(model.train(), batches)
    loss.backward()
    return loss.item(), serialized(model)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(("family", "variant"), FIRST)
def test_adapter_equals_peft(family, variant, target, engine, tmp_path, figures):
    directory, adapter = tmp_path / "model", tmp_path / "adapter"
    tiny_models.make(directory, family, **tiny_models.VARIANTS[family][variant])
    engine.make_adapter(directory, adapter, "--rank", "4", "--alpha", "6", "--targets", TARGETS[target] or target)
    row = figures[family][target] = {"ok": False}

    theirs = load(directory, adapter, is_trainable=True)
    if target == "all-linear":
        fresh = peft.get_peft_model(reference.load(directory), peft.LoraConfig(r=4, target_modules=linear(directory)))
        assert base_names(theirs) == base_names(fresh)
    assert {name.rsplit(".", 1)[1] for name in base_names(theirs)} >= {"o_proj"}

    batch = reference.random_batch(331, [100, 1, 37])
    base = reference.logits(reference.load(directory), batch)
    expected, actual = reference.logits(theirs, batch), engine.logits(directory, batch, lora=adapter)
    row["max_token_kl"] = reference.kl(expected, actual).max().item()
    row["moved_kl"] = reference.kl(base, expected).mean().item()
    assert row["max_token_kl"] <= KL_BOUND
    assert row["moved_kl"] >= LEAST_KL
    moved = reference.kl(base, actual).mean().item()
    assert moved == pytest.approx(row["moved_kl"], rel=1e-3)

    batches = [reference.random_batch(331, [100, 1, 60])]
    loss, gradients = step(theirs, batches)
    our_loss, our_gradients = engine.gradients(directory, batches, "--lora", adapter)
    assert our_loss == pytest.approx(loss, rel=1e-5)
    assert gradients.keys() == load_file(adapter / "adapter_model.safetensors").keys()
    errors = reference.gradient_errors(gradients, our_gradients)
    row["gradient_error_max"] = max(errors.values())
    assert {name: error for name, error in errors.items() if error > GRADIENT_BOUND} == {}
    row["ok"] = True


def test_dense_layers_between_experts_stay_as_they_are(engine, tmp_path):
    """PEFT would look for their adapters on the experts of other layers."""
    directory, adapter = tmp_path / "model", tmp_path / "adapter"
    tiny_models.make(directory, "qwen3_moe", **tiny_models.VARIANTS["qwen3_moe"]["some_dense"])
    engine.make_adapter(directory, adapter, "--rank", "4", "--targets", "all-linear")
    theirs = load(directory, adapter)
    assert base_names(theirs) == {f"model.layers.{n}.self_attn.{p}_proj" for n in range(3) for p in "qkvo"}
    batch = reference.random_batch(331, [100, 37])
    expected = reference.logits(theirs, batch)
    assert reference.kl(expected, engine.logits(directory, batch, lora=adapter)).max() <= KL_BOUND


def linear(directory):
    """What PEFT's own all-linear means, without its translation of what transformers 4 called experts."""
    model = reference.load(directory)
    head = model.get_output_embeddings()
    return [
        name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear) and module is not head
    ]


@pytest.fixture
def directory(tmp_path):
    tiny_models.make(tmp_path / "model")
    return tmp_path / "model"


def assert_equals_peft(engine, directory, adapter, *options, batches=None):
    """Gradients of a step; the model is PEFT's as it stands in front of it."""
    theirs = load(directory, adapter, is_trainable=True)
    batches = batches or [reference.random_batch(331, [90, 30])]
    torch.manual_seed(0)
    loss, gradients = step(theirs, batches)
    our_loss, our_gradients = engine.gradients(directory, batches, "--lora", adapter, *options)
    assert our_loss == pytest.approx(loss, rel=1e-5)
    assert max(reference.gradient_errors(gradients, our_gradients).values()) <= GRADIENT_BOUND
    return loss


def test_adapter_of_peft_goes_on_as_in_peft(engine, directory, tmp_path):
    config = peft.LoraConfig(r=3, lora_alpha=5, target_modules=["q_proj", "down_proj"], init_lora_weights=False)
    peft.get_peft_model(reference.load(directory), config).save_pretrained(tmp_path / "adapter")
    assert_equals_peft(engine, directory, tmp_path / "adapter")


def test_patterns_give_the_same_modules_in_peft(engine, directory, tmp_path):
    adapter = tmp_path / "adapter"
    engine.make_adapter(directory, adapter, "--rank", "4", "--targets", "model.layers.[12].self_attn.*", "up_proj")
    names = base_names(load(directory, adapter))
    assert names == {f"model.layers.{n}.self_attn.{p}_proj" for n in (1, 2) for p in "qkvo"} | {
        f"model.layers.{n}.mlp.up_proj" for n in range(3)
    }
    assert_equals_peft(engine, directory, adapter)


def test_rslora_scales_as_in_peft(engine, directory, tmp_path):
    adapter = tmp_path / "adapter"
    engine.make_adapter(directory, adapter, "--rank", "9", "--alpha", "2", "--rslora", "--targets", "all-linear")
    theirs = load(directory, adapter)
    scales = {module.scaling["default"] for module in theirs.modules() if isinstance(module, peft.tuners.lora.Linear)}
    assert scales == {2 / 3}
    assert_equals_peft(engine, directory, adapter)


def test_dropout_drops_what_peft_drops(engine, directory, tmp_path):
    adapter = tmp_path / "adapter"
    engine.make_adapter(directory, adapter, "--rank", "4", "--dropout", "0.3", "--targets", "all-linear")
    assert json.loads((adapter / "adapter_config.json").read_text())["lora_dropout"] == 0.3
    # One document: PEFT runs them one by one, we run them packed, and both draw from torch's generator.
    batches = [reference.random_batch(331, [70])]
    loss = assert_equals_peft(engine, directory, adapter, "--dropout", "0.3", batches=batches)
    without, _ = engine.gradients(directory, batches, "--lora", adapter)
    assert abs(loss - without) > 1e-3
    # Nothing is dropped where nothing is trained.
    batch = batches[0]
    expected = reference.logits(load(directory, adapter), batch)
    actual = engine.logits(directory, batch, lora=adapter, dropout=0.3)
    assert reference.kl(expected, actual).max() <= KL_BOUND


@pytest.mark.parametrize("variant", ["gqa", "mqa_bias"])
@pytest.mark.parametrize("dropout", ["0", "0.3"])
def test_dora_equals_peft(engine, tmp_path, variant, dropout):
    directory, adapter = tmp_path / "model", tmp_path / "adapter"
    tiny_models.make(directory, **tiny_models.VARIANTS["llama"][variant])
    options = ["--rank", "4", "--alpha", "6", "--dora", "--dropout", dropout, "--targets", "all-linear"]
    engine.make_adapter(directory, adapter, *options)
    batch = reference.random_batch(331, [70])
    expected = reference.logits(load(directory, adapter), batch)
    assert reference.kl(expected, engine.logits(directory, batch, lora=adapter)).max() <= KL_BOUND
    assert reference.kl(reference.logits(reference.load(directory), batch), expected).mean() >= LEAST_KL
    assert_equals_peft(engine, directory, adapter, "--dropout", dropout, batches=[batch])


def test_new_dora_adapter_changes_nothing(engine, directory, tmp_path):
    """Its lengths are those of the base model."""
    adapter = tmp_path / "adapter"
    config = peft.LoraConfig(r=4, target_modules=["q_proj", "down_proj"], use_dora=True)
    peft.get_peft_model(reference.load(directory), config).save_pretrained(adapter)
    batch = reference.random_batch(331, [70])
    base = reference.logits(reference.load(directory), batch)
    assert reference.kl(base, engine.logits(directory, batch, lora=adapter)).max() <= KL_BOUND


@pytest.mark.parametrize("variant", ["gqa", "mha_tied"])
@pytest.mark.parametrize("modules", [["lm_head"], ["embed_tokens", "model.norm", "*.0.self_attn.k_proj"]])
def test_modules_trained_as_a_whole_equal_peft(engine, tmp_path, variant, modules):
    directory, adapter = tmp_path / "model", tmp_path / "adapter"
    tiny_models.make(directory, **tiny_models.VARIANTS["llama"][variant])
    engine.make_adapter(
        directory, adapter, "--rank", "4", "--targets", "q_proj", "down_proj", "--modules-to-save", *modules
    )
    theirs = load(directory, adapter, is_trainable=True)
    batch = reference.random_batch(331, [90, 30])
    base = reference.logits(reference.load(directory), batch)
    expected, actual = reference.logits(theirs, batch), engine.logits(directory, batch, lora=adapter)
    assert reference.kl(expected, actual).max() <= KL_BOUND
    assert reference.kl(base, actual).mean() >= LEAST_KL
    loss, gradients = step(theirs, [batch])
    our_loss, our_gradients = engine.gradients(directory, [batch], "--lora", adapter)
    assert our_loss == pytest.approx(loss, rel=1e-5)
    if variant == "mha_tied":
        # PEFT trains two copies of what is one matrix for us: together they have its gradient.
        names = [f"base_model.model.{name}.weight" for name in ("model.embed_tokens", "lm_head")]
        both = sum(gradients[name] for name in names)
        gradients |= dict.fromkeys(names, both)
    assert max(reference.gradient_errors(gradients, our_gradients).values()) <= GRADIENT_BOUND


REFUSED = {
    "narrower": ({"hidden_size": 48}, "q_proj.lora_A.weight is [4, 96]"),
    "shallower": ({"num_hidden_layers": 2}, "model.layers.2.self_attn.q_proj.lora_A.weight is for a module that"),
    "fused": ({"model_type": "phi3"}, "self_attn.q_proj.lora_A.weight is for a module that Phi3ForCausalLM"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_adapter_of_another_base_is_refused_by_the_tensors_name(case, engine, directory, tmp_path):
    changes, message = REFUSED[case]
    engine.make_adapter(directory, tmp_path / "adapter", "--rank", "4", "--targets", "q_proj")
    tiny_models.make(tmp_path / "other", **changes)
    refusal = engine.refusal(tmp_path / "other", tmp_path / "adapter")
    assert "is of another model than the job's" in refusal
    assert message in refusal
