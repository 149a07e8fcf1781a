# SPDX-License-Identifier: Apache-2.0
"""Adapters against PEFT, on every family: which modules, logits, gradients, and the files in both directions.

A whole run, of test_families.py and test_lora.py, writes build/reports/families.json.
"""

import collections
import json

import families_report
import peft
import pytest
import reference
import tiny_models
import torch
from safetensors.torch import load_file, save_file

KL_BOUND = 1e-8
LEAST_KL = 1e-4  # an adapter that changes less has changed nothing
GRADIENT_BOUND = 1e-4
MERGED_BOUND = 1e-6
FIRST = [(family, next(iter(variants))) for family, variants in tiny_models.VARIANTS.items()]
TARGETS = {"all-linear": "all-linear", "one target": "o_proj", "head and embedding": ["lm_head", "embed_tokens"]}
CASES = [
    (family, variant, target)
    for family, variant in FIRST
    for target in [*TARGETS, *(["experts"] if family in tiny_models.MOE else [])]
]


@pytest.fixture(scope="module", autouse=True)
def figures(request):
    """family → target → what was found."""
    found = collections.defaultdict(dict)
    yield found
    families_report.update(
        request,
        {
            family: {
                "peft_ok": targets.keys() == {target for of, _, target in CASES if of == family}
                and all(row["ok"] for row in targets.values()),
                "peft": targets,
            }
            for family, targets in found.items()
        },
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


def tied(gradients):
    """PEFT ties the adapters of embedding and head by their memory; the gradient of one that is both is the sum."""
    embedding, head = (f"base_model.model.{name}.lora_" for name in ("model.embed_tokens", "lm_head"))
    b = gradients[f"{embedding}embedding_A"] + gradients[f"{head}B.weight"].T
    a = gradients[f"{embedding}embedding_B"] + gradients[f"{head}A.weight"].T
    return gradients | {
        f"{embedding}embedding_A": b,
        f"{embedding}embedding_B": a,
        f"{head}A.weight": a.T,
        f"{head}B.weight": b.T,
    }


def step(model, batches):
    """(loss, {name in the adapter's file: gradient})"""
    loss = reference.loss(model.train(), batches)
    loss.backward()
    gradients = serialized(model)
    config = model.peft_config["default"]
    return loss.item(), tied(gradients) if config.ensure_weight_tying else gradients


def merged_error(directory, adapter, merged):
    """The largest difference of a weight from PEFT's own merge, relative to the largest weight of its tensor."""
    model = reference.load(directory)
    if model.config.tie_word_embeddings:  # else PEFT adds to the one matrix twice
        model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.clone())
        model.config.tie_word_embeddings = False
    theirs = peft.PeftModel.from_pretrained(model, adapter)
    expected, actual = theirs.merge_and_unload().state_dict(), reference.load(merged).state_dict()
    assert expected.keys() == actual.keys()
    return max(((actual[name] - w).abs().max() / w.abs().max()).item() for name, w in expected.items())


@pytest.mark.parametrize(("family", "variant", "target"), CASES)
def test_adapter_equals_peft(family, variant, target, engine, tmp_path, figures):
    directory, adapter = tmp_path / "model", tmp_path / "adapter"
    tiny_models.make(directory, family, **tiny_models.VARIANTS[family][variant])
    targets = TARGETS.get(target, target)
    targets = [targets] if isinstance(targets, str) else targets
    engine.make_adapter(directory, adapter, "--rank", "4", "--alpha", "6", "--targets", *targets)
    row = figures[family][target] = {"ok": False}

    theirs = load(directory, adapter, is_trainable=True)
    if target == "all-linear":
        fresh = peft.get_peft_model(reference.load(directory), peft.LoraConfig(r=4, target_modules=linear(directory)))
        assert base_names(theirs) == base_names(fresh)
    named = {name.removesuffix(".base_layer").rsplit(".", 1)[-1] for name in base_names(theirs)}
    assert named == set(targets) or target == "all-linear"

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

    if target != "one target":  # which all-linear merges as well
        engine.merge(directory, adapter, tmp_path / "merged")
        row["merged_error_max"] = merged_error(directory, adapter, tmp_path / "merged")
        assert row["merged_error_max"] <= MERGED_BOUND
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


@pytest.mark.parametrize("family", ["llama", "phi3"])
def test_rslora_scales_as_in_peft(family, engine, tmp_path):
    directory, adapter = tmp_path / "model", tmp_path / "adapter"
    tiny_models.make(directory, family)
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


# phi3 has q, k and v in one matrix, gate and up in another.
@pytest.mark.parametrize(("family", "variant"), [("llama", "gqa"), ("llama", "mqa_bias"), ("phi3", "plain")])
@pytest.mark.parametrize("dropout", ["0", "0.3"])
def test_dora_equals_peft(family, variant, dropout, engine, tmp_path):
    directory, adapter = tmp_path / "model", tmp_path / "adapter"
    tiny_models.make(directory, family, **tiny_models.VARIANTS[family][variant])
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


TOKEN_CASES = [("llama", "gqa"), ("llama", "mha_tied"), ("gemma2", "caps"), ("gemma3_text", "windows")]


@pytest.mark.parametrize("target", ["embed_tokens", "lm_head"])
@pytest.mark.parametrize(("family", "variant"), TOKEN_CASES)
def test_one_of_embedding_and_head_equals_peft(family, variant, target, engine, tmp_path):
    directory, adapter = tmp_path / "model", tmp_path / "adapter"
    tiny_models.make(directory, family, **tiny_models.VARIANTS[family][variant])
    engine.make_adapter(directory, adapter, "--rank", "4", "--targets", target, "q_proj")
    theirs = load(directory, adapter)
    whole = {"embed_tokens": "model.embed_tokens", "lm_head": "lm_head"}
    # In a tied model they are one.
    adapted = set(whole.values()) if theirs.config.tie_word_embeddings else {whole[target]}
    assert {name for name in base_names(theirs) if "q_proj" not in name} == adapted
    batch = reference.random_batch(331, [70, 30])
    expected, actual = reference.logits(theirs, batch), engine.logits(directory, batch, lora=adapter)
    assert reference.kl(expected, actual).max() <= KL_BOUND
    assert reference.kl(reference.logits(reference.load(directory), batch), actual).mean() >= LEAST_KL
    assert_equals_peft(engine, directory, adapter)


def test_tied_adapter_is_the_same_to_a_reader_that_knows_no_tying(engine, tmp_path):
    """vLLM, or an older PEFT."""
    directory, adapter = tmp_path / "model", tmp_path / "adapter"
    tiny_models.make(directory, **tiny_models.VARIANTS["llama"]["mha_tied"])
    engine.make_adapter(directory, adapter, "--rank", "4", "--targets", "embed_tokens")
    config = json.loads((adapter / "adapter_config.json").read_text())
    assert config.pop("ensure_weight_tying")
    batch = reference.random_batch(331, [70])
    actual = engine.logits(directory, batch, lora=adapter)
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    assert reference.kl(reference.logits(load(directory, adapter), batch), actual).max() <= KL_BOUND
    # And it is read again as what it then says: two adapters on one matrix.
    assert_equals_peft(engine, directory, adapter)


@pytest.mark.parametrize(("variant", "tying"), [("gqa", False), ("mha_tied", False), ("mha_tied", True)])
def test_adapter_of_peft_on_embedding_and_head_goes_on_as_in_peft(variant, tying, engine, tmp_path):
    """PEFT writes the embedding itself beside its adapter."""
    directory, adapter = tmp_path / "model", tmp_path / "adapter"
    tiny_models.make(directory, **tiny_models.VARIANTS["llama"][variant])
    config = peft.LoraConfig(
        r=3, target_modules=["embed_tokens", "lm_head"], init_lora_weights=False, ensure_weight_tying=tying
    )
    peft.get_peft_model(reference.load(directory), config).save_pretrained(adapter)
    assert "base_model.model.model.embed_tokens.base_layer.weight" in load_file(adapter / "adapter_model.safetensors")
    assert_equals_peft(engine, directory, adapter)
    tiny_models.make(tmp_path / "other", **tiny_models.VARIANTS["llama"][variant], seed=1)
    refusal = engine.refusal("logits", tmp_path / "other", "--lora", adapter)
    assert ".base_layer.weight is a weight of its base model, and the job's model has another" in refusal


@pytest.mark.parametrize(("family", "variant"), [case for case in FIRST if case[0] in tiny_models.MOE])
def test_experts_for_vllm_are_those_for_peft(family, variant, engine, tmp_path):
    directory = tmp_path / "model"
    tiny_models.make(directory, family, **tiny_models.VARIANTS[family][variant])
    options = ["--rank", "4", "--targets", "q_proj", "experts"]
    for name, also in (("stacked", []), ("single", ["--vllm"])):
        engine.make_adapter(directory, tmp_path / name, *options, *also)
    files = {name: load_file(tmp_path / name / "adapter_model.safetensors") for name in ("stacked", "single")}
    batch = reference.random_batch(331, [70])
    ours = {name: engine.logits(directory, batch, lora=tmp_path / name) for name in files}
    assert torch.equal(ours["stacked"], ours["single"])
    # PEFT puts what is single together again, as an adapter of twice the rank.
    expected = reference.logits(load(directory, tmp_path / "single"), batch)
    assert reference.kl(expected, ours["single"]).max() <= KL_BOUND
    if family == "gpt_oss":  # its checkpoints hold no single experts
        assert files["single"].keys() == files["stacked"].keys()
        return
    checkpoint = {name for name in load_file(directory / "model.safetensors") if ".experts." in name}
    pairs = {f"base_model.model.{n.removesuffix('weight')}lora_{ab}.weight" for n in checkpoint for ab in "AB"}
    assert {name for name in files["single"] if ".experts." in name} == pairs


def test_adapter_of_peft_on_experts_goes_on_as_in_peft(engine, tmp_path):
    directory, adapter = tmp_path / "model", tmp_path / "adapter"
    tiny_models.make(directory, "gpt_oss", **tiny_models.VARIANTS["gpt_oss"]["top_3"])
    parameters = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
    config = peft.LoraConfig(r=3, target_modules=["q_proj"], target_parameters=parameters, init_lora_weights=False)
    peft.get_peft_model(reference.load(directory), config).save_pretrained(adapter)
    assert_equals_peft(engine, directory, adapter)


def test_experts_of_some_layers_are_the_same_in_peft(engine, tmp_path):
    directory, adapter = tmp_path / "model", tmp_path / "adapter"
    tiny_models.make(directory, "qwen3_moe", **tiny_models.VARIANTS["qwen3_moe"]["some_dense"])
    engine.make_adapter(directory, adapter, "--rank", "4", "--targets", "all-linear", "model.layers.2.*.experts")
    experts = {name for name in base_names(load(directory, adapter)) if "experts" in name}
    assert experts == {"model.layers.2.mlp.experts", "model.layers.2.mlp.experts.base_layer"}
    assert_equals_peft(engine, directory, adapter)


def test_single_experts_with_two_first_factors_are_refused(engine, tmp_path):
    directory, adapter = tmp_path / "model", tmp_path / "adapter"
    tiny_models.make(directory, "mixtral", **tiny_models.VARIANTS["mixtral"]["plain"])
    engine.make_adapter(directory, adapter, "--rank", "4", "--vllm", "--targets", "experts")
    file = adapter / "adapter_model.safetensors"
    tensors = load_file(file)
    name = "base_model.model.model.layers.1.block_sparse_moe.experts.2.w{}.lora_A.weight"
    save_file(tensors | {name.format(3): tensors[name.format(3)] + 1}, file)
    refusal = engine.refusal("logits", directory, "--lora", adapter)
    assert f"{name.format(1)} and {name.format(3)} must be equal" in refusal
    del tensors[name.format(2)]
    save_file(tensors, file)
    assert f"has no tensor {name.format(2)}" in engine.refusal("logits", directory, "--lora", adapter)


IMPOSSIBLE = {
    "experts without": ("llama", "gqa", ["experts"], 'no module "experts"; there are down_proj, embed_tokens'),
    "dora of experts": ("gpt_oss", "top_3", ["experts", "--dora"], "lora.dora: model.layers.0.mlp.experts"),
    "dora of the head": ("llama", "gqa", ["lm_head", "--dora"], "lora.dora: lm_head is no linear layer"),
    "dropout": ("gpt_oss", "top_3", ["experts", "--dropout", "0.1"], "lora.dropout: adapters on model.layers.0.mlp"),
    "rank": ("gpt_oss", "top_3", ["experts", "--rank", "41"], "lora.rank: 41 is more than model.layers.0.mlp.experts"),
}


@pytest.mark.parametrize("case", IMPOSSIBLE)
def test_what_peft_does_not_have_is_refused(case, engine, tmp_path):
    family, variant, options, message = IMPOSSIBLE[case]
    tiny_models.make(tmp_path / "model", family, **tiny_models.VARIANTS[family][variant])
    assert message in engine.refusal("adapter", tmp_path / "model", "--targets", *options)


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
    refusal = engine.refusal("logits", tmp_path / "other", "--lora", tmp_path / "adapter")
    assert "is of another model than the job's" in refusal
    assert message in refusal
