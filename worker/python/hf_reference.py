# SPDX-License-Identifier: Apache-2.0
"""transformers' side of the verifier. temper-rank runs it in its embedded interpreter (embedded_hf_reference.cc)."""

import contextlib
import copy
import json
import re
from pathlib import Path

import safetensors
import torch
import transformers
from transformers.core_model_loading import revert_weight_conversion

transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()


def by_token(x: torch.Tensor | tuple) -> torch.Tensor:
    """Without the batch. A router returns its scores first."""
    x = x[0] if isinstance(x, tuple) else x
    return x[0] if x.dim() > 2 else x


def part_of_model(directory: str, config_json: str, first: int, count: int):
    """Class, path and arguments of from_pretrained for some of a model's layers; only their tensors are read."""
    values = json.loads(config_json)
    config = transformers.AutoConfig.for_model(**values)
    tensors = {}
    for path in sorted(Path(directory).glob("*.safetensors")):
        with safetensors.safe_open(path, "pt") as file:
            names = file.keys()
            for name in names:
                layer = re.search(r"(?<=\.layers\.)\d+", name)
                if layer is None:
                    tensors[name] = file.get_tensor(name)
                elif first <= int(layer[0]) < first + count:
                    renamed = f"{name[: layer.start()]}{int(layer[0]) - first}{name[layer.end() :]}"
                    tensors[renamed] = file.get_tensor(name)
    model_class = getattr(transformers, values["architectures"][0])
    return model_class, None, {"config": config, "state_dict": tensors}


class Reference:
    def __init__(self, directory: str, adapter: str, dtype: str, layers: tuple[str, int, int] | None):
        """`adapter`: a PEFT directory, or "". `layers`: config.json, first layer and number of layers of a part."""
        self.directory = directory
        source = (transformers.AutoModelForCausalLM, directory, {})
        if layers is not None:
            source = part_of_model(directory, *layers)
        model_class, path, arguments = source
        # Eager is the reference: other attention functions silently drop what some families need.
        self.model = model_class.from_pretrained(
            path,
            dtype=getattr(torch, dtype),
            attn_implementation="eager",
            experts_implementation="eager",
            local_files_only=True,
            **arguments,
        ).eval()
        if adapter:
            import peft  # noqa: PLC0415  (few environments need it)

            peft.PeftModel.from_pretrained(self.model, adapter).eval()  # changes the model in place
        # Their state grows with the longest document seen: each document starts from what they were at first.
        self.rotary = {
            name: copy.deepcopy(module)
            for name, module in self.model.named_modules()
            if type(module).__name__.endswith("RotaryEmbedding")
        }

    def _forward(self, ids: torch.Tensor, **arguments) -> torch.Tensor:
        for name, module in self.rotary.items():
            self.model.set_submodule(name, copy.deepcopy(module))
        return self.model(ids, use_cache=False, **arguments).logits.float()

    @torch.no_grad()
    def logits(self, ids: torch.Tensor) -> torch.Tensor:
        return self._forward(ids[None])[0]

    @torch.no_grad()
    def padded_logits(self, documents: list[torch.Tensor]) -> list[torch.Tensor]:
        ids = torch.nn.utils.rnn.pad_sequence(documents, batch_first=True)
        mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(ids) for ids in documents], batch_first=True)
        logits = self._forward(ids, attention_mask=mask)
        return [row[: len(document)] for row, document in zip(logits, documents)]

    @torch.no_grad()
    def trace(
        self, ids: torch.Tensor, names: list[str]
    ) -> tuple[dict[str, tuple[torch.Tensor, torch.Tensor]], torch.Tensor]:
        modules, seen = dict(self.model.named_modules()), {}

        def watch(name, module):
            def hook(module, arguments, output):
                seen[name] = (by_token(arguments[0]), by_token(output))

            return module.register_forward_hook(hook)

        with contextlib.ExitStack() as stack:
            for name in set(names):
                # Mixtral's experts have another name in a checkpoint than in memory.
                module = modules.get(name) or modules.get(name.replace(".block_sparse_moe.", ".mlp."))
                if module is not None:
                    stack.callback(watch(name, module).remove)
            logits = self._forward(ids[None])[0]
        return seen, logits

    def gradients(self, documents: list[torch.Tensor]) -> dict[str, torch.Tensor]:
        total, count = 0.0, sum(len(ids) - 1 for ids in documents)
        for ids in documents:
            logits = self._forward(ids[None])[0, :-1]
            total = total + torch.nn.functional.cross_entropy(logits, ids[1:], reduction="sum")
        (total / count).backward()
        gradients = {name: parameter.grad for name, parameter in self.model.named_parameters()}
        self.model.zero_grad(set_to_none=True)
        # In memory some layouts are not a checkpoint's.
        return revert_weight_conversion(self.model, gradients)

    def encode(self, texts: list[str]) -> list[torch.Tensor] | None:
        if not any(Path(self.directory, name).exists() for name in ("tokenizer.json", "tokenizer.model", "vocab.json")):
            return None
        tokenizer = transformers.AutoTokenizer.from_pretrained(self.directory, local_files_only=True)
        return [torch.tensor(tokenizer(text)["input_ids"]) for text in texts]
