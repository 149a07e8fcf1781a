# SPDX-License-Identifier: Apache-2.0
"""A training loop of plain transformers in its strongest form: no padding, bf16 autocast over fp32 weights, SDPA.

    cd tests/bench && python -m peers.transformers_loop WORK.json [--compile]

Documents of one length are a batch. Others are packed: one row, with positions that begin anew at each document, from
which transformers makes the mask, and no label where a document begins.
"""

import argparse
from pathlib import Path

import torch
from peers.step_recorder import StepRecorder
from transformers_step import StepTaker, load_model
from works import Work


def batch_of(documents: list[list[int]]) -> dict[str, torch.Tensor]:
    if len({len(document) for document in documents}) == 1:
        tokens = torch.tensor(documents)
        return {"input_ids": tokens, "labels": tokens}
    tokens = torch.tensor([[token for document in documents for token in document]])
    positions = torch.tensor([[position for document in documents for position in range(len(document))]])
    return {"input_ids": tokens, "position_ids": positions, "labels": tokens.masked_fill(positions == 0, -100)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--compile", action="store_true")
    arguments = parser.parse_args()
    work = Work.read(arguments.work)
    torch.set_num_threads(work.threads)
    taker = StepTaker(load_model(work.model, lora=work.lora), compiled=arguments.compile, bf16=work.bf16)
    batch = batch_of(work.documents)
    recorder = StepRecorder(work.seconds, work.steps, warm_up=2 if arguments.compile else 1)
    while not recorder.enough():
        recorder.loss(taker.step(batch).item())
        recorder.end_of_step()
    recorder.report()


if __name__ == "__main__":
    main()
