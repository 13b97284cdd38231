"""The autoregressive twin of `mini`: as many steps, the same data, the same start.

Command:   scripts/launch train --config configs/mini_ar.py --out runs/mini_ar
Needs:     runs/mini_start, see configs/mini_start.py
Hardware:  2 CPU cores with AVX-512 and AMX, shared
Expect:    40 minutes, sharing the cores; 1.07 held-out bits per byte
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
        data=DataConfig(
            corpus="corpus", sequence_length=256, batch_size=8, shuffle_seed=1
        ),
        optimizer=OptimizerConfig(learning_rate=2e-3, warmup_steps=200),
        num_steps=5000,
        init_from="runs/mini_start",
        eval_every=250,
    )
