# SPDX-License-Identifier: Apache-2.0
import pytest
from engine import ROOT, Engine


@pytest.fixture
def engine(tmp_path):
    return Engine(tmp_path)


@pytest.fixture(scope="session")
def smollm2():
    """SmolLM2-135M-Instruct as an HF directory; `make setup` writes it."""
    directory = ROOT / "build/models/SmolLM2-135M-Instruct"
    assert (directory / "config.json").exists(), "run `make setup` first"
    return directory
