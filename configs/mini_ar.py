"""The autoregressive twin of `mini`, and the weights that `mini` starts from.

Command:   seedjax data build --manifest s --unit function --out corpus
           scripts/train configs/mini_ar.py runs/mini_ar
Hardware:  2 CPU cores (AVX-512, AMX), no accelerator
"""

import dataclasses

from seedjax.data.pipeline import DataConfig
from seedjax.diffusion.objective import Autoregressive
from seedjax.presets import preset
from seedjax.train.config import RunConfig
from seedjax.train.optim import OptimizerConfig


def get_config() -> RunConfig:
    return RunConfig(
        model=dataclasses.replace(
            preset("mini"),
            attention="causal",
            logit_alignment="shifted",
            dtype="bfloat16",
            max_positions=1024,
        ),
        objective=Autoregressive(),
        data=DataConfig(corpus="corpus", sequence_length=256, batch_size=8),
        optimizer=OptimizerConfig(learning_rate=3e-3, warmup_steps=200),
        num_steps=8000,
        eval_every=500,
    )
