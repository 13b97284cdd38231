"""An adapter of Stable-DiffCoder-8B on your own prompts and responses.

The base is in bfloat16 and stays as it is; rows of 2,048 tokens are trained in
micro-batches of one. The prompt is never corrupted; every block of a response is
supervised at once (a clean and a noisy copy of each row).

Command:   seedjax models fetch stable-diffcoder
           seedjax train --config configs/sft_8b.py --set data.path=pairs.jsonl
             --out runs/tuned                                     (one H100)
           seedjax train --config configs/sft_8b.py --set data.path=pairs.jsonl
             --set data.batch_size=64 --mesh fsdp=8 --out runs/tuned   (eight chips)
Hardware:  an H100 of 80 GB; or eight TPU v5e chips
Expect:    not run, not measured. A step of this shape on a corpus compiles without the
           hardware: `seedjax plan lora-8b-h100 lora-8b-v5e8` prints its memory.
"""

import dataclasses

from seedjax.data.instructions import InstructionConfig
from seedjax.diffusion.objective import BlockDiffusion
from seedjax.nn.lora import LoRA
from seedjax.nn.presets import preset
from seedjax.train.config import RunConfig
from seedjax.train.optim import OptimizerConfig


def get_config() -> RunConfig:
    return RunConfig(
        model=dataclasses.replace(
            preset("stable_diffcoder_8b"),
            param_dtype="bfloat16",
            layer_loop="scan",
            remat="layer",
        ),
        objective=BlockDiffusion(weighting="uniform"),
        data=InstructionConfig(
            path="instructions.jsonl",
            sequence_length=2048,
            batch_size=4,
            block_size=4,
        ),
        optimizer=OptimizerConfig(learning_rate=2e-4, warmup_steps=50),
        num_steps=2000,
        init_from="stable-diffcoder",
        lora=LoRA(rank=16),
        accumulate=4,
        loss_chunk=512,
        infill_spans=0,
    )
