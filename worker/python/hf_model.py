# SPDX-License-Identifier: Apache-2.0
"""A transformers model as the engine trains it, run in the interpreter that temper-rank embeds (embedded_hf_model.cc).

Legend: T tokens of a row of documents, one after another; S some of them; D hidden, V vocabulary.
"""

import contextlib
import inspect
import json
import re
from collections.abc import Callable

import torch
import transformers
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import (
    WeightConverter,
    WeightRenaming,
    rename_source_key,
    revert_weight_conversion,
)
from transformers.initialization import no_init_weights
from transformers.masking_utils import AttentionMaskInterface, causal_mask_function
from transformers.modeling_utils import AttentionInterface
from transformers.pytorch_utils import Conv1D

transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()

PACKED = "temper_packed"
EAGER = "eager"


class Unsupported(Exception):
    """What this backend can't train. The message is for users."""


class PackedAttention:
    """temper's own attention, behind transformers' interface: no document sees another's tokens."""

    def __init__(self):
        self.attend: Callable | None = None  # ops::PackedAttention
        self.starts: list[int] = []  # of the documents in the row that is computed, and its end
        # Of each call in the newest pass: widths of all heads of queries and of values, window.
        self.shapes: list[tuple[int, int, int]] = []
        # Of each mask that was asked for: whether it is plainly causal, and how many keys it leaves.
        self.masks: list[tuple[bool, int | None]] = []

    def mask(self, *arguments, mask_function=causal_mask_function, local_size=None, **options) -> None:
        """In place of a mask: attention has none but its own."""
        self.masks.append((mask_function is causal_mask_function, local_size))

    def reads_all_masks(self) -> bool:
        """Whether a pass over a single document had no restriction that attention was not told of as a window."""
        windows = {window for _, _, window in self.shapes}
        return all(size in windows if size is not None else plain for plain, size in self.masks)

    def __call__(self, module, query, key, value, attention_mask, scaling=None, dropout=0.0, **options):
        # query: [1, heads, T, width]; key and value may have fewer heads.
        unknown = [name for name, given in options.items() if name in FORBIDDEN and given is not None]
        if unknown or getattr(module, "is_causal", True) is False or options.get("is_causal") is False:
            raise Unsupported(f"its attention has {', '.join(unknown) or 'no causal mask'}")
        softcap, window, sinks = (options.get(name) for name in ("softcap", "sliding_window", "s_aux"))
        scale = query.shape[-1] ** -0.5 if scaling is None else scaling
        heads = query.shape[1]
        self.shapes.append((heads * query.shape[-1], heads * value.shape[-1], window or 0))
        if (dropout and module.training) or query.shape[-1] != value.shape[-1]:
            if softcap or window or sinks is not None:
                raise Unsupported(
                    "its attention has dropout, or values of another width, beside windows, caps or sinks"
                )
            return self._by_document(query, key, value, scale, dropout if module.training else 0.0), None
        rows = [tensor[0].transpose(0, 1) for tensor in (query, key, value)]
        return self.attend(*rows, self.starts, scale, softcap or 0.0, window or 0, sinks)[None], None

    def _by_document(self, query, key, value, scale, dropout):
        outputs = [
            torch.nn.functional.scaled_dot_product_attention(
                *(tensor[:, :, begin:end] for tensor in (query, key, value)),
                dropout_p=dropout,
                is_causal=True,
                scale=scale,
                enable_gqa=True,
            )
            for begin, end in zip(self.starts, self.starts[1:])
        ]
        return torch.cat(outputs, dim=2).transpose(1, 2)


# What models hand to an attention function and ours has no counterpart of.
FORBIDDEN = {"head_mask", "position_bias", "alibi", "attention_bias", "block_mask"}
ATTENTION = PackedAttention()
AttentionInterface.register(PACKED, ATTENTION)
AttentionMaskInterface.register(PACKED, ATTENTION.mask)


def read_config(config_json: str, directory: str, remote_code: bool):
    values = json.loads(config_json)
    if remote_code and "auto_map" in values:
        return transformers.AutoConfig.from_pretrained(directory, trust_remote_code=True, local_files_only=True)
    model_type = values.pop("model_type", None)
    if model_type not in transformers.CONFIG_MAPPING:
        hint = (
            "; its own code could be run if the server allowed it (temper-server --trust-remote-code)"
            if "auto_map" in values
            else ""
        )
        raise Unsupported(
            f"transformers {transformers.__version__} does not know model_type {model_type!r} of config.json{hint}"
        )
    return transformers.CONFIG_MAPPING[model_type].from_dict(values)


def refuse_what_is_not_trained(config) -> None:
    """Losses beside that of tokens, which the model's own forward pass adds to it."""
    config = config.get_text_config()
    if getattr(config, "output_router_logits", False) and getattr(config, "router_aux_loss_coef", 0):
        raise Unsupported(
            "config.json: output_router_logits asks for the loss for an even use of experts, which a model that "
            "transformers trains is not given; set it to false to train without"
        )


def build(config_json: str, directory: str, remote_code: bool, attention: str) -> torch.nn.Module:
    """The model without its weights: on CPU they are whatever was in memory."""
    config = read_config(config_json, directory, remote_code)
    refuse_what_is_not_trained(config)
    if not remote_code and type(config) not in transformers.MODEL_FOR_CAUSAL_LM_MAPPING:
        raise Unsupported(f"transformers has no causal language model of type {config.model_type!r}")
    with no_init_weights():
        model = transformers.AutoModelForCausalLM.from_config(
            config, dtype=torch.float32, attn_implementation=attention, trust_remote_code=remote_code or None
        )
    model.tie_weights()
    named = json.loads(config_json).get("architectures") or [type(model).__name__]
    if type(model).__name__ != named[0]:
        raise Unsupported(f"config.json names {named[0]}, but transformers makes a {type(model).__name__} of it")
    if model.get_output_embeddings() is None or model.base_model is model:
        raise Unsupported(f"{type(model).__name__} has no head apart from its body")
    return model


def goes_through_interface(config_json: str, directory: str, remote_code: bool) -> bool:
    """Whether the model's attention can be ours."""
    config = read_config(config_json, directory, remote_code)
    model_class = transformers.MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    return bool(getattr(model_class, "_supports_attention_backend", False))


def apart(actual: torch.Tensor, expected: torch.Tensor) -> float:
    return float((actual - expected).float().norm() / expected.float().norm())


class Model:
    def __init__(self, config_json: str, directory: str, remote_code: bool, meta: bool):
        attention = PACKED if goes_through_interface(config_json, directory, remote_code) else EAGER
        with torch.device("meta" if meta else "cpu"):
            self.model = build(config_json, directory, remote_code, attention)
        self.body = self.model.base_model
        self.head = self.model.get_output_embeddings()
        self.packs = attention == PACKED and "position_ids" in inspect.signature(self.body.forward).parameters
        self.why_not_packed = "" if self.packs else "its attention does not go through transformers' interface"
        self.weights = self._collect()
        self.work: dict = {}  # see products()
        self._kinds_at_first = self._kinds()  # before PEFT changes the modules
        self._looked_up = {
            f"{name}.weight" for name, module in self.model.named_modules() if isinstance(module, torch.nn.Embedding)
        }

    def _collect(self) -> dict[str, torch.Tensor]:
        """Parameters, and buffers that a checkpoint holds, by their names in memory; each once."""
        persistent = self.model.state_dict(keep_vars=True)
        weights = dict(self.model.named_parameters())
        ids = {id(tensor) for tensor in weights.values()}
        for name, tensor in persistent.items():
            if id(tensor) not in ids and tensor.is_floating_point():
                weights[name] = tensor
        return weights

    # What the engine asks of the model before it trains.

    def describe(self, stored: list[str]) -> dict:
        """`stored`: names of the tensors in the checkpoint."""
        config = self.model.config.get_text_config()
        kinds = self._kinds_at_first
        aliases = self._aliases()
        names = {}
        ignored = []
        converted = set()
        for key in stored:
            name, is_converted = self._name_in_memory(key)
            if name is None:
                ignored.append(key)
            elif is_converted:
                converted.add(name)
            else:
                names[key] = name
        pieces = {name: self._pieces(name) for name in converted}
        return {
            "architecture": type(self.model).__name__,
            "vocab_size": self.head.weight.shape[0],
            "hidden_size": self.model.get_input_embeddings().weight.shape[1],
            "layers": int(getattr(config, "num_hidden_layers", 1)),
            "heads": int(getattr(config, "num_attention_heads", 0) or 0),
            "positions": int(getattr(config, "max_position_embeddings", 0) or 0),
            "tied": self.head.weight is self.model.get_input_embeddings().weight,
            "weights": [
                (
                    name,
                    list(tensor.flatten(0, -2).shape if name in pieces else tensor.shape),
                    kinds.get(name, "other"),
                    isinstance(tensor, torch.nn.Parameter),
                    pieces.get(name, []),
                )
                for name, tensor in self.weights.items()
            ],
            "names": [(key, aliases.get(name, name)) for key, name in names.items()],
            "ignored": ignored,
            "packs": self.packs,
            "plain_head": type(self.head) is torch.nn.Linear and self.head.bias is None,
        }

    def _kinds(self) -> dict[str, str]:
        kinds = {}
        embedding = self.model.get_input_embeddings()
        for name, module in self.model.named_modules():
            if module is embedding:
                kinds[f"{name}.weight"] = "embedding"
            elif module is self.head:
                kinds[f"{name}.weight"] = "head"
            elif isinstance(module, Conv1D):
                kinds[f"{name}.weight"] = "conv1d"
            elif type(module) is torch.nn.Linear:
                kinds[f"{name}.weight"] = "linear"
        return kinds

    def _aliases(self) -> dict[str, str]:
        """Second names of weights that have several: tied ones."""
        first = {id(tensor): name for name, tensor in self.weights.items()}
        return {
            name: first[id(tensor)]
            for name, tensor in self.model.named_parameters(remove_duplicate=False)
            if first[id(tensor)] != name
        }

    def _pieces(self, name: str) -> list[tuple[str, int, int]]:
        """What a weight that is fused in memory is in a checkpoint, by transformers' own reverse conversion: names, and
        rows [first, first + count) of the weight as a matrix."""
        tensor = self.weights[name]
        rows = tensor.numel() // tensor.shape[-1]
        # Each row is its own number, twice: what is moved in any other way than by whole rows shows.
        ids = torch.arange(rows, device="cpu").view(*tensor.shape[:-1], 1).expand(*tensor.shape[:-1], 2)
        pieces = []
        for stored, value in revert_weight_conversion(self.model, {name: ids.contiguous()}).items():
            first, count = int(value.flatten()[0]), value.shape[0]
            expected = torch.arange(first, first + count, device="cpu")[:, None].expand(count, 2)
            if value.shape != (count, 2) or not torch.equal(value, expected):
                raise Unsupported(f"{stored} lies otherwise in memory than in the file, and not by whole rows")
            pieces.append((stored, first, count))
        if sum(count for _, _, count in pieces) != rows:
            raise Unsupported(f"{name} is in the file only together with other weights")
        return sorted(pieces, key=lambda piece: piece[1])

    def _name_in_memory(self, key: str) -> tuple[str | None, bool]:
        """As from_pretrained renames what it reads, and whether it does more to it. None: a tensor that it ignores."""
        if not hasattr(self, "_conversions"):
            conversions = get_model_conversion_mapping(self.model)
            self._conversions = (
                [entry for entry in conversions if isinstance(entry, WeightRenaming)],
                [entry for entry in conversions if isinstance(entry, WeightConverter)],
                self.model.state_dict(keep_vars=True),
            )
        renamings, converters, there = self._conversions
        name, converted = rename_source_key(key, renamings, converters, self.model.base_model_prefix, there)
        if name not in there and key in there:
            name, converted = key, None
        if name in there and not there[name].is_floating_point():
            return None, False
        if converted is not None and name in there:
            stored = revert_weight_conversion(self.model, {name: there[name]})
            return name, [(n, t.shape) for n, t in stored.items()] != [(key, there[name].shape)]
        if name not in there and any(
            re.search(pattern, name) for pattern in self.model._keys_to_ignore_on_load_unexpected or ()
        ):
            return None, False
        return name, False

    # Training.

    def add_lora(
        self, modules: list[str], rank: int, alpha: float, rslora: bool, dora: bool, dropout: float
    ) -> dict[str, list[torch.Tensor]]:
        """Puts PEFT's adapters on linear modules: A, B and, with DoRA, the magnitudes of each. The base is frozen."""
        import peft  # noqa: PLC0415  (few jobs need it)

        self.model.requires_grad_(False)
        config = peft.LoraConfig(
            r=rank,
            lora_alpha=alpha,
            use_rslora=rslora,
            use_dora=dora,
            lora_dropout=dropout,
            target_modules=modules,
            fan_in_fan_out=any(isinstance(self.model.get_submodule(name), Conv1D) for name in modules),
        )
        peft.inject_adapter_in_model(config, self.model)
        factors = {}
        self.adapted = [self.model.get_submodule(name) for name in modules]
        for name, layer in zip(modules, self.adapted, strict=True):
            factors[name] = [layer.lora_A["default"].weight, layer.lora_B["default"].weight]
            if dora:
                factors[name].append(layer.lora_magnitude_vector["default"].weight)
        return factors

    def to_bfloat16(self) -> None:
        stay = [
            *(getattr(self.model, "_keep_in_fp32_modules", None) or ()),
            *(getattr(self.model, "_keep_in_fp32_modules_strict", None) or ()),
        ]
        for name, parameter in self.model.named_parameters():
            if not any(module in name.split(".") for module in stay):
                parameter.data = parameter.data.to(torch.bfloat16)

    def hidden(
        self, tokens_T: torch.Tensor, positions_T: torch.Tensor, starts: list[int], train: bool, adapters: bool = True
    ) -> torch.Tensor:
        """[T, D]: what the body gives, final norm included."""
        self.model.train(train)
        with contextlib.nullcontext() if adapters else self._without_adapters():
            if not self.packs:
                return self._hidden_by_document(tokens_T, starts)
            ATTENTION.starts = starts
            ATTENTION.shapes = []
            output = self.body(input_ids=tokens_T[None], position_ids=positions_T[None], use_cache=False)
            return output[0][0]

    @contextlib.contextmanager
    def _without_adapters(self):
        for layer in self.adapted:
            layer.enable_adapters(False)
        try:
            yield
        finally:
            for layer in self.adapted:
                layer.enable_adapters(True)

    def _hidden_by_document(self, tokens_T: torch.Tensor, starts: list[int]) -> torch.Tensor:
        """Documents as rows of a batch, padded at the end; rows that are together differ in length by half at most."""
        documents = list(zip(starts, starts[1:]))
        longest_first = sorted(range(len(documents)), key=lambda i: documents[i][0] - documents[i][1])
        hidden = [torch.empty(0)] * len(documents)
        while longest_first:
            length = documents[longest_first[0]][1] - documents[longest_first[0]][0]
            group = [i for i in longest_first if 2 * (documents[i][1] - documents[i][0]) >= length]
            longest_first = longest_first[len(group) :]
            ids = tokens_T.new_zeros((len(group), length))
            mask = torch.zeros_like(ids)
            for row, i in enumerate(group):
                begin, end = documents[i]
                ids[row, : end - begin] = tokens_T[begin:end]
                mask[row, : end - begin] = 1
            output = self.body(input_ids=ids, attention_mask=mask, use_cache=False)[0]
            for row, i in enumerate(group):
                hidden[i] = output[row, : documents[i][1] - documents[i][0]]
        return torch.cat(hidden)

    def logits(self, tokens: torch.Tensor) -> torch.Tensor:
        """fp32 [T, V] of one document, as the model itself gives them."""
        self.model.eval()
        ATTENTION.starts = [0, len(tokens)]
        return self.model(input_ids=tokens[None], use_cache=False).logits[0].float()

    def own_logits(self, hidden_SD: torch.Tensor) -> torch.Tensor:
        """[S, V], as the model makes them of hidden states: with its scale, cap or bias. Recorded by autograd."""
        hook = self.head.register_forward_pre_hook(lambda module, arguments: (hidden_SD[None],))
        ATTENTION.starts = [0, 1]
        try:
            return self.model(input_ids=torch.zeros((1, 1), dtype=torch.long), use_cache=False).logits[0]
        finally:
            hook.remove()

    def check_packing(self) -> str:
        """Why documents are not packed; "" when they are.

        Packs two documents: neither may see the other, and each must be as it is alone by the model's own attention."""
        if not self.packs:
            return self.why_not_packed
        self.model.eval()
        generator = torch.Generator().manual_seed(0)
        vocabulary = self.model.get_input_embeddings().weight.shape[0]
        first, second, other = (torch.randint(vocabulary, (n,), generator=generator) for n in (7, 9, 7))
        positions = torch.cat([torch.arange(7), torch.arange(9)])
        try:
            with torch.no_grad():
                with self._count_products():
                    packed = self.hidden(torch.cat([first, second]), positions, [0, 7, 16], train=False)
                self.work["attention"] = list(ATTENTION.shapes)
                changed = self.hidden(torch.cat([other, second]), positions, [0, 7, 16], train=False)
                ATTENTION.masks = []
                self.hidden(first, positions[:7], [0, 7], train=False)
                if not ATTENTION.reads_all_masks():
                    raise Unsupported("a mask says what its attention sees")
                self.model.set_attn_implementation(EAGER)
                alone = [self.body(input_ids=ids[None], use_cache=False)[0][0] for ids in (first, second)]
        except Unsupported as error:
            return self._do_not_pack(str(error))
        finally:
            self.model.set_attn_implementation(PACKED)
        exact = packed.dtype == torch.float32
        # By a bit, but where experts are: how many rows they get decides in what order they add up.
        if apart(changed[7:], packed[7:]) > (1e-6 if exact else 0.02):
            return self._do_not_pack("its documents see each other when they are packed")
        if apart(packed, torch.cat(alone)) > (1e-4 if exact else 0.05):
            return self._do_not_pack("our attention does not compute what its own does")
        return ""

    @contextlib.contextmanager
    def _count_products(self):
        """Counts the rows that linear modules of the body see in a pass over 16 tokens."""
        rows = {}

        def watch(name):
            def hook(module, arguments, output):
                rows[name] = rows.get(name, 0) + output.numel() // output.shape[-1]

            return hook

        with contextlib.ExitStack() as stack:
            for name, module in self.model.named_modules():
                if isinstance(module, (torch.nn.Linear, Conv1D)) and module is not self.head:
                    # PEFT keeps the map itself inside of its own module.
                    own_name = f"{name}.weight".replace(".base_layer.weight", ".weight")
                    stack.callback(module.register_forward_hook(watch(own_name)).remove)
            yield
        kinds = self._kinds_at_first
        uncounted = [
            name
            for name, tensor in self.weights.items()
            if tensor.dim() > 1 and name not in rows and kinds.get(name) not in ("embedding", "head")
        ]
        # Positions are looked up, as tokens are.
        uncounted = [name for name in uncounted if name not in self._looked_up]
        self.work = {"known": not uncounted, "rows": {name: count / 16 for name, count in rows.items()}}

    def products(self) -> tuple[bool, dict[str, float], list[tuple[int, int, int]]]:
        """What the body multiplies for a token: whether that is all of it, rows of each linear weight, attention."""
        known = self.packs and self.work.get("known", False)
        rows = {name: count for name, count in self.work.get("rows", {}).items() if name in self.weights}
        return known, rows, self.work.get("attention", [])

    def _do_not_pack(self, why: str) -> str:
        self.packs = False
        self.why_not_packed = why
        self.model.set_attn_implementation(EAGER)
        return why
