"""A LoRA adapter of an 8 B model on your own code, on eight TPU v5e chips or one H100.

The base is in bfloat16 and stays as it is. The data are documents of code; for pairs of
prompts and responses see configs/sft_8b.py.

Command:   seedjax convert ByteDance-Seed/Stable-DiffCoder-8B-Instruct --out coder
           seedjax data build --source ~/my/code --tokenizer coder/tokenizer --out mine
           seedjax train --config configs/lora_8b_v5e8.py --mesh fsdp=8 --out runs/tuned
           seedjax train --config configs/lora_8b_v5e8.py --out runs/tuned
             --set data.batch_size=4   (one H100)
Hardware:  8 TPU v5e chips of one host, or an H100 of 80 GB
Expect:    not measured; it has never run on either. Compiled without the hardware, a
           step takes 33 of the 79 GiB of an H100 and 5.0 of the 15.75 of a v5e
           (seedjax plan lora-8b-h100 lora-8b-v5e8)
"""

import dataclasses

from seedjax.data.pipeline import DataConfig
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
        objective=BlockDiffusion(),
        data=DataConfig(
            corpus="mine", sequence_length=2048, batch_size=8, block_size=4
        ),
        optimizer=OptimizerConfig(learning_rate=2e-4, warmup_steps=50),
        num_steps=2000,
        init_from="coder",
        lora=LoRA(rank=16),
        loss_chunk=512,
    )
