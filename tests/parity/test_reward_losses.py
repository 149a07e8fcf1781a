# SPDX-License-Identifier: Apache-2.0
"""Reward models against transformers' own and PEFT, in fp32, by the formula of TRL's RewardTrainer.

Each test of a loss writes its rows of build/reports/objectives.json.
"""

import objectives_report
import peft
import pytest
import reference
import tiny_models
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from test_lora import serialized
from transformers import AutoModelForSequenceClassification

LOSS_BOUND = 1e-5
GRADIENT_BOUND = 1e-4
CURVE_BOUND = 1e-3
FIGURE_BOUND = 1e-5
REWARD_BOUND = 1e-5
PADDING = 330  # no document has it
CENTERING = {"bradley-terry": 0.0, "bradley-terry, centred": 0.05}
FIRST = [(family, next(iter(variants))) for family, variants in tiny_models.VARIANTS.items() if family != "granite"]


def load(directory, adapter=None, **options):
    model = AutoModelForSequenceClassification.from_pretrained(
        directory, dtype=torch.float32, attn_implementation="eager", experts_implementation="eager"
    )
    return (peft.PeftModel.from_pretrained(model, adapter, **options) if adapter else model).eval()


def write_reward_model(directory, family="llama", variant="gqa"):
    """A language model's decoder with a score of its own, as transformers writes it."""
    language = directory.parent / f"{directory.name}-language"
    tiny_models.make(language, family, **tiny_models.VARIANTS[family][variant])
    torch.manual_seed(5)
    model = AutoModelForSequenceClassification.from_pretrained(language, num_labels=1, pad_token_id=PADDING)
    torch.nn.init.normal_(model.score.weight, std=0.3)
    model.save_pretrained(directory)


def pairs(seed, sizes=((20, 30, 11), (9, 5, 40), (31, 17, 8))):
    """A pack of pairs, each answer scored at its end; sizes are those of prompt, chosen and rejected answer."""
    generator = torch.Generator().manual_seed(seed)

    def draw(size):
        return torch.randint(0, PADDING, (size,), generator=generator)

    documents = []
    for prompt, *answers in sizes:
        shared = draw(prompt)
        documents += [torch.cat([shared, draw(answer)]) for answer in answers]
    batch = reference.pack(documents, generator)
    batch.mask = torch.zeros_like(batch.ids)
    batch.mask[batch.starts[1:] - 1] = 1
    return batch


def rewards(model, batches):
    documents = [batch.ids[span] for batch in batches for span in batch.documents()]
    return torch.stack([model(ids[None], use_cache=False).logits[0, 0] for ids in documents])


def evaluate(model, batches, centering):
    """(loss, figures), as TRL has them."""
    scores = rewards(model, batches)
    chosen, rejected = scores[0::2], scores[1::2]
    loss = -F.logsigmoid(chosen - rejected).mean() + centering * (chosen + rejected).square().mean()
    figures = {
        "accuracy": (chosen > rejected).float().mean(),
        "margin": (chosen - rejected).mean(),
        "mean_reward": scores.mean(),
        "min_reward": scores.min(),
        "max_reward": scores.max(),
    }
    return loss, {name: value.item() for name, value in figures.items()}


@pytest.fixture
def directory(tmp_path):
    write_reward_model(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def adapter(directory, tmp_path, engine):
    options = ("--reward", "--rank", "4", "--alpha", "6", "--targets", "all-linear")
    engine.make_adapter(directory, tmp_path / "adapter", *options)
    return tmp_path / "adapter"


@pytest.mark.parametrize("adapted", [False, True], ids=["all weights", "adapters"])
@pytest.mark.parametrize("name", CENTERING)
def test_first_step_equals_transformers(name, adapted, directory, adapter, engine):
    batches = [pairs(1), pairs(2, ((12, 3, 25),))]
    model = load(directory, adapter if adapted else None, **{"is_trainable": True} if adapted else {})
    loss, figures = evaluate(model, batches, CENTERING[name])
    loss.backward()
    expected = serialized(model) if adapted else {key: p.grad for key, p in model.named_parameters()}
    lora = ("--lora", adapter) if adapted else ()
    our_loss, out = engine.gradients(directory, batches, "--reward", "--centering", str(CENTERING[name]), *lora)
    ours = {key.removeprefix("figures."): out.pop(key).item() for key in list(out) if key.startswith("figures.")}
    largest = max(reference.gradient_errors(expected, out).values())

    def check(what, mine, theirs, passed):
        kind = "adapters" if adapted else "all weights"
        objectives_report.add(f"reward, {name}, {kind}", what, mine, theirs, bool(passed))
        assert passed, (what, mine, theirs)

    check("loss", our_loss, loss.item(), our_loss == pytest.approx(loss.item(), rel=LOSS_BOUND))
    check("largest relative error of a gradient", largest, 0, largest <= GRADIENT_BOUND)
    assert ours.keys() == figures.keys()
    for figure, value in figures.items():
        check(figure, ours[figure], value, ours[figure] == pytest.approx(value, rel=FIGURE_BOUND, abs=1e-6))


@pytest.mark.parametrize("adapted", [False, True], ids=["all weights", "adapters"])
def test_20_adamw_steps_follow_transformers(adapted, directory, adapter, engine):
    batches = [pairs(seed % 4) for seed in range(20)]
    model = load(directory, adapter if adapted else None, **{"is_trainable": True} if adapted else {})
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-4, weight_decay=0)
    losses = []
    for batch in batches:
        optimizer.zero_grad()
        loss, _ = evaluate(model, [batch], centering=0.05)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    tensors = {k: v for i, batch in enumerate(batches) for k, v in batch.tensors(f"{i}.").items()}
    options = ["--reward", "--centering", "0.05", "--learning-rate", "3e-4", "--max-grad-norm", "1.0"]
    options += ["--lora", adapter] if adapted else []
    ours = engine._run("train", directory, tensors, *options)["losses"]
    error = max(abs(a - b) / max(b, losses[0] / 10) for a, b in zip(ours.tolist(), losses, strict=True))
    name = f"reward, bradley-terry, centred, {'adapters' if adapted else 'all weights'}"
    objectives_report.add(name, "last loss of 20 steps", ours[-1].item(), losses[-1], error <= CURVE_BOUND)
    assert losses[-1] < losses[3]  # of the same batch
    assert error <= CURVE_BOUND


@pytest.mark.parametrize(("family", "variant"), FIRST)
def test_every_family_scores_as_transformers_does(family, variant, engine, tmp_path):
    """Ours from transformers' files, and transformers' from ours, with adapters and without."""
    directory, adapter, merged = (tmp_path / name for name in ("model", "adapter", "merged"))
    write_reward_model(directory, family, variant)
    batch = pairs(4)
    ends = batch.mask.bool()

    def ours(*lora):
        return engine._run("logits", directory, batch.tensors(), "--reward", *lora)["logits"][ends, 0]

    with torch.no_grad():
        torch.testing.assert_close(ours(), rewards(load(directory), [batch]), rtol=REWARD_BOUND, atol=REWARD_BOUND)
        options = ("--reward", "--rank", "4", "--alpha", "6", "--targets", "all-linear")
        engine.make_adapter(directory, adapter, *options)
        adapted = ours("--lora", adapter)
        assert not torch.allclose(adapted, ours(), rtol=1e-3, atol=1e-3)  # the adapter tells
        theirs = rewards(load(directory, adapter), [batch])
        torch.testing.assert_close(adapted, theirs, rtol=REWARD_BOUND, atol=REWARD_BOUND)
        engine.merge(directory, adapter, merged, "--reward")
        torch.testing.assert_close(rewards(load(merged), [batch]), adapted, rtol=1e-4, atol=1e-4)
    assert "lm_head.weight" not in load_file(merged / "model.safetensors")


def test_two_ranks_take_the_same_steps(directory, adapter, engine):
    # Three micro-batches a step: one rank has nothing to compute with the last one.
    tensors = {k: v for i in range(6) for k, v in pairs(i).tensors(f"{i}.").items()}
    for lora in ((), ("--lora", adapter)):
        options = ["--reward", "--centering", "0.05", "--learning-rate", "3e-4", "--micro-batches", "3", *lora]
        alone, together = (engine._run("train", directory, tensors, *options, "--world", str(n)) for n in (1, 2))
        torch.testing.assert_close(together["losses"], alone["losses"], rtol=1e-5, atol=0)
        names = [name for name in alone if "score" in name or "lora_" in name]
        assert names
        for name in names:
            torch.testing.assert_close(together[name], alone[name], rtol=1e-4, atol=1e-6)
