# SPDX-License-Identifier: Apache-2.0
"""mlx-lm reads what temper exports as transformers reads what was there before, of every family that it knows."""

from pathlib import Path

import pytest
import tiny_models
from readers import reading

PYTHON = Path(__file__).resolve().parents[2] / "build/readers/bin/python"
NO_WINDOW = {"sliding_window": 512}
OLMO3_ROPE = tiny_models.VARIANTS["olmo3"]["scaled_full"]["rope_parameters"]
# Where mlx-lm does something else than transformers, with models of whatever origin.
CHANGES = {
    # It knows no windows of these.
    "mistral": NO_WINDOW,
    "gemma2": NO_WINDOW,
    # It rounds what embeddings are multiplied by, √hidden_size, to bf16: 12 stays 12.
    "gemma3_text": {"hidden_size": 144},
    # It has one theta for all layers, as released models do.
    "olmo3": {"rope_parameters": {kind: rope | {"rope_theta": 5e5} for kind, rope in OLMO3_ROPE.items()}},
}
# It reads gpt-oss with packed experts (MXFP4) alone; ours are exported unpacked.
UNKNOWN = {"gpt_oss"}


@pytest.fixture(scope="module")
def mlx():
    with reading.started([PYTHON, Path(__file__).with_name("mlx_reader.py")]) as ask:
        yield ask


@pytest.mark.parametrize("family", [family for family in tiny_models.VARIANTS if family not in UNKNOWN])
def test_each_family_is_read_as_transformers_reads_it(family, mlx, tmp_path):
    reading.assert_family_is_read_alike(mlx, family, CHANGES.get(family, {}), tmp_path)


def test_smollm2_is_read_as_transformers_reads_it(mlx, tmp_path):
    reading.assert_smollm2_is_read_alike(mlx, tmp_path)
