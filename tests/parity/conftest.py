# SPDX-License-Identifier: Apache-2.0
import pytest
from engine import Engine


@pytest.fixture
def engine(tmp_path):
    return Engine(tmp_path)
