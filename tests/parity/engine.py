# SPDX-License-Identifier: Apache-2.0
"""Our side of the comparison."""

import os
from pathlib import Path

import command_server
from safetensors.torch import load_file, save_file

ROOT = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("TEMPER_BIN", ROOT / "build/release/bin")).parent
PROBE = BUILD / "tests/parity_probe"

# AddressSanitizer would keep for a while what is freed, and a test that measures memory would see that.
FREED_IS_FREE = os.environ | {"ASAN_OPTIONS": f"{os.environ.get('ASAN_OPTIONS', '')}:quarantine_size_mb=1"}


class Engine:
    """Our engine, through tests/parity/parity_probe.cc."""

    def __init__(self, folder: Path, backend: str = "native"):
        self.folder = folder
        self.backend = ["--hf"] if backend == "hf" else []

    def _run(self, command, model, tensors, *options):
        source, target = self.folder / "in.safetensors", self.folder / "out.safetensors"
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, source)
        target.unlink(missing_ok=True)
        arguments = [command, "--model", model, "--in", source, "--out", target, *self.backend, *options]
        command_server.check_run(PROBE, *arguments)
        return load_file(target)

    def logits(self, model, batch, **options):
        flags = [x for name, value in options.items() for x in (f"--{name}", str(value))]
        return self._run("logits", model, batch.tensors(), *flags)["logits"]

    def round_trip(self, model, export):
        """Loads and exports a model without training it."""
        command_server.check_run(BUILD / "tests/round_trip_probe", model, export, 1 << 40)

    def make_adapter(self, model, adapter, *options):
        """Writes a PEFT adapter of our own, with a random B: it changes what the model computes."""
        command_server.check_run(PROBE, "adapter", "--model", model, "--out", adapter, *options)

    def merge(self, model, adapter, export, *options):
        """Writes the model with the adapter in its weights."""
        command_server.check_run(PROBE, "merged", "--model", model, "--lora", adapter, "--out", export, *options)

    def refusal(self, command, model, *options):
        """What is said of adapters that can't be."""
        arguments = [command, "--model", model, "--in", "unused", "--out", "unused", *options]
        result = command_server.run(PROBE, *arguments)
        assert result.returncode == 1
        return result.stderr

    def gradients(self, model, batches, *options):
        """(loss, {HF name: gradient})."""
        tensors = {k: v for i, batch in enumerate(batches) for k, v in batch.tensors(f"{i}.").items()}
        out = self._run("gradients", model, tensors, *options)
        return out.pop("loss").item(), out

    def train(self, model, batches, **options):
        """(losses, {HF name: weight}) after one AdamW step on each batch."""
        tensors = {k: v for i, batch in enumerate(batches) for k, v in batch.tensors(f"{i}.").items()}
        flags = [x for name, value in options.items() for x in (f"--{name.replace('_', '-')}", str(value))]
        out = self._run("train", model, tensors, *flags)
        return out.pop("losses"), out
