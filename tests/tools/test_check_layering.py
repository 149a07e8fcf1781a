# SPDX-License-Identifier: Apache-2.0
"""tools/check_layering.py finds a planted violation of each rule, at its line, and nothing in a sound tree."""

from pathlib import Path

import check_layering
import pytest


def plant(root: Path, files: dict[str, str]) -> list[str]:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return [str(violation) for violation in check_layering.violations(root)]


def test_sound_tree_passes(tmp_path: Path) -> None:
    assert (
        plant(
            tmp_path,
            {
                "server/jobs/job_store.cc": '#include "common/clock.h"\n#include "temper/v1/job.pb.h"\n',
                "worker/train/trainer.cc": '#include "worker/ops/linear.h"\n#include <torch/torch.h>\n',
                "worker/families/llama.cc": '#include "worker/model/model_config.h"\n',
                "worker/checkpoint/hf_repository.cc": '#include "worker/model/parameter.h"\n',
                "tests/worker/train/trainer_test.cc": '#include "worker/train/trainer.h"\n',
                "worker/train/trainer.h": "#include <string>\n",
            },
        )
        == []
    )


@pytest.mark.parametrize(
    ("file", "include", "rule"),
    [
        ("worker/ops/linear.cc", '"worker/train/trainer.h"', "worker/ops may not include worker/train"),
        ("worker/families/llama.cc", '"worker/model/transformer.h"', "worker/families may not include worker/model"),
        ("common/digest.cc", '"common/storage/object_store.h"', "common may not include common/storage"),
        ("server/jobs/job_store.cc", '"worker/train/trainer.h"', "server/jobs may not include worker/train"),
        ("client/command/submit.cc", '"server/jobs/job_store.h"', "client/command may not include server/jobs"),
        ("server/api/watch.cc", "<torch/torch.h>", "torch belongs in worker/ only"),
        ("worker/node/main.cc", "<ATen/ATen.h>", "torch belongs in worker/ only"),
        ("worker/session/session.cc", "<c10/core/Device.h>", "torch belongs in worker/ only"),
        ("worker/train/trainer.cc", '"temper/v1/job.pb.h"', "protobuf belongs in"),
        ("worker/session/session.cc", "<grpcpp/grpcpp.h>", "gRPC belongs in"),
        ("worker/verify/verifier.cc", "<torch/csrc/utils/pybind.h>", "Python belongs in worker/python only"),
        ("worker/train/trainer.cc", "<Python.h>", "Python belongs in worker/python only"),
        ("worker/new_folder/thing.cc", '"worker/train/trainer.h"', "worker/new_folder is not in the table"),
    ],
)
def test_violation_is_reported_with_line_and_rule(tmp_path: Path, file: str, include: str, rule: str) -> None:
    found = plant(tmp_path, {file: f"// a comment\n#include {include}\n"})
    assert len(found) == 1
    assert found[0].startswith(f"{file}:2: includes ")
    assert rule in found[0]


def test_unit_that_sees_torch_and_protobuf_through_headers_is_reported(tmp_path: Path) -> None:
    found = plant(
        tmp_path,
        {
            "worker/train/tensors.h": "#include <torch/torch.h>\n",
            "worker/session/session.h": '#include "temper/v1/job.pb.h"\n',
            "worker/session/session.cc": '#include "worker/session/session.h"\n#include "worker/train/tensors.h"\n',
        },
    )
    assert found == [
        'worker/train/tensors.h:1: includes "torch/torch.h": worker/session/session.cc sees protobuf as well '
        "(by worker/session/session.h:1)"
    ]
