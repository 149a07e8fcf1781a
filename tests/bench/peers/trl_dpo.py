# SPDX-License-Identifier: Apache-2.0
"""TRL's DPOTrainer: with its defaults, or with the options that make it fastest on a CPU.

    cd tests/bench && python -m peers.trl_dpo WORK.json [--fastest]

The defaults pad every batch to its longest answer, recompute activations and, where all weights are trained, hold a
second model as the reference. The fastest options keep activations and compute the reference's log-probabilities
before the first step, which is not measured. Weights are fp32: TRL's own choice, the dtype of the file, is bf16, in
which small updates are lost.
"""

import argparse
import json
import tempfile
from pathlib import Path

import datasets
import torch
import transformers
import trl
from peers.step_recorder import StepRecorder
from peers.trl_sft import MORE_STEPS_THAN_NEEDED, Watch, lora
from works import Work


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--fastest", action="store_true")
    arguments = parser.parse_args()
    work = Work.read(arguments.work)
    torch.set_num_threads(work.threads)
    recorder = StepRecorder(work.seconds, work.steps)
    pairs = [json.loads(line) for line in Path(work.data).read_text().splitlines()]
    fastest = {"gradient_checkpointing": False, "precompute_ref_log_probs": True} if arguments.fastest else {}
    with tempfile.TemporaryDirectory() as directory:
        trainer = trl.DPOTrainer(
            model=work.model,
            args=trl.DPOConfig(
                output_dir=directory,
                model_init_kwargs={"dtype": "float32"},
                use_cpu=True,
                bf16=work.bf16,
                per_device_train_batch_size=len(pairs),
                max_length=work.max_sample_tokens,
                max_steps=MORE_STEPS_THAN_NEEDED,
                logging_steps=1,
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
                **fastest,
            ),
            train_dataset=datasets.Dataset.from_list(pairs),
            processing_class=transformers.AutoTokenizer.from_pretrained(work.model),
            peft_config=lora() if work.lora else None,
            callbacks=[Watch(recorder)],
        )
        trainer.train()
    recorder.report()


if __name__ == "__main__":
    main()
