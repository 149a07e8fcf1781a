# SPDX-License-Identifier: Apache-2.0
"""`temper-rank verify`: every family passes, and every planted bug is caught and located.

What became of the bugs goes to build/reports/planted_bugs.json, and the verdicts on the families, which temper comes
with as common/family_verdicts.json, to build/reports/family_verdicts.json.
"""

import json
import shutil
import sys
import venv
from pathlib import Path

import pytest
import smollm2
import tiny_models
import torch
from safetensors.torch import load_file, save_file
from worker.verify.planted_bugs import BUGS
from worker.verify.verifier import BIN, ROOT, json_verdicts, verify

VARIANTS = {
    family: variants | tiny_models.PUBLISHED.get(family, {}) for family, variants in tiny_models.VARIANTS.items()
}
CASES = [(family, variant) for family, variants in VARIANTS.items() for variant in variants]


@pytest.fixture(scope="module")
def directories(tmp_path_factory):
    """(family, variant) → a tiny model in fp32."""
    folder = tmp_path_factory.mktemp("models")
    made = {}
    for family, variant in CASES:
        made[family, variant] = folder / f"{family}-{variant}"
        tiny_models.make(made[family, variant], family, **VARIANTS[family][variant])
    return made


@pytest.fixture
def llama(directories):
    return directories["llama", "gqa"]


@pytest.fixture(scope="module")
def fp32(directories):
    verdicts = json_verdicts("--layers", "--gradients", "--model", *directories.values())
    return dict(zip(directories, verdicts, strict=True))


@pytest.fixture(scope="module")
def bf16(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bf16")
    directories = [folder / f"{family}-{variant}" for family, variant in CASES]
    for directory, (family, variant) in zip(directories, CASES, strict=True):
        tiny_models.make(directory, family, dtype=torch.bfloat16, **VARIANTS[family][variant])
    verdicts = json_verdicts("--dtype", "bf16", "--model", *directories)
    return dict(zip(CASES, verdicts, strict=True))


@pytest.fixture(scope="module")
def verdict_rows(fp32, bf16):
    """What common/family_verdicts.json has to be, but for the last digits of its figures."""
    rows = {}
    for case, verdict in fp32.items():
        in_bf16 = bf16[case]
        (check,) = in_bf16["logits"]
        theirs = check["transformers_bf16"]
        figures = {
            "max_kl_fp32": max_kl(verdict),
            "max_gradient_error": verdict["gradients"]["max_error"],
            "bf16_mean_ratio": check["mean_kl"] / theirs["mean_kl"],
            "bf16_max_ratio": check["max_kl"] / theirs["max_kl"],
        }
        key = {name: verdict[name] for name in ("family", "architecture", "mechanisms", "device", "numerics_version")}
        row = rows.setdefault(json.dumps(key), key | {"passed": True} | dict.fromkeys(figures, 0.0))
        row["passed"] &= verdict["passed"] and in_bf16["passed"]
        # The worst of all models of the set; three digits say enough.
        row |= {name: max(row[name], float(f"{figure:.2e}")) for name, figure in figures.items()}
    rows = sorted(rows.values(), key=lambda row: (row["family"], row["mechanisms"]))
    path = ROOT / "build/reports/family_verdicts.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n")
    return rows


@pytest.fixture(scope="module")
def planted(directories, tmp_path_factory):
    """Bug's name → verdict."""
    folder = tmp_path_factory.mktemp("planted")
    sound = [directories[bug.family, bug.variant] for bug in BUGS]
    for bug, directory in zip(BUGS, sound):
        bug.write(directory, folder / bug.name)
    native = [folder / bug.name for bug in BUGS]
    found = json_verdicts("--layers", "--model", *sound, "--native-model", *native)
    verdicts = {bug.name: verdict for bug, verdict in zip(BUGS, found, strict=True)}
    path = ROOT / "build/reports/planted_bugs.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [
        {
            "bug": bug.name,
            "caught": is_caught(verdicts[bug.name]),
            "located": located(verdicts[bug.name]) == bug.located,
            "max_kl": max_kl(verdicts[bug.name]),
            "times_bound": max_kl(verdicts[bug.name]) / tiny_models.kl_bound(bug.family),
        }
        for bug in BUGS
    ]
    path.write_text(json.dumps(rows, indent=2) + "\n")
    return verdicts


def max_kl(verdict):
    return max(check["max_kl"] for check in verdict["logits"])


def is_caught(verdict):
    """A hundred times over the bound."""
    return not verdict["passed"] and max_kl(verdict) >= 100 * tiny_models.kl_bound(verdict["family"])


def located(verdict):
    departure = verdict["layers"]["first_departure"]
    return departure and departure["module"]


@pytest.mark.parametrize(("family", "variant"), CASES)
def test_family_passes_in_fp32(family, variant, fp32):
    verdict = fp32[family, variant]
    assert verdict["reasons"] == []
    assert verdict["passed"]
    assert {(check["ids"], check["layout"]) for check in verdict["logits"]} == {
        ("random", "packed"),
        ("random", "padded"),
    }
    for check in verdict["logits"]:
        assert check["positions"] > 100
        assert check["mean_kl"] <= check["max_kl"] <= tiny_models.kl_bound(family)
        assert 0 < check["max_logit_error"] <= 2e-5
        assert check["top1_agreement"] == 1
    assert verdict["not_exercised"] == []


@pytest.mark.parametrize(("family", "variant"), CASES)
def test_every_module_and_gradient_is_compared(family, variant, fp32, directories):
    verdict = fp32[family, variant]
    config = json.loads((directories[family, variant] / "config.json").read_text())
    names = [module["module"] for module in verdict["layers"]["modules"]]
    for layer in range(config["num_hidden_layers"]):
        assert f"model.layers.{layer}.self_attn.o_proj" in names
        experts = family in tiny_models.MOE and layer not in (config.get("mlp_only_layers") or [])
        inner = "block_sparse_moe" if family == "mixtral" else "mlp"
        assert f"model.layers.{layer}.{inner}.{'experts' if experts else 'down_proj'}" in names
    assert names[-2:] == ["model.norm", "lm_head"]
    assert located(verdict) is None
    with_gradient = {row["tensor"] for row in verdict["gradients"]["tensors"]}
    # All that stands in the checkpoint.
    reference = verdict["gradients"]
    assert with_gradient == tensor_names(directories[family, variant])
    assert 0 < reference["max_error"] <= 1e-4
    assert reference["unmatched"] == []


def tensor_names(directory: Path) -> set[str]:
    with (directory / "model.safetensors").open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return header.keys() - {"__metadata__"}


@pytest.mark.parametrize(("family", "variant"), CASES)
def test_family_passes_in_bf16(family, variant, bf16):
    verdict = bf16[family, variant]
    assert verdict["reasons"] == []
    (check,) = verdict["logits"]
    assert check["positions"] >= 4096
    if family in tiny_models.MOE:
        assert 0 < check["routing_flips"] < 24 * 256 / 3
    assert 0 < check["mean_kl"] <= 1.25 * check["transformers_bf16"]["mean_kl"]
    assert 0 < check["max_kl"] <= 3 * check["transformers_bf16"]["max_kl"]


# Rows of a router of three experts, over the first dimensions of what it reads. Nearly all tokens have (0, 0, 1) there,
# some (1, 1, 0): these go to expert 1.
FAR_APART = [[0, 0, 0], [1, 0, 0], [0, 0, 1]]
# The same, but where the router is rounded to bf16 they go to expert 0: 3/512 is less than 3.5/512, and becomes 4/512.
NEAR_IN_FP32 = [[1 + 3 / 512, -1, 0], [3.5 / 512, 0, 0], [0, 0, 1]]
# The some go where they went, all others to expert 0.
OTHERS_ELSEWHERE = [[0, 0, 1], [1, 0, 0], [0, 0, 0]]
# The router that transformers has, and ours.
ROUTERS = {
    "both far apart": (FAR_APART, FAR_APART),
    "both flip": (NEAR_IN_FP32, NEAR_IN_FP32),
    "transformers flips": (NEAR_IN_FP32, FAR_APART),
    "ours flips": (FAR_APART, NEAR_IN_FP32),
    "ours flips the others": (FAR_APART, OTHERS_ELSEWHERE),
}


@pytest.fixture
def routed(tmp_path):
    """Which routers → verdict in bf16 on a Mixtral whose tokens choose by themselves: attention adds nothing."""
    options = {"num_hidden_layers": 1, "num_local_experts": 3, "num_experts_per_tok": 1}
    tiny_models.make(tmp_path / "plain", "mixtral", **options)
    tensors = load_file(tmp_path / "plain/model.safetensors")
    some = torch.arange(len(tensors["model.embed_tokens.weight"])) % 5 == 0
    tensors["model.embed_tokens.weight"][:, :3] = torch.where(
        some[:, None], torch.tensor([1.0, 1.0, 0.0]), torch.tensor([0.0, 0.0, 1.0])
    )
    tensors["model.layers.0.self_attn.o_proj.weight"].zero_()
    tensors["model.layers.0.post_attention_layernorm.weight"].fill_(1)

    def directory(name, rows):
        shutil.copytree(tmp_path / "plain", tmp_path / name)
        router = torch.zeros_like(tensors["model.layers.0.block_sparse_moe.gate.weight"])
        router[:, :3] = torch.tensor(rows)
        changed = tensors | {"model.layers.0.block_sparse_moe.gate.weight": router}
        save_file(changed, tmp_path / name / "model.safetensors", metadata={"format": "pt"})
        return tmp_path / name

    models = [directory(f"{name}, theirs", theirs) for name, (theirs, _) in ROUTERS.items()]
    native = [directory(f"{name}, ours", ours) for name, (_, ours) in ROUTERS.items()]
    verdicts = json_verdicts("--dtype", "bf16", "--model", *models, "--native-model", *native)
    return dict(zip(ROUTERS, verdicts, strict=True))


def test_positions_with_other_experts_are_counted_and_left_out(routed):
    positions = 24 * 256
    checks = {name: verdict["logits"][0] for name, verdict in routed.items()}
    flips = {name: check["routing_flips"] for name, check in checks.items()}
    some = flips["both flip"]
    assert abs(some - positions / 5) < 5 * (positions * 0.2 * 0.8) ** 0.5  # of random tokens
    assert flips == {
        "both far apart": 0,
        "both flip": some,
        "transformers flips": some,
        "ours flips": some,
        "ours flips the others": positions - some,
    }
    assert {name: check["positions"] + flips[name] for name, check in checks.items()} == dict.fromkeys(
        ROUTERS, positions
    )
    # Other experts say something else altogether: what is left out does not count against the bounds.
    reasons = {name: verdict["reasons"] for name, verdict in routed.items()}
    too_few = reasons.pop("ours flips the others")
    assert reasons == dict.fromkeys(reasons, [])
    assert len(too_few) == 1
    assert str(some) in too_few[0]


def test_verdicts_that_temper_comes_with_are_those_that_were_found(verdict_rows):
    """If this fails because a mechanism or a family is new: copy the report over the file."""
    shipped = json.loads((ROOT / "common/family_verdicts.json").read_text())
    figures = ("max_kl_fp32", "max_gradient_error", "bf16_mean_ratio", "bf16_max_ratio")
    assert [{k: v for k, v in row.items() if k not in figures} for row in shipped] == [
        {k: v for k, v in row.items() if k not in figures} for row in verdict_rows
    ]
    assert len({row["family"] for row in shipped}) == len(VARIANTS)
    for row, found in zip(shipped, verdict_rows, strict=True):
        assert row["passed"]
        # What rounding does differs from one processor to the next, but not by orders of magnitude. A KL is its square.
        for figure in figures:
            times = 100 if figure == "max_kl_fp32" else 10
            assert row[figure] / times <= found[figure] <= row[figure] * times, (row["mechanisms"], figure)


# Parts that begin with each kind of layer.
@pytest.mark.parametrize(
    ("family", "variant", "layers", "at_a_time"),
    [("gemma3_text", "windows", 14, 6), ("smollm3", "every_fourth", 10, 4), ("qwen3_moe", "some_dense", 5, 2)],
)
def test_layers_part_by_part(family, variant, layers, at_a_time, tmp_path):
    options = VARIANTS[family][variant] | {"num_hidden_layers": layers}
    tiny_models.make(tmp_path / "model", family, **options)
    parts = json_verdicts("--layers-at-a-time", at_a_time, "--layers", "--model", tmp_path / "model")
    assert [verdict["reasons"] for verdict in parts] == [[]] * len(parts)
    seen = []
    for verdict in parts:
        assert verdict["layers_of"]["first"] == len(seen)
        names = [module["module"] for module in verdict["layers"]["modules"]]
        compared = {int(name.split(".")[2]) for name in names if name.startswith("model.layers.")}
        assert compared == set(range(verdict["layers_of"]["count"]))
        seen += [len(seen) + layer for layer in compared]
    assert seen == list(range(layers))


def test_bug_in_one_part_is_seen_there_alone(tmp_path):
    options = VARIANTS["smollm3"]["every_fourth"] | {"num_hidden_layers": 8}
    tiny_models.make(tmp_path / "model", "smollm3", **options)
    shutil.copytree(tmp_path / "model", tmp_path / "planted")
    config = json.loads((tmp_path / "model/config.json").read_text())
    config["no_rope_layers"][5] = 0
    (tmp_path / "planted/config.json").write_text(json.dumps(config))
    planted = ("--model", tmp_path / "model", "--native-model", tmp_path / "planted")
    verdicts = json_verdicts(*planted, "--layers-at-a-time", 4)
    assert [verdict["passed"] for verdict in verdicts] == [True, False]


@pytest.mark.parametrize("layers", [4, pytest.param(smollm2.LAYERS, marks=pytest.mark.long)])
def test_smollm2_passes_with_texts(layers, tmp_path):
    model = smollm2.first_layers(layers, tmp_path / "model")
    (verdict,) = json_verdicts("--model", model, "--layers", "--gradients")
    assert verdict["reasons"] == []
    texts = [check for check in verdict["logits"] if check["ids"] == "text"]
    assert texts[0]["positions"] > 200
    assert len(verdict["layers"]["modules"]) == layers * 9 + 2
    assert located(verdict) is None


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_planted_bug_is_caught_and_located(bug, planted):
    assert is_caught(planted[bug.name])
    assert located(planted[bug.name]) == bug.located


def test_attention_that_departs_is_told_from_its_projections(planted):
    departure = planted["window_off_by_one"]["layers"]["first_departure"]
    assert departure["what"].startswith("attention itself")
    assert departure["relative_error"] > 1e-3


def test_planted_bug_shows_in_gradients_and_in_bf16(llama, tmp_path):
    bug = next(bug for bug in BUGS if bug.name == "norm_epsilon_1e_2")
    bug.write(llama, tmp_path / "planted")
    planted = ("--model", llama, "--native-model", tmp_path / "planted")
    (fp32,) = json_verdicts(*planted, "--gradients")
    assert any(reason.startswith("the gradient of model.layers.") for reason in fp32["reasons"])
    (bf16,) = json_verdicts(*planted, "--layers", "--dtype", "bf16")
    assert not bf16["passed"]
    assert located(bf16) == bug.located


def test_table_is_for_people_and_exit_code_for_scripts(llama, tmp_path):
    run = verify("--model", llama)
    assert run.code == 0
    assert "random, packed" in run.out
    assert run.out.endswith("PASSED\n")

    bug = next(bug for bug in BUGS if bug.name == "wrong_tie")
    bug.write(llama, tmp_path / "planted")
    run = verify("--layers", "--model", llama, "--native-model", tmp_path / "planted")
    assert run.code == 1
    assert "first departure: lm_head" in run.out
    assert "largest KL is" in run.out
    assert run.out.endswith("FAILED\n")


def test_model_that_cannot_be_compared_is_exit_code_2(llama, tmp_path):
    config = json.loads((llama / "config.json").read_text())
    shutil.copytree(llama, tmp_path / "unknown")
    (tmp_path / "unknown/config.json").write_text(json.dumps(config | {"architectures": ["NoSuchForCausalLM"]}))
    run = verify("--output", "json", "--model", tmp_path / "missing", tmp_path / "unknown", llama)
    assert run.code == 2
    assert "missing" in run.errors
    assert "NoSuchForCausalLM is not supported" in run.errors
    # The others are compared all the same.
    assert [verdict["passed"] for verdict in run.verdicts] == [True]

    run = verify("--model", llama, "--gradients", "--dtype", "bf16")
    assert run.code == 2
    assert "fp32 only" in run.errors


def test_window_that_no_document_reaches_is_named(directories, tmp_path):
    sound = directories["mistral", "window"]
    config = json.loads((sound / "config.json").read_text())
    for window in (300, 4096):
        shutil.copytree(sound, tmp_path / str(window))
        (tmp_path / f"{window}/config.json").write_text(json.dumps(config | {"sliding_window": window}))
    reached, unreached = json_verdicts("--model", tmp_path / "300", tmp_path / "4096")
    assert reached["not_exercised"] == []
    assert reached["logits"][0]["positions"] > 300
    assert unreached["not_exercised"] == ["the window of 4096 tokens"]
    assert unreached["passed"]


def test_build_without_python_says_what_to_install(llama, tmp_path):
    shutil.copy(BIN / "temper-rank", tmp_path / "temper-rank")
    run = verify("--model", llama, binary=tmp_path / "temper-rank")
    assert run.code == 2
    assert "built without Python" in run.errors
    assert "python3-dev" in run.errors


def test_environment_without_transformers_is_named(llama, tmp_path):
    run = verify("--model", llama, TEMPER_PYTHON=str(tmp_path / "nowhere/bin/python"))
    assert run.code == 2
    assert "set TEMPER_PYTHON" in run.errors

    venv.create(tmp_path / "empty", symlinks=True)
    run = verify("--model", llama, TEMPER_PYTHON=str(tmp_path / "empty/bin/python"))
    assert run.code == 2
    assert "lacks something: ModuleNotFoundError" in run.errors

    run = verify("--model", llama, TEMPER_PYTHON=sys.executable)
    assert run.code == 0
