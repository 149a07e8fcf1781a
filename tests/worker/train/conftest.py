# SPDX-License-Identifier: Apache-2.0
import pytest
from e2e import tiny_chat_model


@pytest.fixture(scope="session")
def inputs(tmp_path_factory):
    """model/ and train.jsonl: a tiny model, and conversations that it can learn."""
    directory = tmp_path_factory.mktemp("inputs")
    tiny_chat_model.write_model(directory / "model")
    tiny_chat_model.write_data(directory / "train.jsonl")
    return directory
