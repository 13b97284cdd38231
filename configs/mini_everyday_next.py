"""Next-token steps on everyday code: what configs/mini_everyday.py starts from.

Everyday functions, classes, scripts, tests, edits and repairs, the lab's tasks, and
functions with docstrings from a corpus. A next-token step supervises twice as many
tokens per second as a block-diffusion one, and new words are learned from few.

Command:   scripts/on_cpu train --config configs/mini_everyday_next.py
               --out runs/everyday_next
Needs:     runs/mean_4 and corpus, made by scripts/train_mini, or
           --set init_from=mini --set data.corpus_rate=0
Hardware:  2 CPU cores with AVX-512, of which it had one
Expect:    28 minutes
"""

import dataclasses

from seedjax.diffusion.objective import Autoregressive
from seedjax.nn.presets import preset
from seedjax.tasks.lab.stream import LabConfig
from seedjax.train.config import RunConfig
from seedjax.train.optim import OptimizerConfig


def get_config() -> RunConfig:
    return RunConfig(
        model=dataclasses.replace(
            preset("mini"),
            attention="causal",
            block_size=8,
            logit_alignment="shifted",
            dtype="float32",  # where the CPU has no bfloat16 units
            max_positions=1024,
        ),
        objective=Autoregressive(),
        data=LabConfig(
            batch_size=8,
            block_size=8,
            seed=307,
            everyday=0.7,
            names=0.2,
            generate=0.4,
            infill=0.2,
            repair=0.18,
            edit=0.22,
            corpus="corpus",
            corpus_rate=0.08,
        ),
        optimizer=OptimizerConfig(
            learning_rate=1.5e-3, warmup_steps=100, weight_decay=0.01, ema_decay=0.995
        ),
        num_steps=3400,
        eval_every=1000,
        eval_batches=4,
        infill_spans=0,
        init_from="runs/mean_4",
    )
