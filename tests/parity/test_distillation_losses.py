# SPDX-License-Identifier: Apache-2.0
"""Distillation against a plain loop of transformers and PEFT, in fp32, by the formula of TRL's GKD trainer.

Each test writes its rows of build/reports/objectives.json.
"""

import dataclasses

import objectives_report
import pytest
import reference
import tiny_models
import torch
import torch.nn.functional as F
from test_lora import load, serialized

LOSS_BOUND = 1e-5
GRADIENT_BOUND = 1e-4
CURVE_BOUND = 1e-3
FIGURE_BOUND = 1e-5


@dataclasses.dataclass
class Objective:
    divergence: str = "forward_kl"
    temperature: float = 1
    teacher_weight: float = 0.5
    sft_weight: float = 0

    def options(self):
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    def flags(self):
        return [x for name, value in self.options().items() for x in (f"--{name.replace('_', '-')}", str(value))]

    def per_token(self, student, teacher):
        """Generalised Jensen-Shannon divergence of logits [rows, V]; its ends are the two KL divergences."""
        beta = {"forward_kl": 0.0, "reverse_kl": 1.0, "jsd": self.teacher_weight}[self.divergence]
        student, teacher = ((logits / self.temperature).log_softmax(-1) for logits in (student, teacher))

        def kl(to, of):  # KL(of ‖ to)
            return F.kl_div(to, of, reduction="none", log_target=True).sum(-1)

        if beta == 0:
            return kl(student, teacher)
        if beta == 1:
            return kl(teacher, student)
        weights = torch.tensor([1 - beta, beta]).log()
        mixture = torch.logsumexp(torch.stack([student + weights[0], teacher + weights[1]]), dim=0)
        return beta * kl(mixture, teacher) + (1 - beta) * kl(mixture, student)


OBJECTIVES = {
    "distillation, forward KL": Objective(),
    "distillation, forward KL at temperature 2": Objective(temperature=2),
    "distillation, reverse KL": Objective("reverse_kl"),
    "distillation, JSD": Objective("jsd", temperature=0.9),
    "distillation, JSD with cross-entropy": Objective("jsd", teacher_weight=0.2, sft_weight=0.3),
}


def evaluate(model, teacher, batches, objective):
    """(loss, figures): means over the scored tokens of all batches."""
    rows = {name: [] for name in ("divergence", "cross_entropy", "teacher_cross_entropy", "agreement")}
    for batch in batches:
        for span in batch.documents():
            scored = batch.mask[span].bool()
            targets = batch.targets[span][scored]
            ours = model(batch.ids[span][None], use_cache=False).logits[0][scored].float()
            with torch.no_grad():
                theirs = teacher(batch.ids[span][None], use_cache=False).logits[0][scored].float()
            common = min(ours.shape[-1], theirs.shape[-1])
            rows["cross_entropy"].append(F.cross_entropy(ours, targets, reduction="none"))
            ours, theirs = ours[:, :common], theirs[:, :common]
            rows["divergence"].append(objective.per_token(ours, theirs))
            rows["teacher_cross_entropy"].append(F.cross_entropy(theirs, targets, reduction="none"))
            rows["agreement"].append((ours.argmax(-1) == theirs.argmax(-1)).float())
    means = {name: torch.cat(values).mean() for name, values in rows.items()}
    loss = (1 - objective.sft_weight) * means["divergence"] + objective.sft_weight * means["cross_entropy"]
    return loss, {f"distillation/{name}": value.item() for name, value in means.items()}


def batches_of(*seeds):
    return [reference.random_batch(331, (40, 25, 60), seed) for seed in seeds]


@pytest.fixture
def models(tmp_path):
    """A student and a teacher of another family, width and depth, whose embedding has more spare rows."""
    tiny_models.make(tmp_path / "model")
    tiny_models.make(
        tmp_path / "teacher", "qwen2", **tiny_models.ODD_HEADS, num_hidden_layers=4, vocab_size=340, seed=9
    )
    return tmp_path / "model", tmp_path / "teacher"


def check(name, what, ours, theirs, passed):
    objectives_report.add(name, what, ours, theirs, bool(passed))
    assert passed, (what, ours, theirs)


def assert_step_equals(name, model, gradients_of, engine, models, *options):
    objective = OBJECTIVES[name.removesuffix(", LoRA")]
    batches = batches_of(1, 2)
    loss, figures = evaluate(model, reference.load(models[1]), batches, objective)
    loss.backward()
    our_loss, out = engine.gradients(models[0], batches, "--teacher", models[1], *objective.flags(), *options)
    ours = {key.removeprefix("figures."): out.pop(key).item() for key in list(out) if key.startswith("figures.")}
    errors = reference.gradient_errors(gradients_of(model), out)
    check(name, "loss", our_loss, loss.item(), our_loss == pytest.approx(loss.item(), rel=LOSS_BOUND))
    check(name, "largest relative error of a gradient", max(errors.values()), 0, max(errors.values()) <= GRADIENT_BOUND)
    assert ours.keys() == figures.keys()
    for figure, value in figures.items():
        check(name, figure, ours[figure], value, ours[figure] == pytest.approx(value, rel=FIGURE_BOUND))


@pytest.mark.parametrize("name", OBJECTIVES)
def test_first_step_equals_transformers(name, engine, models):
    def gradients_of(model):
        return {parameter: p.grad for parameter, p in model.named_parameters()}

    assert_step_equals(name, reference.load(models[0]).train(), gradients_of, engine, models)


def test_first_step_with_adapters_equals_peft(engine, models, tmp_path):
    adapter = tmp_path / "adapter"
    engine.make_adapter(models[0], adapter, "--rank", "4", "--alpha", "6", "--targets", "all-linear", "lm_head")
    model = load(models[0], adapter, is_trainable=True).train()
    assert_step_equals("distillation, JSD, LoRA", model, serialized, engine, models, "--lora", adapter)


@pytest.mark.parametrize("name", ["distillation, forward KL at temperature 2", "distillation, JSD with cross-entropy"])
def test_20_adamw_steps_follow_transformers(name, engine, models):
    objective = OBJECTIVES[name]
    batches = batches_of(*(seed % 4 for seed in range(20)))
    model, teacher = reference.load(models[0]).train(), reference.load(models[1])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0)
    losses = []
    for batch in batches:
        optimizer.zero_grad()
        loss, _ = evaluate(model, teacher, [batch], objective)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    options = {"teacher": models[1], "learning_rate": 1e-3, "max_grad_norm": 1.0} | objective.options()
    ours, _ = engine.train(models[0], batches, **options)
    error = max(abs(a / b - 1) for a, b in zip(ours.tolist(), losses, strict=True))
    check(name, "last loss of 20 steps", ours[-1].item(), losses[-1], error <= CURVE_BOUND)
    assert losses[-1] < losses[0]


def with_tail(logprobs):
    """With the probability of all other tokens as one more class."""
    return torch.cat([logprobs, torch.log1p(-logprobs.exp().sum(-1, keepdim=True))], dim=-1)


def test_first_step_from_stored_tokens_equals_transformers(engine, models):
    """As TRL's trainers do it that get a teacher's most probable tokens from a server."""
    name, batches = "distillation, stored", batches_of(1, 2)
    model, teacher = reference.load(models[0]).train(), reference.load(models[0].parent / "teacher")
    divergences, agreements, cross_entropies = [], [], []
    for batch in batches:
        stored = []
        for span in batch.documents():
            scored = batch.mask[span].bool()
            ours = model(batch.ids[span][None], use_cache=False).logits[0][scored].float().log_softmax(-1)
            with torch.no_grad():
                theirs = teacher(batch.ids[span][None], use_cache=False).logits[0][scored].float()
            theirs = theirs[:, : ours.shape[-1]].log_softmax(-1).topk(5)
            stored.append(theirs)
            q, p = with_tail(ours.gather(1, theirs.indices)), with_tail(theirs.values)
            divergences.append(F.kl_div(q, p, reduction="none", log_target=True).sum(-1))
            agreements.append((ours.argmax(-1) == theirs.indices[:, 0]).float())
            cross_entropies.append(F.nll_loss(ours, batch.targets[span][scored], reduction="none"))
        batch.teacher = {
            "teacher_tokens": torch.cat([each.indices for each in stored]),
            "teacher_logprobs": torch.cat([each.values for each in stored]),
        }
    loss = 0.8 * torch.cat(divergences).mean() + 0.2 * torch.cat(cross_entropies).mean()
    loss.backward()
    our_loss, out = engine.gradients(models[0], batches, "--stored-teacher", "--sft-weight", "0.2")
    figures = {key: out.pop(key).item() for key in list(out) if key.startswith("figures.")}
    errors = reference.gradient_errors({parameter: p.grad for parameter, p in model.named_parameters()}, out)
    check(name, "loss", our_loss, loss.item(), our_loss == pytest.approx(loss.item(), rel=LOSS_BOUND))
    check(name, "largest relative error of a gradient", max(errors.values()), 0, max(errors.values()) <= GRADIENT_BOUND)
    agreement = torch.cat(agreements).mean().item()
    assert figures["figures.distillation/agreement"] == pytest.approx(agreement, rel=FIGURE_BOUND)


def test_two_ranks_take_the_same_steps(engine, models):
    """Three micro-batches a step: one rank has nothing to compute with the last one."""
    batches = batches_of(*range(6))
    objective = OBJECTIVES["distillation, JSD with cross-entropy"]
    options = {"teacher": models[1], "learning_rate": 1e-3, "micro_batches": 3} | objective.options()
    alone, weights = engine.train(models[0], batches, **options)
    together, others = engine.train(models[0], batches, world=2, **options)
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=0)
    names = [name for name in weights if name.startswith("model.")]
    assert names
    for name in names:
        torch.testing.assert_close(others[name], weights[name], rtol=1e-4, atol=1e-5)
