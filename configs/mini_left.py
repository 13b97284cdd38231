"""Blocks of 8 that are decided from the left: the second half of the making of `mini`.

All that `LeftToRight` ever shows a model are blocks whose decided part is a prefix, so
that is what it is trained on: references, in the order in which they would be decided.
What follows on this run is in scripts/train_mini, the scores in
docs/results/post-training.md.

Command:   scripts/on_cpu train --config configs/mini_left.py --out runs/left
Needs:     runs/mini, made by configs/mini.py; `--init-from mini` starts from the
           bundled model instead
Hardware:  2 CPU cores with AVX-512 and AMX, shared
Expect:    65 minutes
"""

import dataclasses

from seedjax.diffusion.constrained_order import ConstrainedOrder
from seedjax.nn.presets import preset
from seedjax.tasks.lab.stream import LabConfig
from seedjax.train.config import RunConfig
from seedjax.train.optim import OptimizerConfig


def get_config() -> RunConfig:
    return RunConfig(
        model=dataclasses.replace(
            preset("mini"),
            block_size=8,
            logit_alignment="shifted",
            dtype="bfloat16",
            max_positions=1024,
        ),
        # The nearer a block is to its end, the fewer tokens it is asked for; all of its
        # states count alike.
        objective=ConstrainedOrder(
            weighting="share", first_token_id=14, noisy_blocks=24
        ),
        data=LabConfig(
            batch_size=8,
            block_size=8,
            order="left",
            seed=131,
            generate=0.35,
            infill=0.2,
            repair=0.3,
            edit=0.15,
        ),
        optimizer=OptimizerConfig(
            learning_rate=1.2e-3, warmup_steps=60, weight_decay=0.01, ema_decay=0.995
        ),
        num_steps=13000,
        log_every=50,
        eval_every=4000,
        infill_spans=0,
        init_from="runs/mini",
    )
