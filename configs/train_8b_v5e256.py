"""Block diffusion at 8 B parameters on a Cloud TPU v5e-256, then an edit stage.

The shape is that of Stable-DiffCoder-8B. It starts from a next-token checkpoint of the
same tensors (Seed-Coder-8B), which `convert --as-denoiser` turns into a start.

Command:   seedjax convert ByteDance-Seed/Seed-Coder-8B-Base --as-denoiser
             --out /shared/start
           seedjax data build --source CODE --tokenizer /shared/start/tokenizer
             --out /shared/corpus
           scripts/launch/submit cloud-tpu --topology v5e:16x16 --zone us-west4-a --spot
             -- train --config configs/train_8b_v5e256.py --mesh fsdp=256
             --set data.corpus=/shared/corpus --set init_from=/shared/start
             --set data.shards=64 --out gs://BUCKET/8b
           with /shared mounted on every host (gcsfuse, Filestore)
Hardware:  256 TPU v5e chips (16 GB each), 64 hosts
Expect:    not measured. Its first stage compiles without the hardware, and fits or does
           not fit: seedjax plan train-8b-v5e256-2k. It has never run on a TPU.
Lengths:   --set data.sequence_length=8192 is seedjax plan train-8b-v5e256-8k
"""

import dataclasses

from seedjax.data.pipeline import DataConfig
from seedjax.diffusion.edit_stage import EditStage
from seedjax.diffusion.objective import BlockDiffusion
from seedjax.nn.presets import preset
from seedjax.train.config import RunConfig
from seedjax.train.optim import OptimizerConfig


def get_config() -> RunConfig:
    return RunConfig(
        model=dataclasses.replace(
            preset("stable_diffcoder_8b"),
            param_dtype="float32",  # products are in bfloat16, moments in float32
            layer_loop="scan",
            remat="layer",
        ),
        objective=BlockDiffusion(edit=EditStage()),
        data=DataConfig(sequence_length=2048, batch_size=256, block_size=4),
        optimizer=OptimizerConfig(learning_rate=3e-5, warmup_steps=500),
        num_steps=10_000,  # 5.2 billion tokens
        loss_chunk=512,
        log_every=10,
        eval_every=500,
        checkpoint_every_s=900.0,
    )
