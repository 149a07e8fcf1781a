# SPDX-License-Identifier: Apache-2.0
import pytest
from e2e import tiny_chat_model
from worker.train.backends import BACKENDS


@pytest.fixture(scope="session", params=BACKENDS)
def inputs(request, tmp_path_factory):
    """model/, train.jsonl and pairs.jsonl: a tiny model, conversations that it can learn, and pairs of answers; for the
    backend that the folder is named after."""
    directory = tmp_path_factory.mktemp("inputs") / request.param
    tiny_chat_model.write_model(directory / "model")
    tiny_chat_model.write_data(directory / "train.jsonl")
    tiny_chat_model.write_pairs(directory / "pairs.jsonl")
    return directory
