# SPDX-License-Identifier: Apache-2.0
"""TRL's SFTTrainer: with its defaults, or with the options that make it fastest on a CPU.

    cd tests/bench && python -m peers.trl_sft WORK.json [--fastest]

The defaults keep the model in the dtype of its file (bf16: small updates are lost, where ours have fp32 masters), pad
every batch to its longest sample and recompute activations.
"""

import argparse
import tempfile
from pathlib import Path

import datasets
import peft
import torch
import transformers
import trl
from peers.step_recorder import StepRecorder
from works import Work

MORE_STEPS_THAN_NEEDED = 10_000


class Watch(transformers.TrainerCallback):
    def __init__(self, recorder: StepRecorder) -> None:
        self._recorder = recorder

    def on_log(self, args, state, control, logs=None, **_) -> None:  # after each step: logging_steps is 1
        if "loss" not in logs:
            return
        self._recorder.loss(float(logs["loss"]))
        self._recorder.end_of_step()
        control.should_training_stop = self._recorder.enough()


def settings(work: Work, fastest: bool) -> dict:
    """All samples of the work are one step."""
    if not fastest:
        return {"per_device_train_batch_size": len(work.documents), "max_length": work.max_sample_tokens}
    packed = {"packing": True, "per_device_train_batch_size": 1, "max_length": work.tokens}
    return packed | {"gradient_checkpointing": False}


def lora() -> peft.LoraConfig:
    return peft.LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--fastest", action="store_true")
    arguments = parser.parse_args()
    work = Work.read(arguments.work)
    torch.set_num_threads(work.threads)
    recorder = StepRecorder(work.seconds, work.steps)
    with tempfile.TemporaryDirectory() as directory:
        trainer = trl.SFTTrainer(
            model=work.model,
            args=trl.SFTConfig(
                output_dir=directory,
                use_cpu=True,
                bf16=work.bf16,
                max_steps=MORE_STEPS_THAN_NEEDED,
                logging_steps=1,
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
                **settings(work, arguments.fastest),
            ),
            train_dataset=datasets.Dataset.from_dict({"input_ids": work.documents}),
            peft_config=lora() if work.lora else None,
            callbacks=[Watch(recorder)],
        )
        trainer.train()
    recorder.report()


if __name__ == "__main__":
    main()
