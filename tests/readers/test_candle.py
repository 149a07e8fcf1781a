# SPDX-License-Identifier: Apache-2.0
"""candle reads what temper exports as transformers reads what was there before, of every family that it knows."""

import re
import subprocess
import tomllib

import pytest
import rust_crate
import tiny_models
from readers import reading

# It is built first, which takes minutes.
pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]

CRATE = rust_crate.CANDLE_READER
NO_WINDOW = {"sliding_window": 512}
# Where candle does something else than transformers, with models of whatever origin.
CHANGES = {
    # Its windows are longer by a token, and in all layers of Gemma 2; generating knows none.
    "mistral": NO_WINDOW,
    "mixtral": NO_WINDOW,
    "qwen2": NO_WINDOW | {"use_sliding_window": True},  # without it transformers writes none, and it asks for one
    # Scores are divided by √head_dim, whatever the config says.
    "gemma2": NO_WINDOW | {"query_pre_attn_scalar": 24},
    # Fields that it asks for: released models have them, and transformers does not write them any more.
    "gemma3_text": NO_WINDOW | {"sliding_window_pattern": 6},
    "qwen3_moe": {"max_window_layers": 3},
    # It knows none of these multipliers, and no tied embeddings.
    "granite": {
        "embedding_multiplier": 1.0,
        "attention_multiplier": 0.25,
        "residual_multiplier": 1.0,
        "logits_scaling": 1.0,
        "tie_word_embeddings": False,
    },
}
# It has no model of these.
UNKNOWN = {"gpt_oss", "olmo3"}


def version(text: str) -> tuple[int, ...]:
    return tuple(map(int, re.search(r"(\d+)\.(\d+)", text).groups()))


@pytest.fixture(scope="module")
def candle():
    def cargo(command: list[str]) -> subprocess.CompletedProcess:
        return subprocess.run(
            command, cwd=CRATE.directory, env=rust_crate.ENVIRONMENT, stdout=subprocess.PIPE, text=True, check=True
        )

    needed = tomllib.loads((CRATE.directory / "Cargo.toml").read_text())["package"]["rust-version"]
    if version(cargo(["cargo", "--version"]).stdout) < version(needed):
        pytest.skip(f"candle needs Rust {needed} or later")
    cargo(CRATE.cargo("build"))
    with reading.started([CRATE.target / "release" / CRATE.name]) as ask:
        yield ask


@pytest.mark.parametrize("family", [family for family in tiny_models.VARIANTS if family not in UNKNOWN])
def test_each_family_is_read_as_transformers_reads_it(family, candle, tmp_path):
    reading.assert_family_is_read_alike(candle, family, CHANGES.get(family, {}), tmp_path)


def test_smollm2_is_read_as_transformers_reads_it(candle, tmp_path):
    reading.assert_smollm2_is_read_alike(candle, tmp_path)
