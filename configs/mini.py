"""The bundled model `mini`: block diffusion on Python functions, then an edit stage.

It starts from the weights of its autoregressive twin (configs/mini_ar.py), which learns to
copy names in a fraction of the tokens, and adapts to blocks of 16.
"""

import dataclasses

from seedjax.data.pipeline import DataConfig
from seedjax.diffusion.edit_stage import EditStage
from seedjax.diffusion.objective import BlockDiffusion
from seedjax.presets import preset
from seedjax.train.config import RunConfig
from seedjax.train.optim import OptimizerConfig


def get_config() -> RunConfig:
    return RunConfig(
        model=dataclasses.replace(preset("mini"), dtype="bfloat16", max_positions=1024),
        objective=BlockDiffusion(
            weighting="uniform",
            edit=EditStage(alignment="substitute", first_token_id=14),
        ),
        data=DataConfig(corpus="corpus", sequence_length=256, batch_size=8),
        optimizer=OptimizerConfig(learning_rate=2e-3, warmup_steps=200),
        num_steps=8000,
        init_from="runs/mini_start",
        eval_every=500,
    )
