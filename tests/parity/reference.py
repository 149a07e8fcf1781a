# SPDX-License-Identifier: Apache-2.0
"""transformers' side of the comparison, and the measures of how far two results are apart. All measures are float64."""

import dataclasses

import torch
from transformers import AutoModelForCausalLM
from transformers.core_model_loading import revert_weight_conversion
from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func


def load(directory, dtype=torch.float32):
    # Eager attention and experts are the reference: SDPA silently drops what some families need.
    return AutoModelForCausalLM.from_pretrained(
        directory, dtype=dtype, attn_implementation="eager", experts_implementation="eager"
    ).eval()


@dataclasses.dataclass
class Batch:
    """A packed micro-batch: documents one after another; row t is scored on targets[t] where mask[t] is 1."""

    ids: torch.Tensor
    targets: torch.Tensor
    mask: torch.Tensor
    starts: torch.Tensor
    teacher: dict[str, torch.Tensor] = dataclasses.field(default_factory=dict)  # what one has said of the scored rows

    def tensors(self, prefix=""):
        return {
            f"{prefix}ids": self.ids,
            f"{prefix}targets": self.targets,
            f"{prefix}mask": self.mask,
            f"{prefix}document_starts": self.starts,
            **{f"{prefix}{name}": tensor for name, tensor in self.teacher.items()},
        }

    def documents(self):
        for begin, end in zip(self.starts[:-1].tolist(), self.starts[1:].tolist()):
            yield slice(begin, end)


def pack(documents, generator, scored=0.6):
    """Packs lists of ids; a random share of the positions that have a successor is scored."""
    ids = torch.cat(documents)
    lengths = torch.tensor([0] + [len(d) for d in documents])
    starts = lengths.cumsum(0)
    targets = torch.zeros_like(ids)
    mask = torch.zeros_like(ids)
    for begin, end in zip(starts[:-1].tolist(), starts[1:].tolist()):
        targets[begin : end - 1] = ids[begin + 1 : end]
        mask[begin : end - 1] = (torch.rand(end - begin - 1, generator=generator) < scored).long()
    return Batch(ids, targets, mask, starts)


def random_batch(vocab_size, lengths, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return pack([torch.randint(0, vocab_size, (n,), generator=generator) for n in lengths], generator)


def logits(model, batch_or_ids):
    """[T, V] of every document on its own: what packing must not change."""
    with torch.no_grad():
        if isinstance(batch_or_ids, Batch):
            return torch.cat([logits(model, batch_or_ids.ids[span]) for span in batch_or_ids.documents()])
        return model(batch_or_ids[None], use_cache=False).logits[0].float()


def loss(model, batches):
    """−Σ log p(target) over the scored rows of all batches, divided by their number."""
    total, count = 0.0, 0
    routers = []  # of each document: the router's logits of every layer
    for batch in batches:
        for span in batch.documents():
            rows = batch.mask[span].bool()
            output = model(batch.ids[span][None], use_cache=False)
            logprobs = output.logits[0].float().log_softmax(-1)
            total = total - logprobs[rows].gather(1, batch.targets[span][rows][:, None]).sum()
            count += int(rows.sum())
            if getattr(output, "router_logits", None):
                routers.append(output.router_logits)
    if not routers:
        return total / count
    assert len(batches) == 1, "the loss for an even use of experts is per pack"
    config = model.config
    layers = tuple(torch.cat(documents) for documents in zip(*routers, strict=True))
    balance = load_balancing_loss_func(layers, layers[0].shape[-1], config.num_experts_per_tok)
    return total / count + config.router_aux_loss_coef * balance


def gradients(directory, batches):
    """(loss, {name: gradient}) of a fresh model."""
    model = load(directory).train()
    total = loss(model, batches)
    total.backward()
    # transformers keeps experts fused in memory; a checkpoint has them one by one.
    return total.item(), revert_weight_conversion(model, {name: p.grad for name, p in model.named_parameters()})


def gradient_errors(expected, actual):
    """name → ‖actual − expected‖ / max(‖expected‖, 1e-5 · ‖all of expected‖)."""
    assert expected.keys() == actual.keys()
    total = torch.cat([g.double().flatten() for g in expected.values()]).norm()
    return {
        name: ((actual[name].double() - g.double()).norm() / max(g.double().norm(), 1e-5 * total)).item()
        for name, g in expected.items()
    }


def kl(reference, other):
    """KL(reference ‖ other) of every position."""

    def of_some(reference, other):
        p, q = reference.double().log_softmax(-1), other.double().log_softmax(-1)
        return (p.exp() * (p - q)).sum(-1)

    # A large vocabulary's logits of all positions at once would take gigabytes in float64.
    return torch.cat([of_some(*some) for some in zip(reference.split(256), other.split(256), strict=True)])


def relative_error(reference, other):
    """‖other − reference‖ / ‖reference‖ of every row."""
    reference, other = reference.double(), other.double()
    return (other - reference).norm(dim=-1) / reference.norm(dim=-1)
