# SPDX-License-Identifier: Apache-2.0
"""Models without a native family, trained by transformers in the rank's process: as a plain loop of transformers does.

What came out goes to build/reports/fallback.json.
"""

import json

import peft
import pytest
import torch
from e2e import tiny_chat_model
from safetensors.torch import load_file
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast
from worker.hf_backend.fallback_run import LEARNING_RATE, STEPS, checkpoint, job, run
from worker.train.training_run import ROOT, digests

from worker.hf_backend import architectures

REPORT = ROOT / "build/reports/fallback.json"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fallback")
    tiny_chat_model.write_data(folder / "train.jsonl", repeat=1)
    for name in architectures.ARCHITECTURES:
        architectures.make(folder / name, name)
    tiny_chat_model.write_model(folder / "llama")
    return folder


# Linear layers that lie transposed, and ones of which PEFT knows the names by itself.
ADAPTED = {"gpt2": ["c_attn", "c_proj"], "bloom": ["query_key_value"]}


@pytest.fixture(scope="module")
def adapters(folder):
    """PEFT's own, which change what the model computes."""
    for name, targets in ADAPTED.items():
        torch.manual_seed(1)
        model = AutoModelForCausalLM.from_pretrained(folder / name, dtype=torch.float32)
        config = peft.LoraConfig(r=4, target_modules=targets, init_lora_weights=False, task_type="CAUSAL_LM")
        peft.get_peft_model(model, config).save_pretrained(folder / f"{name}-adapter")


@pytest.fixture(scope="module")
def trained(folder, adapters):
    """job → its lines: of a run of each architecture, of one that goes on in the middle of it, and of adapters; and
    the log of all."""
    names = list(architectures.ARCHITECTURES)
    jobs = {f"{name}-whole": job(folder, name, f"{name}-whole") for name in names}
    for name in names:
        middle = checkpoint(folder / f"{name}-whole", STEPS // 2)
        jobs[f"{name}-resumed"] = job(folder, name, f"{name}-resumed", resume_from=str(middle))
    for name in ADAPTED:
        begun = {"lora": {"adapter": str(folder / f"{name}-adapter")}}
        jobs[f"{name}-adapted"] = job(folder, name, f"{name}-adapted", **begun)
        jobs[f"{name}-adapted"]["output"]["adapters"] = "ADAPTERS_BOTH"
        middle = checkpoint(folder / f"{name}-adapted", STEPS // 2)
        jobs[f"{name}-adapted-resumed"] = job(folder, name, f"{name}-adapted-resumed", resume_from=str(middle), **begun)
    runs, log = run(folder, jobs.values())
    return dict(zip(jobs, runs, strict=True)), log


def losses(lines):
    return [line["loss"] for line in lines if "loss" in line]


def scored(directory):
    """Ids of each conversation, and its labels: answers, with the token that ends them."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(directory)
    for messages in tiny_chat_model.conversations():
        question = tokenizer.apply_chat_template(messages[:1], tokenize=False, add_generation_prompt=True)
        answer = messages[1]["content"] + "<|im_end|>"
        head, tail = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in (question, answer))
        yield torch.tensor([head + tail]), torch.tensor([[-100] * len(head) + tail])


def train_plainly(directory, adapter=None):
    """Losses of a loop over transformers' model, or over PEFT's adapter on it, and the model."""
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32, attn_implementation="eager")
    if adapter is not None:
        model = peft.PeftModel.from_pretrained(model, adapter, is_trainable=True)
    model.train()
    trained = [p for p in model.parameters() if p.requires_grad]
    decayed = [p for p in trained if p.dim() > 1]
    plain = [p for p in trained if p.dim() == 1]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=LEARNING_RATE)
    ids, labels = zip(*((ids[0], labels[0]) for ids, labels in scored(directory)), strict=True)
    mask = pad_sequence([torch.ones_like(each) for each in ids], batch_first=True)
    ids = pad_sequence(ids, batch_first=True)
    labels = pad_sequence(labels, batch_first=True, padding_value=-100)
    found = []
    for _ in range(STEPS):
        logits = model(ids, attention_mask=mask, use_cache=False).logits[:, :-1]
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        found.append(loss.item())
    return found, model.eval()


def export_equals(export, last_checkpoint, reference):
    """What transformers reads from the export is what was trained: to the bit, and near enough by a plain loop."""
    model, info = AutoModelForCausalLM.from_pretrained(export, output_loading_info=True)
    weights = load_file(last_checkpoint / "weights/model.safetensors")
    exported = load_file(export / "model.safetensors")
    same = weights.keys() == exported.keys() and all(torch.equal(weights[name], exported[name]) for name in weights)
    clean = not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    ids, _ = next(scored(export))
    with torch.no_grad():
        ours, theirs = (each.eval()(ids, use_cache=False).logits for each in (model, reference))
    return same and clean and bool((ours - theirs).abs().max() < 0.02 * theirs.abs().max())


def test_each_architecture_trains_as_transformers_does(folder, trained):
    runs, log = trained
    report = []
    for name in architectures.ARCHITECTURES:
        whole, resumed = runs[f"{name}-whole"], runs[f"{name}-resumed"]
        expected, model = train_plainly(folder / name)
        found = losses(whole)
        assert len(found) == STEPS
        assert found[-1] < 0.7 * found[0], f"{name} learns nothing"
        export = folder / f"{name}-whole/local/export-e0001"
        report.append(
            {
                "architecture": type(model).__name__,
                "loss_curve_max_rel_diff": max(abs(a - b) / b for a, b in zip(found, expected, strict=True)),
                # The whole run leaves its last one out if the first is not written yet; to the other it is the first.
                "export_equal": export_equals(export, checkpoint(folder / f"{name}-resumed", STEPS), model),
                "resume_identical": losses(resumed) == found[STEPS // 2 :]
                and digests(folder / f"{name}-resumed/local/export-e0001") == digests(export),
                "packed": f"documents of {type(model).__name__} are not packed" not in log,
            }
        )
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    REPORT.write_text(json.dumps(report, indent=2) + "\n")
    for row, name in zip(report, architectures.ARCHITECTURES, strict=True):
        assert row["loss_curve_max_rel_diff"] <= 1e-3, row
        assert row["export_equal"], row
        assert row["resume_identical"], row
        assert row["packed"] == (name in architectures.PACKED), row


@pytest.mark.parametrize("name", ADAPTED)
def test_adapters_train_as_peft_does(name, folder, trained):
    runs, _ = trained
    expected, reference = train_plainly(folder / name, folder / f"{name}-adapter")
    found = losses(runs[f"{name}-adapted"])
    assert found == pytest.approx(expected, rel=1e-3)
    assert losses(runs[f"{name}-adapted-resumed"]) == found[STEPS // 2 :]
    export = folder / f"{name}-adapted/local/export-e0001"
    base = AutoModelForCausalLM.from_pretrained(folder / name, dtype=torch.float32)
    adapted = peft.PeftModel.from_pretrained(base, export / "adapter")
    merged = AutoModelForCausalLM.from_pretrained(export, dtype=torch.float32)
    ids, _ = next(scored(folder / name))
    with torch.no_grad():
        logits = [model.eval()(ids, use_cache=False).logits for model in (reference, adapted, merged)]
    torch.testing.assert_close(logits[2], logits[1], rtol=1e-4, atol=1e-4)
    assert (logits[1] - logits[0]).abs().max() < 0.02 * logits[0].abs().max()
    resumed = folder / f"{name}-adapted-resumed/local/export-e0001"
    assert digests(resumed) == digests(export / "adapter")


def test_log_says_what_is_done_otherwise(trained):
    _, log = trained
    assert "documents of BloomForCausalLM are not packed but rows of their own" in log
    assert "the logits of CohereForCausalLM are more than a product with its head" in log
    assert "the logits of PhiForCausalLM are more than a product with its head" in log
    assert "the logits of GPT2LMHeadModel" not in log


def test_llama_has_the_same_losses_on_both_backends(folder):
    runs, _ = run(
        folder, [job(folder, "llama", f"llama-{b}", backend=f"BACKEND_{b.upper()}") for b in ("native", "hf")]
    )
    assert [next(line["backend"] for line in lines if "backend" in line) for lines in runs] == ["native", "hf"]
    native, hf = map(losses, runs)
    assert native == pytest.approx(hf, rel=1e-5)
    # FLOPs are counted by one rule: what backward computes again is the same part of them.
    again = [[line["hfu"] / line["mfu"] for line in lines if "loss" in line] for lines in runs]
    assert again[1] == pytest.approx(again[0], rel=1e-9)


def test_mfu_is_absent_where_flops_are_not_known(trained):
    runs, _ = trained
    for name in architectures.ARCHITECTURES:
        figures = [line["mfu"] for line in runs[f"{name}-whole"] if "loss" in line]
        assert [figure is not None for figure in figures] == [name in architectures.COUNTED] * STEPS
