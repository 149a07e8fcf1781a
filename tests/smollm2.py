# SPDX-License-Identifier: Apache-2.0
"""SmolLM2-135M-Instruct, and a part of it: a real model for tests that need one."""

import json
import os
import re
import shutil
from pathlib import Path

from safetensors.torch import load_file, save_file

ROOT = Path(__file__).resolve().parents[1]
DIRECTORY = Path(os.environ.get("TEMPER_MODEL", ROOT / "build/models/SmolLM2-135M-Instruct"))
LAYERS = 30


def first_layers(layers: int, directory: Path) -> Path:
    """Writes the model with its first layers alone: all its shapes, in a fraction of the time."""
    shutil.copytree(DIRECTORY, directory, ignore=shutil.ignore_patterns("*.safetensors"))
    config = directory / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"num_hidden_layers": layers}))

    def is_kept(name: str) -> bool:
        layer = re.match(r"model\.layers\.(\d+)\.", name)
        return layer is None or int(layer[1]) < layers

    tensors = load_file(DIRECTORY / "model.safetensors")
    kept = {name: tensor for name, tensor in tensors.items() if is_kept(name)}
    save_file(kept, directory / "model.safetensors", metadata={"format": "pt"})
    return directory
