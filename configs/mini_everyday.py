"""Blocks of 8 from the left, on everyday code beside the lab: towards `everyday`.

Command:   seedjax data build --manifest s --out corpus
               --tokenizer seedjax/bundled/mini/tokenizer
           scripts/on_cpu train --config configs/mini_everyday.py
               --out runs/everyday_blocks
Needs:     runs/everyday_next, made by configs/mini_everyday_next.py
Hardware:  2 CPU cores with AVX-512, of which it had one
Expect:    67 minutes; scores: docs/results/mini.md
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
            dtype="float32",  # where the CPU has no bfloat16 units
            max_positions=1024,
        ),
        objective=ConstrainedOrder(
            weighting="share", first_token_id=14, noisy_blocks=24
        ),
        data=LabConfig(
            batch_size=8,
            block_size=8,
            order="left",
            seed=311,
            everyday=0.65,
            names=0.2,
            generate=0.4,
            infill=0.2,
            repair=0.18,
            edit=0.22,
            corpus="corpus",
            corpus_rate=0.06,
        ),
        optimizer=OptimizerConfig(
            learning_rate=1.2e-3, warmup_steps=60, weight_decay=0.01, ema_decay=0.995
        ),
        num_steps=4000,
        eval_every=2000,
        eval_batches=4,
        infill_spans=0,
        init_from="runs/everyday_next",
    )
