# SPDX-License-Identifier: Apache-2.0
"""20 steps of ours and of TRL's DPOTrainer and RewardTrainer, from the same weights over the same texts, in fp32.

    PYTHONPATH=tests:tests/parity build/bench-venv/bin/python tests/bench/trl_parity.py [sigmoid hinge …]

Each is a job of temper-rank as a user would write it, so tokenisation and scoring are compared as well. Prints a table,
writes its rows of build/reports/objectives.json, and ends with 1 where a bound does not hold. TRL has its own
environment (`make bench` makes it); tests/parity/test_preference_losses.py and test_reward_losses.py have the formulas
in the ordinary one.
"""

import itertools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import datasets
import objectives_report
import peft
import torch
import transformers
import trl
from e2e import tiny_chat_model
from safetensors.torch import load_file

ROOT = Path(__file__).resolve().parents[2]
RANK = Path(os.environ.get("TEMPER_BIN", ROOT / "build/release/bin")) / "temper-rank"
STEPS = 20
LEARNING_RATE = 1e-3
BETA = 0.3
LORA = {"rank": 4, "alpha": 8}
FIRST_BOUND, CURVE_BOUND = 1e-5, 1e-3


@dataclass(frozen=True)
class Case:
    """A method of ours, and what TRL calls the same."""

    name: str
    method: dict
    trainer: type
    config: Callable
    figures: tuple[str, ...]
    model_class: type
    lora: dict


PREFERENCE_FIGURES = tuple(f"rewards/{name}" for name in ("chosen", "rejected", "margins", "accuracies"))
PREFERENCE_FIGURES += ("logps/chosen", "logps/rejected")


def preference(name: str, **method) -> Case:
    return Case(
        name=name,
        method={"preference": {"beta": BETA, **method}},
        trainer=trl.DPOTrainer,
        config=partial(trl.DPOConfig, loss_type=[name], beta=BETA),
        figures=PREFERENCE_FIGURES,
        model_class=transformers.AutoModelForCausalLM,
        lora={"task_type": "CAUSAL_LM"},
    )


def reward(name: str, centering: float) -> Case:
    return Case(
        name=name,
        method={"reward": {"centering": centering}},
        trainer=trl.RewardTrainer,
        config=partial(trl.RewardConfig, center_rewards_coefficient=centering or None),
        figures=("accuracy", "margin", "mean_reward", "min_reward", "max_reward"),
        model_class=transformers.AutoModelForSequenceClassification,
        lora={"task_type": "SEQ_CLS", "modules_to_save": ["score"]},
    )


CASES = (
    preference("sigmoid", loss="LOSS_SIGMOID"),
    preference("sigmoid_norm", loss="LOSS_SIGMOID", length_normalized=True),
    preference("ipo", loss="LOSS_IPO"),
    preference("hinge", loss="LOSS_HINGE"),
    reward("reward", centering=0),
    reward("reward, centred", centering=0.05),
)


def pairs() -> list[dict]:
    found = []
    for i, (question, answer) in enumerate(tiny_chat_model.conversations()):
        other = answer["content"].replace(tiny_chat_model.COLOURS[i], tiny_chat_model.COLOURS[i - 1] + " or so")
        found.append({"prompt": question["content"], "chosen": " " + answer["content"], "rejected": " " + other})
    return found


def write_reward_model(language: Path, path: Path) -> None:
    """Both begin with the same score."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(language)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(
        language, num_labels=1, pad_token_id=tokenizer.pad_token_id
    )
    torch.manual_seed(5)
    torch.nn.init.normal_(model.score.weight, std=0.3)
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)


def run_ours(case: Case, model: Path, data: Path, output: Path, lora: bool) -> list[dict]:
    """Lines of the steps. A row has room for all pairs, so that a step takes each once."""
    job = {
        "model": {"uri": str(model)},
        "data": {"uri": str(data), "max_sample_tokens": 256},
        "method": case.method,
        "training": {
            "epochs": STEPS,
            "tokens_per_step": 2048,
            "micro_batch_tokens": 2048,
            "learning_rate": LEARNING_RATE,
            "schedule": "SCHEDULE_CONSTANT",
            "warmup_steps": 0,
            "precision": "PRECISION_FP32",
        },
        "output": {"uri": str(output)},
        "checkpoints": {"every_steps": 1, "keep_last": 1000},
    }
    if lora:
        job["lora"] = LORA
    file = output.with_suffix(".json")
    file.write_text(json.dumps(job))
    environment = os.environ | {"TEMPER_PYTHON": "/none"}
    result = subprocess.run([RANK, "train", file], capture_output=True, text=True, check=False, env=environment)
    assert result.returncode == 0, result.stderr
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    return [line for line in lines if "grad_norm" in line]


def keeping_losses(trainer: type) -> type:
    """Logs round them."""

    class Trainer(trainer):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            self.losses = []

        def compute_loss(self, *arguments, **options):
            loss = super().compute_loss(*arguments, **options)
            self.losses.append((loss[0] if isinstance(loss, tuple) else loss).item())
            return loss

    return Trainer


def run_theirs(case: Case, model: Path, data: list[dict], folder: Path, first_adapter: Path | None) -> list[dict]:
    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    policy = case.model_class.from_pretrained(model, dtype=torch.float32)
    if first_adapter is not None:
        config = peft.LoraConfig(r=LORA["rank"], lora_alpha=LORA["alpha"], target_modules="all-linear", **case.lora)
        policy = peft.get_peft_model(policy, config)
        # B is zero before the first step, and so A has no gradient in it: after it, A is what it was at the start.
        drawn = load_file(first_adapter / "adapter_model.safetensors")
        drawn = {
            name.replace("lora_A.weight", "lora_A.default.weight"): tensor.float()
            for name, tensor in drawn.items()
            if "lora_A" in name
        }
        assert not policy.load_state_dict(drawn, strict=False).unexpected_keys
    arguments = case.config(
        output_dir=str(folder),
        max_length=None,
        per_device_train_batch_size=len(data),
        num_train_epochs=STEPS,
        learning_rate=LEARNING_RATE,
        lr_scheduler_type="constant",
        max_grad_norm=1.0,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        bf16=False,
        use_cpu=True,
        gradient_checkpointing=False,
        disable_tqdm=True,
    )
    trainer = keeping_losses(case.trainer)(
        model=policy, args=arguments, train_dataset=datasets.Dataset.from_list(data), processing_class=tokenizer
    )
    trainer.train()
    logged = [line for line in trainer.state.log_history if case.figures[0] in line]
    return [line | {"loss": loss} for loss, line in zip(trainer.losses, logged, strict=True)]


def compare(name: str, figures: tuple[str, ...], ours: list[dict], theirs: list[dict]) -> bool:
    passed = True

    def check(what: str, mine: float, reference: float, bound: float) -> None:
        nonlocal passed
        error = abs(mine - reference) / max(abs(reference), 1e-2)  # of what is about zero at first, absolute
        objectives_report.add(name, f"TRL {trl.__version__}, {what}", mine, reference, error <= bound)
        passed = passed and error <= bound
        print(f"{name:24} {what:36} {mine:14.8f} {reference:14.8f} {error:9.1e} {'' if error <= bound else 'TOO FAR'}")

    assert len(ours) == len(theirs) == STEPS
    check("loss of step 1", ours[0]["loss"], theirs[0]["loss"], FIRST_BOUND)
    check("gradient norm of step 1", ours[0]["grad_norm"], float(theirs[0]["grad_norm"]), 1e-4)
    worst = max(range(STEPS), key=lambda i: abs(ours[i]["loss"] / theirs[i]["loss"] - 1) if theirs[i]["loss"] else 0)
    check(f"loss of step {worst + 1}, the farthest", ours[worst]["loss"], theirs[worst]["loss"], CURVE_BOUND)
    for figure in figures:
        check(f"{figure} of step 1", ours[0]["objective"][figure], theirs[0][figure], FIRST_BOUND)
        check(f"{figure} of step {STEPS}", ours[-1]["objective"][figure], theirs[-1][figure], CURVE_BOUND)
    return passed


def main() -> int:
    transformers.logging.set_verbosity_error()
    passed = True
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        tiny_chat_model.write_model(folder / "language", hidden_size=96, intermediate_size=192)
        write_reward_model(folder / "language", folder / "scores")
        data = pairs()
        (folder / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in data))
        wanted = [case for case in CASES if case.name in (sys.argv[1:] or [case.name])]
        for lora, case in itertools.product((True, False), wanted):
            name = f"{case.name}, {'lora' if lora else 'full'}"
            model = folder / ("scores" if "reward" in case.method else "language")
            output = folder / name.replace(", ", "-")
            ours = run_ours(case, model, folder / "pairs.jsonl", output, lora)
            first = output / "local/checkpoints/step-00000001-e0001/weights" if lora else None
            theirs = run_theirs(case, model, data, folder / "trl", first)
            passed = compare(name, case.figures, ours, theirs) and passed
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
