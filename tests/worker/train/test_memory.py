# SPDX-License-Identifier: Apache-2.0
"""Memory that is not there: wherever that shows, the rank says so."""

import json
import os
import subprocess

from e2e import tiny_chat_model
from worker.train.backends import backend_of
from worker.train.training_run import RANK, job

# 77 MB of weights in fp32: five times that and what the libraries have suffice. Python's libraries have more; with so
# much as is here, they can't be loaded, the model can't, and its first step can't be taken.
WIDE = {"hidden_size": 384, "intermediate_size": 1024, "num_hidden_layers": 12, "num_attention_heads": 6}
MEGABYTES = {"native": range(340, 500, 20), "hf": (500, 1120, 1250)}


def test_memory_that_ends_is_told_wherever_it_ends(inputs, tmp_path):
    tiny_chat_model.write_model(tmp_path / "model", **WIDE)
    environment = os.environ | ({"TEMPER_PYTHON": "/none"} if backend_of(inputs) == "native" else {})
    file = tmp_path / "job.json"
    in_steps = 0
    for megabytes in MEGABYTES[backend_of(inputs)]:
        spec = job(inputs, tmp_path / f"out{megabytes}", model__uri=str(tmp_path / "model"), training__steps=2)
        file.write_text(json.dumps(spec))
        command = ["prlimit", f"--data={megabytes << 20}", RANK, "train", file]
        result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment)
        if result.returncode == 0:
            continue
        assert result.returncode == 1, (megabytes, result)
        assert "temper-rank: OUT_OF_MEMORY: " in result.stderr, (megabytes, result)
        in_steps += '"PHASE_TRAINING"' in result.stdout and "EXPORTING" not in result.stdout
    assert in_steps > 0, "all ended elsewhere: other limits are needed"
