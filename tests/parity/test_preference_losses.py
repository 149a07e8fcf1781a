# SPDX-License-Identifier: Apache-2.0
"""Losses of pairs against a plain loop of transformers and PEFT, in fp32, by the formulas of TRL's trainers.

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
# Rewards are differences of log-probabilities, which are rounded to fp32: so far off, as a share of those.
ROUNDING = 2e-7


@dataclasses.dataclass
class Objective:
    loss: str
    beta: float
    label_smoothing: float = 0
    length_normalized: bool = False
    margin: float = 0

    @property
    def needs_reference(self):
        return self.loss not in ("simpo", "orpo")

    def flags(self):
        options = ["--preference", self.loss, "--beta", str(self.beta), "--margin", str(self.margin)]
        options += ["--label-smoothing", str(self.label_smoothing)]
        return options + ["--length-normalized"] * self.length_normalized

    def per_pair(self, chosen, rejected):
        """Losses of pairs, from answers (log-probability, that of the reference, tokens), each [pairs]."""
        by_length = self.length_normalized or self.loss in ("ipo", "simpo", "orpo")
        score = [(logps - ref) / (tokens if by_length else 1) for logps, ref, tokens in (chosen, rejected)]
        delta = score[0] - score[1]
        if self.loss == "ipo":
            return (delta - 1 / (2 * self.beta)) ** 2
        if self.loss == "hinge":
            return torch.relu(1 - self.beta * delta)
        if self.loss == "orpo":
            log_odds = delta - (torch.log1p(-score[0].exp()) - torch.log1p(-score[1].exp()))
            return -score[0] - self.beta * F.logsigmoid(log_odds)
        logit = self.beta * delta - self.margin
        return -F.logsigmoid(logit) * (1 - self.label_smoothing) - F.logsigmoid(-logit) * self.label_smoothing

    def tolerance(self, figure, figures):
        """Of a figure, absolute."""
        return ROUNDING * abs(self.beta * figures["logps/rejected"]) if figure.startswith("rewards/") else 1e-6

    def figures(self, chosen, rejected, per_token):
        """As TRL's trainers log them."""
        rewards, logps = [], []
        for answer, ref, tokens in (chosen, rejected):
            size = 1 if self.needs_reference else tokens
            logps.append(answer / size)
            rewards.append(self.beta * (answer - ref) / size)
        found = {
            "logps/chosen": logps[0].mean(),
            "logps/rejected": logps[1].mean(),
            "rewards/chosen": rewards[0].mean(),
            "rewards/rejected": rewards[1].mean(),
            "rewards/margins": (rewards[0] - rewards[1]).mean(),
            "rewards/accuracies": (rewards[0] > rewards[1]).float().mean(),
        }
        if self.needs_reference:
            found["kl"] = per_token.square().mean() / 2
        return {name: value.item() for name, value in found.items()}


OBJECTIVES = {
    "dpo": Objective("sigmoid", beta=0.3),
    "dpo, smoothed": Objective("sigmoid", beta=0.3, label_smoothing=0.1),
    "dpo, by length": Objective("sigmoid", beta=2, length_normalized=True),
    "ipo": Objective("ipo", beta=0.5),
    "hinge": Objective("hinge", beta=0.2),
    "simpo": Objective("simpo", beta=2, margin=0.5),
    "orpo": Objective("orpo", beta=0.4),
}


def random_pairs(seed, sizes=((20, 30, 11), (9, 5, 40), (31, 17, 8))):
    """A pack of pairs; sizes are those of prompt, chosen and rejected answer."""
    generator = torch.Generator().manual_seed(seed)
    documents, masks = [], []
    for prompt, *answers in sizes:
        shared = torch.randint(0, 331, (prompt,), generator=generator)
        for answer in answers:
            documents.append(torch.cat([shared, torch.randint(0, 331, (answer,), generator=generator)]))
            masks.append(torch.tensor([0] * (prompt - 1) + [1] * answer + [0]))
    batch = reference.pack(documents, generator)
    batch.mask = torch.cat(masks)
    return batch


def logprobs(model, batches):
    """Of each document's scored tokens, document by document."""
    for batch in batches:
        for span in batch.documents():
            rows = batch.mask[span].bool()
            of_all = model(batch.ids[span][None], use_cache=False).logits[0].float().log_softmax(-1)
            yield of_all[rows].gather(1, batch.targets[span][rows][:, None])[:, 0]


def evaluate(model, batches, objective):
    """(loss, figures)"""
    ours = list(logprobs(model, batches))
    theirs = [torch.zeros_like(each) for each in ours]
    if objective.needs_reference:
        with torch.no_grad(), model.disable_adapter():
            theirs = list(logprobs(model, batches))
    sums = [torch.stack([each.sum() for each in documents]) for documents in (ours, theirs)]
    tokens = torch.tensor([len(each) for each in ours])
    chosen, rejected = ((sums[0][i::2], sums[1][i::2], tokens[i::2]) for i in (0, 1))
    per_token = torch.cat(ours) - torch.cat(theirs)
    return objective.per_pair(chosen, rejected).mean(), objective.figures(chosen, rejected, per_token)


@pytest.fixture
def directory(tmp_path):
    tiny_models.make(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture(params=["native", "hf"])
def adapted(request, directory, tmp_path, engine):
    """A model, an adapter on it that changes what it computes, and whoever trains."""
    engine.make_adapter(directory, tmp_path / "adapter", "--rank", "4", "--alpha", "6", "--targets", "all-linear")
    if request.param == "hf":
        engine.backend = ["--hf"]
    return directory, tmp_path / "adapter"


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("adapted", ["native"], indirect=True)
def test_first_step_equals_transformers_and_peft(name, adapted, engine):
    assert_step_equals(name, adapted, engine)


@pytest.mark.parametrize("adapted", ["hf"], indirect=True)
def test_first_step_of_the_other_backend_equals_transformers_and_peft(adapted, engine):
    assert_step_equals("dpo", adapted, engine)


def assert_step_equals(name, adapted, engine):
    objective = OBJECTIVES[name]
    batches = [random_pairs(1), random_pairs(2, ((12, 3, 25),))]
    model = load(*adapted, is_trainable=True).train()
    loss, figures = evaluate(model, batches, objective)
    loss.backward()
    our_loss, out = engine.gradients(adapted[0], batches, "--lora", adapted[1], *objective.flags())
    ours = {key.removeprefix("figures."): out.pop(key).item() for key in list(out) if key.startswith("figures.")}
    errors = reference.gradient_errors(serialized(model), out)

    def check(what, mine, theirs, passed):
        objectives_report.add(f"{name}, {engine.backend and 'hf' or 'native'}", what, mine, theirs, bool(passed))
        assert passed, (what, mine, theirs)

    check("loss", our_loss, loss.item(), our_loss == pytest.approx(loss.item(), rel=LOSS_BOUND))
    check("largest relative error of a gradient", max(errors.values()), 0, max(errors.values()) <= GRADIENT_BOUND)
    assert ours.keys() == figures.keys()
    for figure, value in figures.items():
        close = pytest.approx(value, rel=FIGURE_BOUND, abs=objective.tolerance(figure, figures))
        check(figure, ours[figure], value, ours[figure] == close)


@pytest.mark.parametrize("name", ["dpo", "ipo", "simpo"])
@pytest.mark.parametrize("adapted", ["native"], indirect=True)
def test_20_adamw_steps_follow_transformers_and_peft(name, adapted, engine):
    objective = OBJECTIVES[name]
    batches = [random_pairs(seed % 4) for seed in range(20)]
    model = load(*adapted, is_trainable=True).train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3, weight_decay=0)
    losses = []
    for batch in batches:
        optimizer.zero_grad()
        loss, _ = evaluate(model, [batch], objective)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    ours, _ = engine.train(
        adapted[0],
        batches,
        lora=adapted[1],
        learning_rate=1e-3,
        max_grad_norm=1.0,
        preference=objective.loss,
        beta=objective.beta,
        margin=objective.margin,
    )
    error = max(abs(a / b - 1) for a, b in zip(ours.tolist(), losses, strict=True))
    objectives_report.add(f"{name}, native", "last loss of 20 steps", ours[-1].item(), losses[-1], error <= CURVE_BOUND)
    assert losses[-1] < losses[0]
    assert error <= CURVE_BOUND


def test_losses_without_a_reference_train_all_weights(engine, directory):
    """As of a plain loop: its gradients are those of the whole model."""
    batches = [random_pairs(1)]
    for name in ("simpo", "orpo"):
        model = reference.load(directory).train()
        loss, _ = evaluate(model, batches, OBJECTIVES[name])
        loss.backward()
        our_loss, out = engine.gradients(directory, batches, *OBJECTIVES[name].flags())
        gradients = {key: value for key, value in out.items() if not key.startswith("figures.")}
        assert our_loss == pytest.approx(loss.item(), rel=LOSS_BOUND)
        expected = {parameter: p.grad for parameter, p in model.named_parameters()}
        assert max(reference.gradient_errors(expected, gradients).values()) <= GRADIENT_BOUND


@pytest.mark.parametrize("kind", ["dora", "tokens", "experts"])
def test_reference_is_without_adapters_of_any_kind(kind, engine, tmp_path):
    """Each kind is switched off in a place of its own."""
    directory, adapter = tmp_path / "model", tmp_path / "adapter"
    family, variant, *options = {
        "dora": ("llama", "gqa", "--targets", "all-linear", "--dora"),
        "tokens": ("llama", "gqa", "--targets", "lm_head", "embed_tokens"),
        "experts": ("mixtral", next(iter(tiny_models.VARIANTS["mixtral"])), "--targets", "experts"),
    }[kind]
    tiny_models.make(directory, family, **tiny_models.VARIANTS[family][variant])
    engine.make_adapter(directory, adapter, "--rank", "4", "--alpha", "6", *options)
    batches = [random_pairs(3)]
    with torch.no_grad():
        loss, figures = evaluate(load(directory, adapter), batches, OBJECTIVES["dpo"])
    _, out = engine.gradients(directory, batches, "--lora", adapter, *OBJECTIVES["dpo"].flags())
    for figure, value in figures.items():
        close = pytest.approx(value, rel=FIGURE_BOUND, abs=OBJECTIVES["dpo"].tolerance(figure, figures))
        assert out[f"figures.{figure}"].item() == close, figure
    assert loss.item() != pytest.approx(0.6931, abs=1e-3)  # the adapter tells


@pytest.mark.parametrize("adapted", ["native"], indirect=True)
def test_two_ranks_take_the_same_steps(adapted, engine):
    objective = OBJECTIVES["dpo"]
    # Three micro-batches a step: one rank has nothing to compute with the last one.
    batches = [random_pairs(seed) for seed in range(6)]
    options = {"lora": adapted[1], "learning_rate": 1e-3, "preference": objective.loss, "beta": objective.beta}
    alone, weights = engine.train(adapted[0], batches, micro_batches=3, **options)
    together, others = engine.train(adapted[0], batches, micro_batches=3, world=2, **options)
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=0)
    names = [name for name in weights if "lora_" in name]
    assert names
    for name in names:
        torch.testing.assert_close(others[name], weights[name], rtol=1e-4, atol=1e-6)
